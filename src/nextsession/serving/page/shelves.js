// Shelves of items: what many want, and the same by the features that the items have.

import { about, get, post } from "./api.js";
import { h, titleOf } from "./dom.js";
import { poster } from "./posters.js";

const MANY = 24;
const SHELVES = 4;

/** Return the shelves of the shop: what is said to somebody unknown, as a whole and by the commonest features. */
export async function shelvesOf(arms) {
  const { arm, items } = await forAnybody(arms);
  const ask = (where) => post("v1/recommendations", { arm, k: MANY, shown: false, where });
  const found = [{ name: "What many want", items }];
  const known = (await Promise.all(items.map((one) => about(one.item)))).filter(Boolean);
  for (const [feature, label] of commonest(known).slice(0, SHELVES - 1)) {
    const { items } = await ask({ [feature]: [label] });
    found.push({ name: label, items });
  }
  if (found.length === 1) {
    const lately = await get(`v1/items?k=${MANY}&arm=${encodeURIComponent(arm)}`);
    found.push({ name: "Looked at lately, or just here", items: lately.items });
  }
  return found.filter((one) => one.items.length);
}

/** Ask the arm that has most to say to somebody without a history: models of neighbours have nothing. */
export async function forAnybody(arms) {
  let found = null;
  for (const { arm } of arms) {
    const { items } = await post("v1/recommendations", { arm, k: MANY, shown: false });
    const said = items.filter((one) => one.source === "model" || one.source === "usual").length;
    if (!found || said > found.said) found = { arm, items, said };
    if (said === items.length) break;
  }
  return found;
}

/** Return features with their labels, the most frequent first; labels that only one item has make no shelf. */
function commonest(known) {
  const counts = new Map();
  for (const one of known)
    for (const [feature, labels] of Object.entries(one.features))
      for (const label of labels) {
        const key = JSON.stringify([feature, label]);
        counts.set(key, (counts.get(key) || 0) + 1);
      }
  return [...counts]
    .filter(([, many]) => many > 1)
    .sort((a, b) => b[1] - a[1])
    .map(([key]) => JSON.parse(key))
    .filter(([, label]) => !/^\d+$/.test(label));
}

/** One shelf; it scrolls sideways, and the arrow keys walk along it. */
export function shelf({ name, items }, click) {
  const row = h(
    "ul",
    { class: "row" },
    items.map((one) =>
      h(
        "li",
        {},
        h(
          "button",
          { type: "button", class: "cover", "data-item": one.item, onclick: () => click(one.item) },
          poster(one.item),
          h("span", { class: "name" }, titleOf(one)),
        ),
      ),
    ),
  );
  row.addEventListener("keydown", (press) => {
    const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[press.key];
    const to = step && press.target.closest("li")?.[step]?.querySelector("button");
    if (!to) return;
    press.preventDefault();
    to.focus();
  });
  return h("section", { class: "shelf", "aria-label": name }, h("h2", {}, name), items.length ? row : h("p", {}, "Nothing of that title."));
}
