// Building blocks of the page. Text becomes text nodes, never markup, so no title or id can be more than text.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
    else if (name === "value" || name === "checked" || name === "htmlFor") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false));
  return node;
}

export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);
export const show = (place, ...children) => place.replaceChildren(...children.flat(Infinity).filter(Boolean));

const WORKED = "button, input, select, summary, a, [tabindex='0']";
const nameOf = (one) => one.getAttribute("aria-label") || one.textContent;

/** Draw anew, and leave the focus where a person who works with the keyboard had it, or as near as can be. */
export function keepingFocus(place, draw) {
  const held = document.activeElement;
  const was = place.contains(held) ? { id: held.id, name: nameOf(held), at: [...place.querySelectorAll(WORKED)].indexOf(held) } : null;
  draw();
  if (!was) return;
  const all = [...place.querySelectorAll(WORKED)].filter((one) => !one.disabled);
  const to = all.find((one) => was.id && one.id === was.id) || all.find((one) => nameOf(one) === was.name) || all[Math.min(was.at, all.length - 1)];
  to?.focus({ preventScroll: true });
}

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Tell people who cannot see the page what has changed. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
export const count = (x) => whole.format(x);
export const number = (x, digits = 1) =>
  x === null || x === undefined ? "–" : Number(x).toLocaleString("en-GB", { maximumFractionDigits: digits });
export const ms = (x) => (x === null || x === undefined ? "–" : `${number(x, x < 10 ? 2 : x < 100 ? 1 : 0)} ms`);
export const percent = (x, digits = 1) =>
  x === null || x === undefined ? "–" : `${number(100 * x, 100 * x < 1 ? digits + 1 : digits)} %`;

export function ago(time, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - time) / 1000));
  if (seconds < 5) return "just now";
  if (seconds < 90) return `${seconds} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} days ago`;
}

export const titleOf = (one) => one.title || `Item ${one.item}`;

/** Ten colours that tell events apart; every place that uses them gives the number of the event, too. */
export const COLOURS = 10;
export const colourOf = (place) => `var(--event-${place % COLOURS})`;
