// What the page asks of the server, and who is asking.

import { Client } from "./client.js";

const kept = { get: (name) => read(() => localStorage.getItem(name)), set: (name, x) => read(() => localStorage.setItem(name, x)) };

function read(act) {
  try {
    return act();
  } catch {
    return null; // storage may be forbidden; the page works without
  }
}

const client = new Client(new URL(".", location.href).href, { key: read(() => sessionStorage.getItem("nextsession-key")) || "", tries: 1 });
export function useKey(text) {
  client.key = text;
  read(() => sessionStorage.setItem("nextsession-key", text));
}

/** Ask, and return the answer with the milliseconds it took from here and back. */
export async function ask(method, path, body) {
  const began = performance.now();
  const found = await client.ask(method, `/${path}`, body);
  return { ...found, trip: performance.now() - began };
}

export const get = (path) => ask("GET", path);
export const post = (path, body) => ask("POST", path, body);

export const fresh = (length = 8) =>
  Array.from(crypto.getRandomValues(new Uint8Array(length)), (x) => (x % 36).toString(36)).join("");

const given = new URLSearchParams(location.search).get("visitor");
let visitor = given || kept.get("nextsession-visitor") || `guest-${fresh(6)}`;
become(visitor);

export function become(name) {
  visitor = name;
  kept.set("nextsession-visitor", name);
}
export const me = () => visitor;

export const theme = { get: () => kept.get("nextsession-theme"), set: (x) => kept.set("nextsession-theme", x) };

/** An event as the server takes it; its id makes a second sending harmless. */
export const event = (item, request = "") => client.event(visitor, item, { request });

const features = new Map();
/** Title and features of an item; asked once. */
export function about(item) {
  if (!features.has(item)) features.set(item, get(`v1/items/${encodeURIComponent(item)}`).catch(() => null));
  return features.get(item);
}
