// Holds one session with the official TypeScript SDK, and prints each of its frames as a line of JSON.
// node published_typescript_client.mjs SDK BASE_URL API_KEY PARAMS AUDIO: the SDK's module, what `connect` takes, as JSON, and
// a file of PCM16 to say.
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [sdk, baseUrl, apiKey, params, audio] = process.argv.slice(2);
const { Speko } = await import(pathToFileURL(sdk));
const print = (line) => console.log(JSON.stringify(line));
const question = await readFile(audio); // before connecting: what comes before `on` is lost
const speko = new Speko({ apiKey, baseUrl });

let session;
try {
  session = await speko.realtime.connect(JSON.parse(params));
} catch (error) {
  print({ type: "refused", name: error.name, code: error.code, status: error.status, message: error.message });
  process.exit(0);
}
print({ type: "session", id: session.sessionId, rates: [session.inputSampleRate, session.outputSampleRate] });
let answered = false;
session.on((frame) => {
  if (frame.type === "audio") {
    answered = true;
    print({ type: "audio", size: frame.pcm.byteLength, sampleRate: frame.sampleRate });
    return;
  }
  print(frame);
  if (frame.type === "ready") {
    for (let at = 0; at < question.length; at += 960) session.sendAudio(question.subarray(at, at + 960));
    session.commit();
  } else if (frame.type === "tool_call") {
    session.sendToolResult(frame.callId, "It is sunny in Oslo.");
  } else if (frame.type === "usage" && answered) {
    session.interrupt();
    session.close();
  } else if (frame.type === "close") {
    process.exit(0);
  }
});
