// A session of the Speko protocol: mint over HTTP, then one WebSocket with the token as its subprotocol.

export class SessionError extends Error {}

const READY_TIMEOUT = 15_000; // milliseconds, for the mint and the server's `ready` each

export async function mint({ key, config }) {
  let response;
  try {
    response = await fetch("/v1/sessions", {
      method: "POST",
      headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
      body: JSON.stringify({ mode: "s2s", s2s: config }),
      signal: AbortSignal.timeout(READY_TIMEOUT),
    });
  } catch {
    throw new SessionError("The gateway can't be reached. Is speko-anyio serve still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  if (response.status === 401) {
    throw new SessionError("The gateway does not accept this API key. Copy the one that speko-anyio serve printed.");
  }
  throw new SessionError(`The gateway refused the session: ${answer.error ?? `HTTP ${response.status}`}`);
}

export class Session {
  // `handlers`: onFrame(frame), onAudio(ArrayBuffer), onClose(code, reason).
  static open(grant, handlers) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(grant.wsUrl, [grant.wsToken]);
      socket.binaryType = "arraybuffer";
      let ready = false;
      const limit = setTimeout(() => {
        reject(new SessionError("The gateway did not get ready in time. Press Start again."));
        socket.close();
      }, READY_TIMEOUT);
      let failure;
      socket.onmessage = ({ data }) => {
        if (typeof data !== "string") return handlers.onAudio(data);
        const frame = JSON.parse(data);
        if (frame.t === "ready") {
          ready = true;
          clearTimeout(limit);
          const session = new Session(socket, frame);
          // The server sends the end of each answer only to clients that ask for it.
          if (frame.extensions?.includes("usage")) session.#say({ t: "extensions", use: ["usage"] });
          resolve(session);
        }
        if (frame.t === "error") failure = frame.message;
        handlers.onFrame(frame);
      };
      socket.onclose = ({ code, reason }) => {
        clearTimeout(limit);
        if (!ready) reject(new SessionError(`The session was not opened: ${failure ?? (reason || `code ${code}`)}`));
        else handlers.onClose(code, reason);
      };
    });
  }

  constructor(socket, { inputSampleRate, outputSampleRate, extensions }) {
    this.socket = socket;
    this.inputRate = inputSampleRate;
    this.outputRate = outputSampleRate;
    this.extensions = extensions ?? [];
  }

  // Whether the server takes a command that is an extension: "text", "respond", ...
  offers(extension) {
    return this.extensions.includes(extension);
  }

  sendAudio(pcm) {
    this.#send(pcm);
  }

  commit() {
    this.#say({ t: "control", action: "commit" });
  }

  interrupt() {
    this.#say({ t: "interrupt" });
  }

  sendText(text) {
    this.#say({ t: "text", role: "user", text, respond: true });
  }

  respond() {
    this.#say({ t: "respond" });
  }

  sendToolResult(callId, output) {
    this.#say({ t: "tool_result", callId, output });
  }

  close() {
    this.socket.close(1000, "client_closed");
  }

  #say(message) {
    this.#send(JSON.stringify(message));
  }

  #send(data) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(data);
  }
}
