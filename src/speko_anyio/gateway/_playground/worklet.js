// What runs on the browser's audio thread: the microphone into messages of PCM16, and PCM16 into the speaker.

import { Resampler } from "./resampler.js";

const MESSAGE_SECONDS = 0.02; // of speech in one message: what telephony sends, too
const REPORT_SECONDS = 0.05;

function loudness(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.sqrt(sum / Math.max(1, samples.length));
}

class Capture extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.resampler = new Resampler(sampleRate, processorOptions.rate);
    this.message = new Int16Array(processorOptions.rate * MESSAGE_SECONDS);
    this.filled = 0;
  }

  process([[channel]]) {
    if (!channel) return true; // nothing is connected yet
    for (const sample of this.resampler.process(channel)) {
      this.message[this.filled++] = Math.max(-1, Math.min(1, sample)) * 32767;
      if (this.filled === this.message.length) this.deliver();
    }
    return true;
  }

  deliver() {
    const pcm = this.message.slice();
    let sum = 0;
    for (const sample of pcm) sum += (sample / 32768) ** 2;
    this.port.postMessage({ pcm: pcm.buffer, level: Math.sqrt(sum / pcm.length) }, [pcm.buffer]);
    this.filled = 0;
  }
}

class Playback extends AudioWorkletProcessor {
  constructor({ processorOptions }) {
    super();
    this.resampler = new Resampler(processorOptions.rate, sampleRate);
    this.queue = []; // Float32 at the device's rate
    this.offset = 0; // samples of the first one that were played
    this.waiting = 0;
    this.played = 0;
    this.reported = 0;
    this.port.onmessage = ({ data }) => (data === "flush" ? this.flush() : this.take(new Int16Array(data)));
  }

  take(pcm) {
    const samples = this.resampler.process(Float32Array.from(pcm, (sample) => sample / 32768));
    this.queue.push(samples);
    this.waiting += samples.length;
  }

  flush() {
    this.queue = [];
    this.offset = this.waiting = 0;
    this.resampler.reset();
    this.report(0);
  }

  process(_, [[channel]]) {
    let written = 0;
    while (written < channel.length && this.queue.length) {
      const part = this.queue[0].subarray(this.offset, this.offset + channel.length - written);
      channel.set(part, written);
      written += part.length;
      this.offset += part.length;
      if (this.offset === this.queue[0].length) {
        this.queue.shift();
        this.offset = 0;
      }
    }
    this.waiting -= written;
    this.played += written;
    if (currentTime - this.reported >= REPORT_SECONDS) this.report(loudness(channel.subarray(0, written)));
    return true;
  }

  report(level) {
    this.reported = currentTime;
    this.port.postMessage({ level, played: this.played / sampleRate, buffered: this.waiting / sampleRate });
  }
}

registerProcessor("capture", Capture);
registerProcessor("playback", Playback);
