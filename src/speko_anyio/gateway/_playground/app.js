// The page: what its controls do, and where what happens is shown.

import { Audio, AudioError } from "./audio.js";
import { drawLatency } from "./latency.js";
import { Session, SessionError, mint } from "./session.js";
import { declarations, runTool } from "./tools.js";
import { Transcript } from "./transcript.js";

const MODELS = { openai: "gpt-realtime-2.1", google: "gemini-3.8-live", xai: "grok-voice-latest" };
const SPEECH = 0.02; // of full scale: a microphone louder than this hears somebody
const NAMES = { user: "You", assistant: "Assistant" };
const SUGGESTIONS = ["What time is it?", "What is the weather in Paris?", "Roll the dice.", "What can you do?"];

const $ = (id) => document.getElementById(id);

let attempt = 0; // counts the sessions: what comes of an older one is nobody's any more
let session; // while one is open
let audio;
let talking = false;
let responding = false; // from the first audio of a response to its end
let lastSpeech; // when the user was last heard, in ms; undefined once that turn has its answer
let sentSeconds = 0;
let interruptions = 0;
let ending = false;
const turns = []; // times to first audio, in ms
const transcript = new Transcript(); // of all sessions of this page

function status(text) {
  $("status").textContent = text;
}

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

function log(kind, name, text) {
  const line = document.createElement("p");
  line.className = kind;
  if (name) line.append(Object.assign(document.createElement("b"), { textContent: name }));
  line.append(text);
  $("empty").hidden = true;
  $("log").append(line);
  $("log").scrollTop = $("log").scrollHeight;
}

function said(role, text) {
  log(role, NAMES[role], text);
  transcript.message(role, text);
  $("download").disabled = false;
}

function mode() {
  return document.querySelector("input[name=mode]:checked").value;
}

function handsFree() {
  return mode() === "hands-free";
}

function show(open) {
  for (const field of $("settings").querySelectorAll("input, select, textarea")) field.disabled = open;
  $("start").disabled = open;
  $("stop").disabled = !open;
  $("interrupt").disabled = !open;
  $("talk").disabled = !open || mode() !== "push-to-talk";
  if (!open) showTyping(false, "start a session first");
}

function showTyping(possible, placeholder) {
  $("text").disabled = $("send").disabled = !possible;
  $("text").placeholder = placeholder;
  for (const button of $("suggestions").children) button.disabled = !possible;
}

async function start(event) {
  event.preventDefault();
  const key = $("key").value.trim();
  if (!key) {
    fail("An API key is needed: the one that speko-anyio serve printed when it started.");
    $("key").focus();
    return;
  }
  sessionStorage.setItem("key", key);
  fail("");
  show(true);
  ending = false;
  const mine = ++attempt;
  let microphone;
  let opened;
  try {
    if (mode() !== "typing") status("asking for the microphone");
    microphone = await Audio.open({ microphone: mode() !== "typing" });
    if (mine !== attempt) throw new SessionError("stopped");
    audio = microphone;
    status("minting a session");
    const grant = await mint({ key, config: configuration() });
    status("connecting");
    opened = await Session.open(grant, { onFrame, onAudio, onClose: (code, reason) => mine === attempt && onClose(code, reason) });
    if (mine !== attempt) throw new SessionError("stopped");
    session = opened;
    audio.start({ inputRate: session.inputRate, outputRate: session.outputRate, onSpeech: heard, onPlayback: played });
    const takesText = session.offers("text");
    showTyping(takesText, takesText ? "What time is it?" : "this provider takes no text");
    if ($("greet").checked) {
      if (session.offers("respond")) session.respond();
      else log("note", "", "this provider can't speak first");
    }
    status({ "hands-free": "connected: just speak", "push-to-talk": "connected: hold the button to talk", typing: "connected: type" }[mode()]);
    if (mode() === "push-to-talk") $("talk").focus();
    if (mode() === "typing") $("text").focus();
  } catch (error) {
    opened?.close();
    if (mine !== attempt) {
      await microphone?.close();
      return;
    }
    await end();
    if (!(error instanceof AudioError || error instanceof SessionError)) {
      fail(`This page has a bug: ${error.message}`);
      throw error;
    }
    fail(error.message);
  }
}

function configuration() {
  const rate = Number($("rate").value);
  const config = {
    provider: $("provider").value,
    model: $("model").value.trim() || $("provider").value,
    inputSampleRate: rate,
    outputSampleRate: rate,
  };
  if ($("voice").value.trim()) config.voice = $("voice").value.trim();
  if ($("prompt").value.trim()) config.systemPrompt = $("prompt").value.trim();
  if ($("tools").checked) config.tools = declarations;
  return config;
}

async function end() {
  const closing = [session, audio];
  attempt++;
  session = audio = lastSpeech = undefined;
  responding = false;
  release();
  show(false);
  status("not connected");
  $("partial").replaceChildren();
  $("mic-level").value = $("speaker-level").value = 0;
  closing[0]?.close();
  await closing[1]?.close();
}

