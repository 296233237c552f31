// The chapters of the guide, from events to the list and back.

import { bar } from "./charts.js";
import { ago, colourOf, count, h, number, percent, titleOf } from "./dom.js";
import { inside } from "./inside.js";
import { question } from "./questions.js";

const badge = (place) => h("span", { class: "badge", vars: { "--colour": colourOf(place) } }, place + 1);

function chapter(id, title, ...children) {
  return h("section", { class: "chapter card", id: `chapter-${id}`, "aria-labelledby": `title-${id}` }, h("h2", { id: `title-${id}` }, title), children);
}

export function chapters(view) {
  const { found } = view;
  if (!found.events.length)
    return [
      h(
        "section",
        { class: "chapter card" },
        h("h1", {}, "What does a model see in you?"),
        h("p", {}, "This guide works on your own session, and you have none yet."),
        h(
          "div",
          { class: "line" },
          h("button", { type: "button", class: "main", onclick: view.lend }, "Lend me a session"),
          h("a", { href: "#shop" }, "Or click a few things in the shop"),
        ),
      ),
    ];
  return [
    h("div", { class: "lead" }, h("h1", {}, "What does a model see in you?"), contents()),
    events(view),
    sessions(view),
    batch(view),
    chapter("inside", `4 · Inside ${found.model}`, inside(view)),
    softmax(view),
    steps(view),
    whatIf(view),
  ];
}

const TITLES = [
  ["events", "Events"],
  ["sessions", "Sessions"],
  ["batch", "The batch"],
  ["inside", "Inside the model"],
  ["softmax", "The softmax"],
  ["steps", "What came next"],
  ["what-if", "What if?"],
];

/** Chapters are found by scrolling, not by a hash: that says which view is seen. */
function contents() {
  const go = (id) => () => {
    const title = document.getElementById(`title-${id}`);
    title.setAttribute("tabindex", "-1");
    title.focus({ preventScroll: true });
    document.getElementById(`chapter-${id}`).scrollIntoView();
  };
  return h("div", { class: "contents", role: "group", "aria-label": "Chapters" }, TITLES.map(([id, name], n) => h("button", { type: "button", onclick: go(id) }, `${n + 1} ${name}`)));
}

// -- 1 --------------------------------------------------------------------------------------------

function events({ found, made }) {
  const last = found.events[found.events.length - 1];
  const told = { visitor: made ? "nobody" : "you", item: last.item, time: last.time, action: "click", label: 1 };
  return chapter(
    "events",
    "1 · Events: all that is known of you",
    h(
      "p",
      {},
      "No name, no age, no profile. Matrix factorisation, the classic way to recommend, needs a long history of each person. Most visitors have none, and today's wish may have little to do with last month's. All a session model gets is a list of things that happened, in order.",
    ),
    h("pre", { class: "code" }, JSON.stringify(told)),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": "Your events" },
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, ["", "Item", "When", "Does the model see it?"].map((x) => h("th", { scope: "col" }, x)))),
        h(
          "tbody",
          {},
          found.events
            .map((one, place) =>
              h("tr", {}, h("td", {}, badge(place)), h("td", {}, titleOf(one)), h("td", {}, made ? "made up" : ago(one.time)), h("td", {}, seen(one))),
            )
            .slice(-8),
        ),
      ),
    ),
    question("events", "Somebody clicks for the first time ever. What can be recommended to them?", [
      ["Nothing: they have no profile", false, "One event is enough for a session model: it has learnt what follows that item for others."],
      ["What tends to follow this one item", true, "The items have been learnt from other people's sessions; the visitor only has to say where to start. That is how the cold start of users is avoided. New items are another matter."],
      ["What their friends like", false, "Nobody here knows their friends; there are only events."],
    ]),
  );
}

const seen = (one) => (one.given ? "yes" : one.known ? "no: it was not wanted" : "no: the item is newer than the model");

// -- 2 --------------------------------------------------------------------------------------------

