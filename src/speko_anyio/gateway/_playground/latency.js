// The chart of times to first audio: a bar a turn, the target as a line.

const TARGET = 300; // milliseconds: what users take for an answer at once
const SHOWN = 16; // turns
const WIDTH = 320;
const HEIGHT = 140;
const LEFT = 34;
const BOTTOM = 18;

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, text = "") {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

export function drawLatency(svg, turns) {
  const shown = turns.slice(-SHOWN);
  const top = Math.max(TARGET * 1.25, ...shown) * 1.1;
  const y = (milliseconds) => 8 + (HEIGHT - BOTTOM - 8) * (1 - Math.max(0, milliseconds) / top);
  const slot = (WIDTH - LEFT) / SHOWN;
  const nodes = [
    element("line", { x1: LEFT, x2: WIDTH, y1: y(TARGET), y2: y(TARGET) }),
    element("text", { x: 0, y: y(TARGET) + 3 }, `${TARGET} ms`),
  ];
  shown.forEach((milliseconds, i) => {
    const x = LEFT + i * slot;
    const bar = { x: x + 2, y: y(milliseconds), width: slot - 4, height: Math.max(1, y(0) - y(milliseconds)) };
    if (milliseconds > TARGET) bar.class = "slow";
    nodes.push(element("rect", bar));
    nodes.push(element("text", { x: x + slot / 2, y: HEIGHT - 5, "text-anchor": "middle" }, turns.length - shown.length + i + 1));
  });
  svg.replaceChildren(...nodes);
  const told = shown.map((milliseconds) => `${Math.round(milliseconds)} ms`).join(", ");
  svg.setAttribute("aria-label", `Time to first audio by turn: ${told || "no turn yet"}`);
}
