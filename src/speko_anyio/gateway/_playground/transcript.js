// The conversation so far, in the form of `HistoryItem.to_json`: `speko-anyio say --history FILE` continues it.

export class Transcript {
  #items = [];

  message(role, text) {
    this.#items.push({ role, text });
  }

  tool(name, argumentsText, output) {
    this.#items.push({ role: "tool", text: output, name, arguments: argumentsText });
  }

  json() {
    return `${JSON.stringify(this.#items, null, 2)}\n`;
  }

  download() {
    const url = URL.createObjectURL(new Blob([this.json()], { type: "application/json" }));
    Object.assign(document.createElement("a"), { href: url, download: "conversation.json" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000); // once the browser has taken it
  }
}