function sessions({ found }) {
  const minutes = number(found.gap / 60000);
  const groups = [];
  found.events.forEach((one, place) => {
    const before = found.events[place - 1];
    if (!before || before.session !== one.session) groups.push({ pause: before ? one.time - before.time : null, places: [] });
    groups[groups.length - 1].places.push(place);
  });
  return chapter(
    "sessions",
    "2 · Sessions: where one wish ends",
    h(
      "p",
      {},
      `A session is a stretch of events without a long silence. Here a pause of more than ${minutes} minutes ends one. It is a rule of thumb for “they came with one thing in mind”; break your session with ✂ beside this and see what the models make of it.`,
    ),
    h(
      "div",
      { class: "sessions" },
      groups.map((group, n) => [
        group.pause === null ? null : h("span", { class: "pause" }, `${number(group.pause / 60000)} min`),
        h("div", { class: "group" }, h("small", {}, `Session ${n + 1}`), h("div", { class: "line" }, group.places.map(badge))),
      ]),
    ),
    question("sessions", `You come back after ${number((2 * found.gap) / 60000)} minutes. Which of these will a model that reads one session at a time have forgotten?`, [
      ["Everything before the pause", true, "Its state begins at zero with each session. Models that read whole histories, or sessions as tokens, keep it."],
      ["Nothing, it stands in the event log", false, "It does stand in the log, but the model is only shown the last session."],
      ["The first event only", false, "The cut is where the silence is, not at a number of events."],
    ]),
  );
}

// -- 3 --------------------------------------------------------------------------------------------

function batch({ found }) {
  const rows = [];
  found.events.forEach((one, place) => (rows[one.session] ||= []).push(place));
  const own = rows.filter(Boolean);
  const beginnings = own.length < 2;
  const shown = (beginnings ? own[0].map((_, n) => own[0].slice(0, n + 1)) : own).slice(-8).map((row) => row.slice(-14));
  const longest = Math.max(...shown.map((row) => row.length));
  const events = shown.flat().length;
  const cells = shown.length * longest;
  const empty = cells - events;
  let sum = 0;
  const offsets = [0, ...shown.map((row) => (sum += row.length))];
  const cell = (place) => (place === undefined ? h("td", { class: "pad" }, "0") : h("td", {}, badge(place)));
  return chapter(
    "batch",
    "3 · The batch: rows of different lengths",
    h(
      "p",
      {},
      "Networks work on many rows at once, and a rectangle of numbers is what hardware likes. Sessions are no rectangle. ",
      beginnings
        ? "You have one session; here are all its beginnings, which is how training makes several questions of one session."
        : "Here are your sessions, a row each.",
    ),
    h(
      "div",
      { class: "two" },
      h(
        "div",
        {},
        h("h3", {}, "Padded: filled up to the longest"),
        h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Padded batch" }, h("table", { class: "batch" }, h("tbody", {}, shown.map((row) => h("tr", {}, Array.from({ length: longest }, (_, n) => cell(row[n]))))))),
        bar(empty / cells, `${empty} of ${cells} cells are padding`),
      ),
      h(
        "div",
        {},
        h("h3", {}, "Jagged: end to end, with the places where rows begin"),
        h("p", { class: "row-label" }, "values"),
        h("div", { class: "line tight" }, shown.flat().map(badge)),
        h("p", { class: "row-label" }, "offsets"),
        h("pre", { class: "code" }, `[${offsets.join(", ")}]`),
        h("small", {}, "Row b is values[offsets[b] : offsets[b + 1]]. Nothing is computed for padding; this is what runs here."),
      ),
    ),
    question("batch", "Your batch is joined by a row of 200 events. What happens?", [
      ["The padded form becomes 200 wide, for every row", true, `Then it has ${count((shown.length + 1) * 200)} cells for ${count(events + 200)} events. The jagged form grows by 200 values and one offset. Sorting rows by length, or cutting long ones, is how padded systems get by.`],
      ["Nothing, padding costs nothing", false, "Unless masked and skipped, a zero costs as much as an event: the same multiplications are done on it."],
      ["The row is refused", false, "Some systems cut it to a maximal length; none has to refuse it."],
    ]),
  );
}

