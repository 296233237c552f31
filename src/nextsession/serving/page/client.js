// A client of the server for pages of a shop: import { Client } from "https://recommend.shop.example/client.js".
// An event gets its id and time when it is made, so it counts once however often it is sent.

const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const part = (name) => encodeURIComponent(String(name));

export class ServerError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status; // 0: there was no answer
  }
}

export class Client {
  #base; #tries; #waiting = new Map();

  /** base: where the server is, as "https://recommend.shop.example"; tries: how often a request is sent before it fails. */
  constructor(base = "", { key = "", tries = 5 } = {}) {
    this.#base = base.replace(/\/$/, "");
    this.key = key;
    this.#tries = tries;
    // what is not acknowledged when the visitor leaves is sent once more, by the browser, after the page is gone
    addEventListener("pagehide", () => this.#waiting.size && this.#send("POST", "/v1/events", [...this.#waiting.values()], true).catch(() => {}));
  }

  /** An event with an id and the present as its time; more: action, label, request, consent. */
  event(visitor, item, more = {}) {
    const id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (x) => x.toString(16).padStart(2, "0")).join("");
    return { id, time: Date.now(), visitor, item, ...more };
  }

  /** Record events; done when they are durable, with what became of each. */
  async record(...events) {
    for (const one of events) this.#waiting.set(one.id, one);
    try {
      return (await this.ask("POST", "/v1/events", events)).outcomes;
    } finally {
      for (const one of events) this.#waiting.delete(one.id);
    }
  }

  /** A list; question: visitor, k, event, item, exclude and what else the reference says. */
  recommend(question = {}) {
    return this.ask("POST", "/v1/recommendations", question);
  }

  async similar(item, k = 20) {
    return (await this.ask("GET", `/v1/items/${part(item)}/similar?k=${k}`)).items;
  }

  erase(visitor) {
    return this.ask("DELETE", `/v1/visitors/${part(visitor)}`);
  }

  /** Any other route, as ask("GET", "/v1/items?k=5"). */
  async ask(method, path, body) {
    for (let tried = 1; ; tried++) {
      let response;
      try {
        response = await this.#send(method, path, body);
      } catch (error) {
        if (tried >= this.#tries) throw new ServerError(0, `The server does not answer: ${error.message}`);
      }
      if (response?.ok) return response.json();
      if (response && (![429, 503].includes(response.status) || tried >= this.#tries)) {
        const said = await response.json().catch(() => ({}));
        throw new ServerError(response.status, said.detail || response.statusText);
      }
      await wait(1000 * Number(response?.headers.get("retry-after") || 0) || 200 * 2 ** (tried - 1));
    }
  }

  #send(method, path, body, keepalive = false) {
    const headers = { ...(this.key && { "x-api-key": this.key }), ...(body !== undefined && { "content-type": "application/json" }) };
    return fetch(this.#base + path, { method, keepalive, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  }
}
