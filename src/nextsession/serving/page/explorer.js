// The explorer: a short guide to how such models work, live on the visitor's own session.

import { me, post } from "./api.js";
import { chapters } from "./chapters.js";
import { colourOf, h, keepingFocus, say, show, titleOf } from "./dom.js";
import { forAnybody } from "./shelves.js";

const MOST = 24;
let arms = [];
let tell = () => {};
let parts = null;
let titles = new Map();
let state = { arm: "", temperature: 1, real: null, made: null, found: null };

export function use(found, notice) {
  arms = found;
  tell = notice;
  if (!arms.some((arm) => arm.arm === state.arm)) state = { ...state, arm: arms[0].arm, made: null };
}

export async function enter(place) {
  if (!parts) build(place);
  await load();
}

function build(place) {
  parts = { bench: h("aside", { class: "bench card", "aria-label": "Your session, to play with" }), guide: h("div", { class: "guide" }) };
  show(place, h("div", { class: "explorer" }, parts.bench, parts.guide));
}

async function load() {
  const ask = (more) => post("v1/explorations", { arm: state.arm, temperature: state.temperature, k: 10, ...more });
  const real = await ask({ visitor: me() });
  const found = state.made ? await ask({ sessions: state.made }) : real;
  for (const one of [...real.events, ...found.events]) titles.set(one.item, titleOf(one));
  state = { ...state, real, found };
  keepingFocus(parts.bench, bench);
  const opened = new Set([...parts.guide.querySelectorAll("details[open]")].map((one) => one.id));
  keepingFocus(parts.guide, () => show(parts.guide, chapters({ ...state, arms, edit, choose, warm, lend, sessions: sessionsOf(found) })));
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
}

const again = (said) =>
  load()
    .then(() => say(said))
    .catch(tell);

/** Return the items of each session. */
export function sessionsOf(found) {
  const sessions = [];
  for (const one of found.events.slice(-MOST)) (sessions[one.session] ||= []).push(one.item);
  return sessions.filter(Boolean);
}

/** Look at other sessions than those that were; none: look at those again. */
function edit(sessions, said) {
  state.made = sessions && sessions.filter((one) => one.length);
  return again(said);
}

function choose(arm) {
  state.arm = arm;
  return again(`The model is ${arm} now.`);
}

function warm(temperature) {
  state.temperature = temperature;
  return again(`The temperature is ${temperature} now.`);
}

/** Lend a session to somebody who has none: some of what many want. */
async function lend() {
  try {
    const { items } = await forAnybody(arms);
    const some = [0, 4, 9, 2, 14].map((place) => items[place]?.item).filter(Boolean);
    await edit([some.slice(0, 2), some.slice(2)], "A session was lent to you.");
  } catch (error) {
    tell(error);
  }
}

// -- the bench ------------------------------------------------------------------------------------

function bench() {
  const sessions = sessionsOf(state.found);
  let place = state.found.events.length - sessions.flat().length;
  show(
    parts.bench,
    h("h2", {}, state.made ? "A session you made up" : "Your session"),
    h(
      "label",
      { class: "model" },
      "Model ",
      h(
        "select",
        { id: "arm", onchange: (change) => choose(change.target.value) },
        arms.map((arm) => h("option", { value: arm.arm, selected: arm.arm === state.arm }, arm.arm)),
      ),
    ),
    sessions.length
      ? h("p", { class: "hint" }, "Move, remove, break: everything beside is worked out anew. What is stored of you stays as it is.")
      : h("p", { class: "hint" }, "You have not clicked anything yet."),
    sessions.map((one, number) =>
      h(
        "ol",
        { class: "made", "aria-label": `Session ${number + 1}` },
        h("li", { class: "session", "aria-hidden": "true" }, `Session ${number + 1}`),
        one.map((item, at) => chip(sessions, number, at, place++)),
      ),
    ),
    h(
      "div",
      { class: "line" },
      sessions.length ? null : h("button", { type: "button", class: "main", onclick: lend }, "Lend me a session"),
      state.made ? h("button", { type: "button", class: "main", onclick: () => edit(null, "This is your own session again.") }, "Back to mine") : null,
      h("a", { href: "#shop" }, "Click more in the shop"),
    ),
  );
}

function chip(sessions, number, at, place) {
  const item = sessions[number][at];
  const title = titles.get(item) || item;
  const flat = sessions.flat().length;
  const button = (sign, what, act, off) =>
    h("button", { type: "button", "aria-label": `${what}: ${title}`, title: what, disabled: off, onclick: () => edit(act(), `${what}: ${title}.`) }, sign);
  return h(
    "li",
    { class: "chip", vars: { "--colour": colourOf(place) } },
    h("span", { class: "badge" }, place + 1),
    h("span", { class: "name" }, title),
    h(
      "span",
      { class: "tools" },
      button("↑", "Earlier", () => moved(sessions, number, at, -1), number === 0 && at === 0),
      button("↓", "Later", () => moved(sessions, number, at, 1), number === sessions.length - 1 && at === sessions[number].length - 1),
      at === 0
        ? button("⤒", "Join to the session before", () => joined(sessions, number), number === 0)
        : button("✂", "Begin a session here", () => broken(sessions, number, at), false),
      button("✕", "Remove", () => removed(sessions, number, at), flat === 1),
    ),
  );
}

const copy = (sessions) => sessions.map((one) => [...one]);

export function removed(sessions, number, at) {
  const found = copy(sessions);
  found[number].splice(at, 1);
  return found;
}

export function broken(sessions, number, at) {
  const found = copy(sessions);
  found.splice(number + 1, 0, found[number].splice(at));
  return found;
}

export function joined(sessions, number) {
  const found = copy(sessions);
  found[number - 1].push(...found.splice(number, 1)[0]);
  return found;
}

export function moved(sessions, number, at, by) {
  const found = copy(sessions);
  const to = at + by;
  const [item] = found[number].splice(at, 1);
  if (to < 0) found[number - 1].push(item);
  else if (to > found[number].length) found[number + 1].unshift(item);
  else found[number].splice(to, 0, item);
  return found;
}
