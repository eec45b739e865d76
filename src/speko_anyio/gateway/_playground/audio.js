// The microphone and the speaker, as far as the page wants to know them.

export class AudioError extends Error {}

const REFUSALS = {
  NotAllowedError: "The browser was not allowed to use the microphone. Allow it for this page (the icon beside the address), then press Start again.",
  NotFoundError: "There is no microphone. Plug one in, then press Start again.",
  NotReadableError: "The microphone is in use by another program, or the system withholds it. Free it, then press Start again.",
};

export class Audio {
  // Asks for the microphone, unless it is not wanted: nothing is heard or played before `start`.
  static async open({ microphone }) {
    if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) {
      throw new AudioError("This browser gives microphones and speakers to pages from https:// or localhost only. Open the page by such an address.");
    }
    let stream;
    try {
      const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
      if (microphone) stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      throw new AudioError(REFUSALS[error.name] ?? `The microphone can't be used (${error.name}). Check it, then press Start again.`);
    }
    const context = new AudioContext({ latencyHint: "interactive" });
    try {
      await context.audioWorklet.addModule("/playground/worklet.js");
      await context.resume();
      return new Audio(stream, context);
    } catch (error) {
      stream?.getTracks().forEach((track) => track.stop());
      await context.close();
      throw error;
    }
  }

  constructor(stream, context) {
    this.stream = stream;
    this.context = context;
  }

  // At the session's rates. `onSpeech(pcm, level)` gets every 20 ms of the microphone,
  // `onPlayback({level, played, buffered})` the speaker's state, in seconds.
  start({ inputRate, outputRate, onSpeech, onPlayback }) {
    if (this.stream) {
      this.capture = new AudioWorkletNode(this.context, "capture", {
        numberOfOutputs: 0,
        channelCount: 1,
        channelCountMode: "explicit",
        processorOptions: { rate: inputRate },
      });
      this.capture.port.onmessage = ({ data }) => onSpeech(data.pcm, data.level);
      this.context.createMediaStreamSource(this.stream).connect(this.capture);
    }
    this.playback = new AudioWorkletNode(this.context, "playback", {
      numberOfInputs: 0,
      outputChannelCount: [1],
      processorOptions: { rate: outputRate },
    });
    this.playback.port.onmessage = ({ data }) => onPlayback(data);
    this.playback.connect(this.context.destination);
  }

  play(pcm) {
    this.playback?.port.postMessage(pcm, [pcm]);
  }

  flush() {
    this.playback?.port.postMessage("flush");
  }

  async close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    await this.context.close();
  }
}
