// The shop: every click is an event, and two models' lists change with it.

import { event, get, me, post } from "./api.js";
import { ago, calm, colourOf, h, keepingFocus, ms, number, percent, say, show, titleOf } from "./dom.js";
import { poster } from "./posters.js";
import { shelf, shelvesOf } from "./shelves.js";

const LENGTH = 10;
let arms = [];
let tell = () => {};
let pair = [];
let mine = "";
let parts = null;
let lists = {};
let trail = [];
let visitor = null;
let busy = Promise.resolve();

export function use(found, notice) {
  const names = found.map((arm) => arm.arm);
  if (names.join() !== arms.map((arm) => arm.arm).join()) {
    pair = names.slice(0, 2);
    parts = null;
  }
  arms = found;
  tell = notice;
}

export async function enter(place) {
  if (!parts) build(place);
  if (visitor !== me()) {
    visitor = me();
    lists = {};
    mine = "";
    trail = [];
  }
  await refresh();
  if (!parts.shelves.childElementCount) await shelves();
}

function build(place) {
  parts = { shelves: h("div", { class: "shelves" }), trail: h("ol", { class: "trail" }), lists: h("div", { class: "lists" }) };
  const words = h("input", { type: "search", id: "words", placeholder: "Search titles", autocomplete: "off" });
  const search = async (done) => {
    done.preventDefault();
    await shelves(words.value.trim());
  };
  parts.heading = h("h2", {}, "Your trail");
  show(
    place,
    h(
      "div",
      { class: "shop" },
      h(
        "div",
        { class: "front" },
        h("h1", {}, "Click, and watch two models change their minds"),
        h(
          "form",
          { role: "search", class: "search", onsubmit: search },
          h("label", { class: "unseen", for: "words" }, "Search titles"),
          words,
          h("button", {}, "Search"),
        ),
        parts.shelves,
      ),
      h("div", { class: "path card" }, parts.heading, parts.trail),
      parts.lists,
    ),
  );
  parts.lists.classList.toggle("single", pair.length < 2);
}

async function shelves(words = "") {
  try {
    const found = words
      ? [{ name: `Found for “${words}”`, items: (await get(`v1/items?k=24&search=${encodeURIComponent(words)}`)).items }]
      : await shelvesOf(arms);
    show(
      parts.shelves,
      found.map((one) => shelf(one, click)),
    );
    if (words) say(`${found[0].items.length} items found.`);
  } catch (error) {
    tell(error);
  }
}

/** One click: an event, and both lists anew. Clicks wait for one another, so their order is that of the visitor. */
function click(item, arm = "", request = "") {
  busy = busy
    .then(() => refresh(event(item, arm === mine ? request : "")))
    .then(() => tell(null), tell);
  return busy;
}

async function refresh(happened) {
  // The visitor's own arm is asked without a name, for only such lists count in the comparison of arms;
  // the list beside it is for the eye, and not recorded as shown.
  const first = await post("v1/recommendations", question({ ...(happened && { event: happened }) }));
  mine = first.arm;
  lists[mine] = next(lists[mine], first);
  for (const arm of pair.filter((one) => one !== mine)) {
    const other = await post("v1/recommendations", question({ arm, shown: false }));
    lists[arm] = next(lists[arm], other);
  }
  trail = first.history;
  draw();
  if (happened) say(`Recorded. ${lists[pair[0]].items.length ? `Now first: ${titleOf(lists[pair[0]].items[0])}.` : ""}`);
}

const question = (more) => ({ visitor: me(), k: LENGTH, explain: true, exclude: "history", ...more });

function next(before, answer) {
  const places = new Map((before?.items || []).map((one, place) => [one.item, place]));
  return { ...answer, before: before ? places : null };
}

// -- what is seen ---------------------------------------------------------------------------------

function draw() {
  const from = new Map([...parts.lists.querySelectorAll("[data-key]")].map((row) => [row.dataset.key, row.getBoundingClientRect().top]));
  keepingFocus(parts.lists, () =>
    show(
      parts.lists,
      pair.map((name, place) => (lists[name] ? column(lists[name], place) : null)),
    ),
  );
  glide(from);
  show(parts.trail, steps());
  parts.heading.textContent = trail.length ? `Your trail · ${trail.length} ${trail.length === 1 ? "event" : "events"}` : "Your trail";
}

function column(answer, place) {
  const many = arms.length > 2;
  const choose = (change) => {
    pair[place] = change.target.value;
    delete lists[pair[place]];
    refresh().catch(tell);
  };
  const name = many
    ? h(
        "select",
        { "aria-label": `Model of list ${place + 1}`, onchange: choose },
        arms.map((arm) => h("option", { value: arm.arm, selected: arm.arm === answer.arm }, arm.arm)),
      )
    : answer.arm;
  const yours = answer.arm === mine && arms.length > 1;
  return h(
    "section",
    { class: "column card", "aria-label": `List of ${answer.arm}`, "data-arm": answer.arm },
    h(
      "header",
      {},
      h("h2", {}, name, yours && h("span", { class: "tag", title: "The arm of the comparison that this visitor falls to" }, "yours")),
      h(
        "p",
        { class: "speed" },
        h("b", {}, ms(answer.took.model)),
        ` model · ${ms(answer.trip)} in all`,
        h("span", { class: "version", title: `${answer.model}, version ${answer.version}` }, answer.version.slice(0, 6)),
      ),
      answer.degraded.length ? h("p", { class: "degraded" }, `Degraded: ${answer.degraded.join(", ")}`) : null,
    ),
    h(
      "ol",
      {},
      answer.items.map((one, rank) => row(answer, one, rank)),
    ),
  );
}