// The microphone

function heard(pcm, level) {
  $("mic-level").value = Math.min(1, level * 4);
  if (!session || !(talking || handsFree())) return;
  if (level > SPEECH) lastSpeech = performance.now();
  sentSeconds += pcm.byteLength / 2 / session.inputRate;
  $("sent").textContent = `${sentSeconds.toFixed(1)} s`;
  session.sendAudio(pcm);
}

function press() {
  if (talking || !session || mode() !== "push-to-talk") return;
  talking = true;
  $("talk").setAttribute("aria-pressed", "true");
  $("talk").textContent = "Listening";
  audio.flush(); // talking over the assistant silences it at once
}

function release() {
  $("talk").setAttribute("aria-pressed", "false");
  $("talk").textContent = "Hold to talk";
  if (!talking) return;
  talking = false;
  if (!session) return;
  lastSpeech = performance.now();
  session.commit();
}

// The keyboard

function type(text) {
  if (!session || !text) return;
  lastSpeech = performance.now();
  session.sendText(text);
  audio?.flush(); // as talking over the assistant does
  said("user", text);
}

// The assistant

function onAudio(pcm) {
  if (lastSpeech !== undefined && !responding) {
    turns.push(performance.now() - lastSpeech);
    lastSpeech = undefined;
    $("latest").textContent = `${Math.round(turns.at(-1))} ms`;
    drawLatency($("latency"), turns);
  }
  responding = true;
  audio?.play(pcm);
}

function played({ level, played, buffered }) {
  $("speaker-level").value = Math.min(1, level * 4);
  $("played").textContent = `${played.toFixed(1)} s`;
  $("buffered").textContent = `${buffered.toFixed(1)} s`;
}

function onFrame(frame) {
  switch (frame.t) {
    case "transcript":
      if (frame.final) {
        $("partial").replaceChildren();
        if (frame.text) said(frame.role, frame.text);
      } else {
        const name = Object.assign(document.createElement("b"), { textContent: NAMES[frame.role] });
        $("partial").replaceChildren(name, frame.text);
      }
      break;
    case "tool_call": {
      const output = runTool(frame.name, frame.arguments);
      log("tool", "Tool", `${frame.name}(${frame.arguments}) → ${output}`);
      transcript.tool(frame.name, frame.arguments, output);
      session?.sendToolResult(frame.callId, output);
      break;
    }
    case "server_tool_call":
      log("tool", "Server tool", `${frame.name} ${frame.status}`);
      break;
    case "response":
      responding = false;
      break;
    case "interruption":
      responding = false;
      audio?.flush();
      $("interruptions").textContent = ++interruptions;
      log("note", "", "interrupted");
      break;
    case "error":
      fail(`${frame.code}: ${frame.message}`);
      break;
  }
}

async function onClose(code, reason) {
  const expected = ending || code === 1000;
  await end();
  log("note", "", `session over: ${reason || "no reason given"} (${code})`);
  if (!expected && $("error").hidden) {
    fail(code === 1006 ? "The connection to the gateway was lost. Press Start for a new session." : `The gateway ended the session: ${reason || code}`);
  }
}

// The controls

$("settings").addEventListener("submit", start);
$("stop").addEventListener("click", () => {
  ending = true;
  if (session) session.close();
  else void end();
});
$("interrupt").addEventListener("click", () => {
  session?.interrupt();
  audio?.flush();
});
$("talk").addEventListener("pointerdown", (event) => {
  event.target.setPointerCapture(event.pointerId);
  press();
});
for (const name of ["pointerup", "pointercancel", "blur"]) $("talk").addEventListener(name, release);
$("talk").addEventListener("keydown", (event) => {
  if (event.key !== " " && event.key !== "Enter") return;
  event.preventDefault();
  if (!event.repeat) press();
});
$("talk").addEventListener("keyup", (event) => {
  if (event.key === " " || event.key === "Enter") release();
});
$("typing").addEventListener("submit", (event) => {
  event.preventDefault();
  type($("text").value.trim());
  $("text").value = "";
});
for (const text of SUGGESTIONS) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: text, disabled: true });
  button.addEventListener("click", () => type(text));
  $("suggestions").append(button);
}
$("download").addEventListener("click", () => transcript.download());
$("provider").addEventListener("change", () => {
  $("model").value = MODELS[$("provider").value] ?? $("provider").value;
});

// The key may come in the fragment, which no server sees; it does not stay in the address.
const given = new URLSearchParams(location.hash.slice(1)).get("key");
if (given) history.replaceState(null, "", location.pathname);
$("key").value = given ?? sessionStorage.getItem("key") ?? "";

const about = await (await fetch("/playground/about.json")).json();
$("version").textContent = about.version;
for (const name of about.providers) $("provider").append(new Option(name, name, false, name === "local"));
$("provider").dispatchEvent(new Event("change"));
drawLatency($("latency"), turns);
document.body.dataset.ready = "yes";