// -- 5 --------------------------------------------------------------------------------------------

function softmax({ found, temperature, warm }) {
  const { softmax } = found;
  const most = softmax.top[0]?.probability || 1;
  const shares = softmax.kind === "share";
  const ten = softmax.reached.find(([n]) => n === 10);
  const slider = h("input", { type: "range", id: "temperature", min: -1, max: 1, step: 0.1, value: Math.log10(temperature), onchange: (x) => warm(Number((10 ** x.target.value).toFixed(2))) });
  return chapter(
    "softmax",
    `5 · From scores to a list: ${count(softmax.items)} items at once`,
    h(
      "p",
      {},
      shares
        ? `${found.model} counts; its scores are no logits, so they are simply divided by their sum. Compare with a network: that has something to say about every item.`
        : "The state is multiplied with the vector of every item: one score each. The softmax turns the scores into probabilities that add up to 1, p = exp(score / T) / Σ exp(score / T). It never changes the order, only the confidence.",
    ),
    h(
      "div",
      { class: "two" },
      h(
        "div",
        {},
        h("h3", {}, "The likeliest items, and their scores"),
        h("ol", { class: "likely" }, softmax.top.map((one) => h("li", {}, h("span", { class: "name" }, titleOf(one)), bar(one.probability / most, percent(one.probability, 2)), h("small", {}, number(one.score, 2))))),
      ),
      h(
        "div",
        {},
        h("h3", {}, "How much the first so many hold together"),
        h("ul", { class: "reached" }, softmax.reached.map(([n, share]) => h("li", {}, h("span", {}, count(n)), bar(share, percent(share))))),
      ),
    ),
    h("div", { class: "line dial" }, h("label", { for: "temperature" }, `Temperature ${number(temperature, 2)}`), slider, h("small", {}, "colder: surer · warmer: evener")),
    h(
      "p",
      {},
      "The model is as undecided as if it chose between ",
      h("b", {}, `${number(softmax.choices, 0)} equally likely items`),
      ` of ${count(softmax.items)}`,
      ten ? `; its first ten hold ${percent(ten[1])} of the whole.` : ".",
    ),
    question("softmax", "You lower the temperature to a tenth. What changes in the list that is shown?", [
      ["The order: bold items rise", false, "Dividing all scores by the same number keeps their order."],
      ["Nothing but the confidence", true, "The top item takes nearly all of the probability, the list stays. It matters where items are drawn at random, or where scores meet something else, such as a price."],
      ["The list gets shorter", false, "Every item keeps some probability, however little."],
    ]),
  );
}

// -- 6 --------------------------------------------------------------------------------------------