function row(answer, one, rank) {
  const was = answer.before?.get(one.item);
  const moved = answer.before === null ? null : was === undefined ? "new" : was - rank;
  const sign = moved === null || moved === 0 ? "" : moved === "new" ? "new" : moved > 0 ? `▲${moved}` : `▼${-moved}`;
  const spoken = moved === "new" ? ", new here" : moved ? `, ${moved > 0 ? "up" : "down"} ${Math.abs(moved)}` : "";
  const why = h("div", { class: "why", hidden: true });
  const more = h(
    "button",
    { type: "button", class: "bar", "aria-expanded": "false", "aria-label": `Why ${titleOf(one)}?`, onclick: () => open(answer, one, more, why) },
    bar(one),
  );
  const mark = (on) => () => light(one, on);
  return h(
    "li",
    { "data-key": `${answer.arm} ${one.item}`, onmouseenter: mark(true), onmouseleave: mark(false), onfocusin: mark(true), onfocusout: mark(false) },
    h(
      "button",
      { type: "button", class: "item", "data-item": one.item, onclick: () => click(one.item, answer.arm, answer.request) },
      h("span", { class: "rank", "aria-hidden": "true" }, rank + 1),
      poster(one.item),
      h("span", { class: "name" }, titleOf(one)),
      h("span", { class: `moved ${moved === "new" ? "new" : moved > 0 ? "up" : "down"}`, "aria-hidden": "true" }, sign),
      h("span", { class: "unseen" }, spoken),
    ),
    more,
    why,
  );
}

function bar(one) {
  if (!one.because.length) {
    const told = { model: "no single event", fallback: "of another model", recent: "wanted lately", usual: "wanted by many", any: "to fill the list", explore: "tried out" };
    return h("span", { class: "source" }, told[one.source]);
  }
  return one.because.map((cause) =>
    h("i", { vars: { "--share": cause.weight, "--colour": colourOf(cause.event) } }, cause.weight > 0.14 ? cause.event + 1 : ""),
  );
}

function open(answer, one, button, why) {
  const on = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", on);
  why.hidden = !on;
  if (!on) return;
  show(
    why,
    one.because.length
      ? h(
          "ul",
          {},
          one.because.map((cause) => {
            const seen = answer.history[cause.event];
            const place = cause.place ? `place ${number(cause.place)}` : "not in the list at all";
            return h(
              "li",
              {},
              h("span", { class: "badge", vars: { "--colour": colourOf(cause.event) } }, cause.event + 1),
              `${titleOf(seen)} did ${percent(cause.weight, 0)}; without it: ${place}`,
            );
          }),
        )
      : h("p", {}, "No event of yours moved this item up: leave any one of them out and it stands no lower."),
  );
}

/** Show which events of the trail made an item stand where it stands. */
function light(one, on) {
  const causes = new Set(one.because.map((cause) => String(cause.event)));
  for (const step of parts.trail.querySelectorAll("[data-event]")) step.classList.toggle("lit", on && causes.has(step.dataset.event));
}

function steps() {
  if (!trail.length)
    return h(
      "li",
      { class: "empty" },
      "Nothing yet: the models say what they say to anybody. Click something you like on a shelf or in a list.",
    );
  const last = trail[trail.length - 1].session;
  const found = [];
  trail.forEach((seen, place) => {
    if (place === 0 || seen.session !== trail[place - 1].session) {
      const now = seen.session === last;
      found.unshift(h("li", { class: "session" }, now ? `Session ${seen.session + 1}, now` : `Session ${seen.session + 1}`));
    }
    const at = found.findIndex((step) => step.className === "session");
    found.splice(
      at + 1,
      0,
      h(
        "li",
        { "data-event": place, vars: { "--colour": colourOf(place), "--weight": seen.weight } },
        h("span", { class: "badge" }, place + 1),
        h(
          "span",
          { class: "what" },
          h("span", { class: "name" }, titleOf(seen)),
          h("span", { class: "weight", title: "Mean share in the list", "aria-hidden": "true" }),
          h("small", {}, `${seen.known ? percent(seen.weight, 0) : "unknown to the model"} · ${ago(seen.time)}`),
        ),
      ),
    );
  });
  return found;
}

/** Let rows glide from where they stood, so that the eye can follow them. */
function glide(from) {
  if (calm()) return;
  for (const row of parts.lists.querySelectorAll("[data-key]")) {
    const before = from.get(row.dataset.key);
    const now = row.getBoundingClientRect().top;
    if (before === undefined) {
      if (from.size) row.animate([{ opacity: 0, transform: "translateX(14px)" }, { opacity: 1, transform: "none" }], { duration: 350, easing: "ease-out" });
    } else if (before !== now)
      row.animate([{ transform: `translateY(${before - now}px)` }, { transform: "none" }], { duration: 450, easing: "cubic-bezier(.2,.8,.2,1)" });
  }
}

