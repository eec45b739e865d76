// Node's ws as a foreign peer: does the steps of script.py, prints its port (as a server) and its report.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { WebSocket, WebSocketServer } = createRequire(import.meta.url)(process.env.WS_MODULE);
const { role, url, token, steps, beginningOfAFrame } = JSON.parse(readFileSync(0));

const payload = (size) => Buffer.from(Array.from({ length: size }, (_, i) => (31 * i + size) & 255));
const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");

const messages = [];
let wake = () => {};
const received = [];
let pongs = 0;

async function message() {
  while (messages.length === 0) await new Promise((resolve) => (wake = resolve));
  return messages.shift();
}

const send = (ws, data, options) => new Promise((resolve, reject) =>
  ws.send(data, options, (error) => (error ? reject(error) : resolve())));

async function ping(ws, data) {
  const pong = new Promise((resolve) => ws.once("pong", resolve));
  ws.ping(data);
  if (!data.equals(await pong)) throw new Error("a pong with another payload");
  pongs += 1;
}

const actions = {
  binary: (ws, { size = 0 }) => send(ws, payload(size)),
  text: (ws, { text = "" }) => send(ws, text),
  async fragments(ws, { sizes = [], pieces = [] }) {
    const parts = pieces.length ? pieces : sizes.map(payload);
    for (const [i, part] of parts.entries()) {
      const fin = i === parts.length - 1;
      await send(ws, part, { fin, binary: !pieces.length });
      if (!fin) await ping(ws, Buffer.from([i]));
    }
  },
  ping: (ws, { size = 0 }) => ping(ws, payload(size)),
  async receive(_, { size = 0 }) {
    for (let i = 0; i < size; i++) received.push(await message());
  },
  close: (ws, { code, text = "" }) => ws.close(code || undefined, text),
  die: (ws) => ws._socket.write(Buffer.from(beginningOfAFrame, "hex"), () => ws._socket.destroy()),
};

async function run(ws, opened) {
  ws.on("message", (data, binary) => {
    const hash = binary && createHash("sha256").update(data).digest("hex");
    messages.push(binary ? `${data.length} bytes ${hash}` : data.toString());
    wake();
  });
  const closed = new Promise((resolve) => ws.on("close", (code, reason) => resolve([code, reason.toString()])));
  await opened;
  const { protocol: subprotocol, extensions } = ws;
  for (const step of steps) await actions[step.do](ws, step);
  const [code, reason] = await closed;
  say({ subprotocol, extensions, received, pongs, code, reason });
}

if (role === "server") {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: true });
  server.on("listening", () => say(server.address().port));
  server.on("connection", async (ws) => {
    await run(ws);
    server.close();
  });
} else {
  const ws = new WebSocket(url, [token], { perMessageDeflate: true });
  ws.on("unexpected-response", (_, response) => {
    say({ refused: response.statusCode });
    process.exit();
  });
  ws.on("error", () => {});
  await run(ws, new Promise((resolve) => ws.on("open", resolve)));
}