function steps({ found }) {
  const known = found.steps.filter((one, n) => n < found.steps.length - 1);
  const hits = known.filter((one) => one.place !== null && one.place <= 20).length;
  const mean = known.length ? known.reduce((sum, one) => sum + (one.place && one.place <= 20 ? 1 / one.place : 0), 0) / known.length : 0;
  return chapter(
    "steps",
    "6 · What came next: an examination on your own session",
    h("p", {}, "After each of your events the model was asked what comes next, and then you told it. Where did it have your choice among all items? That is how models are compared honestly: only with what was known before, and against the whole catalogue."),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": "Answers after each event" },
      h(
        "table",
        { class: "steps" },
        h("thead", {}, h("tr", {}, ["After", "It thought of", "You chose", "Place"].map((x) => h("th", { scope: "col" }, x)))),
        h(
          "tbody",
          {},
          found.steps.map((one, n) => {
            const then = found.steps[n + 1];
            const chosen = then && found.events[then.after];
            const place = !then ? "your turn" : one.place === null ? "not listed" : `${count(one.place)} of ${count(found.softmax.items)}`;
            return h(
              "tr",
              {},
              h("td", {}, badge(one.after)),
              h("td", {}, one.top.map(titleOf).join(" · ")),
              h("td", {}, chosen ? titleOf(chosen) : "?"),
              h("td", { class: then ? (one.place !== null && one.place <= 20 ? "hit" : "miss") : "" }, place),
            );
          }),
        ),
      ),
    ),
    known.length
      ? h("p", {}, `Recall@20: ${hits} of ${known.length} choices stood among the first 20. MRR@20, the mean of 1 / place, is ${number(mean, 3)}. A handful of answers says little; on a page of results you see the same over thousands, with intervals.`)
      : h("p", {}, "Click once more and there is something to examine."),
    question("steps", "Somebody reports a recall@20 of 0.9, measured against 100 random items instead of all. What do you make of it?", [
      ["A good model", false, "To stand among the first 20 of 101 takes little; a random list reaches 0.2."],
      ["Nothing: the question was made easy", true, "Sampled metrics even change which of two models looks better. Rank against the whole catalogue."],
      ["It is too high to be true", false, "It may well be true, of that easier question."],
    ]),
  );
}

// -- 7 --------------------------------------------------------------------------------------------

function whatIf({ real, found, made, sessions, edit }) {
  const flat = sessions.flat();
  const tries = [
    ["Forget the first event", () => edit([sessions[0].slice(1), ...sessions.slice(1)], "The first event is gone."), flat.length > 1],
    ["Forget the last event", () => edit([...sessions.slice(0, -1), sessions[sessions.length - 1].slice(0, -1)], "The last event is gone."), flat.length > 1],
    ["Turn the order round", () => edit(sessions.map((one) => [...one].reverse()).reverse(), "The order is turned round."), flat.length > 1],
    ["Only the last event", () => edit([[flat[flat.length - 1]]], "Only the last event is left."), flat.length > 1],
  ];
  const before = new Map(real.softmax.top.map((one, place) => [one.item, place]));
  const stayed = found.softmax.top.filter((one) => before.has(one.item)).length;
  const list = (top, mark) => h("ol", {}, top.map((one, place) => h("li", {}, titleOf(one), mark ? sign(before, one, place) : null)));
  return chapter(
    "what-if",
    "7 · What if you had clicked otherwise?",
    h("p", {}, "A model that counts what is popular does not care about you; one of order cares who came last; one that reads the whole session weighs everything. Try, and change the model."),
    h("div", { class: "line" }, tries.map(([name, act, can]) => h("button", { type: "button", disabled: !can, onclick: act }, name)), made ? h("button", { type: "button", class: "main", onclick: () => edit(null, "This is your own session again.") }, "Back to mine") : null),
    made
      ? h(
          "div",
          { class: "two compare" },
          h("div", {}, h("h3", {}, "As it was"), real.softmax.top.length && real.events.length ? list(real.softmax.top) : h("p", {}, "You had no session.")),
          h("div", {}, h("h3", {}, "As you made it"), list(found.softmax.top, real.events.length)),
        )
      : null,
    made && real.events.length ? h("p", {}, `${stayed} of ${found.softmax.top.length} items stand in both lists.`) : null,
    question("what-if", "You turn the order round and the list stays the same, item by item. Which model might that be?", [
      ["A GRU", false, "Its state is written over with every event: the last ones weigh most."],
      ["One that looks at items as a set, such as item neighbours without a decay", true, "Sums over events do not know their order. Attention without positions would not, either."],
      ["Self-attention with learned positions", false, "The positions are there so that it notices."],
    ]),
  );
}

function sign(before, one, place) {
  const was = before.get(one.item);
  if (was === undefined) return h("span", { class: "moved new" }, "new");
  return was === place ? null : h("span", { class: `moved ${was > place ? "up" : "down"}` }, was > place ? `▲${was - place}` : `▼${place - was}`);
}
