// Chapter 4: what goes on inside, as far as the model offers it.

import { bar, heat } from "./charts.js";
import { colourOf, h, number, percent, show, titleOf } from "./dom.js";
import { question } from "./questions.js";

/** Events that the model was given, by their places among all. */
const given = (found) => found.events.map((one, place) => ({ ...one, place })).filter((one) => one.given);

/** Why there is nothing to draw. */
const nothing = {
  unread: (model) => `${model} was given none of these events: it knows none of their items. Click an item that it knows.`,
  counts: (model) => `${model} keeps no state that could be drawn: it counts what happened in the sessions of others, and adds up. That is quick, needs no training to speak of, and is hard to beat on small logs.`,
  compiled: (model) => `${model} is served compiled: the graph that answers gives lists, and nothing of what goes on between. To look inside, serve it without its folder “runtime”, where torch is installed.`,
  network: (model) => `${model} is a network whose inside is not drawn here: the gates of gru4rec, the attention of transformers such as sasrec and the session tokens of sessionrec are.`,
};

export function inside(view) {
  const { found } = view;
  const { gates, attention, tokens } = found.insides;
  if (gates) return gru(found, gates);
  if (attention) return transformer(found, attention);
  if (tokens) return sessionTokens(found, tokens);
  const others = view.arms.filter((arm) => arm.arm !== found.arm);
  return [
    h("p", {}, nothing[found.insides.nothing](found.model)),
    h("div", { class: "line" }, others.map((arm) => h("button", { type: "button", onclick: () => view.choose(arm.arm) }, `Look inside ${arm.arm}`))),
    question("inside", "What can a model of neighbours not do that a network can?", [
      ["Recommend for anonymous sessions", false, "It does just that."],
      ["Say something about a pair of items that no session ever held together", true, "Networks learn vectors, in which items may be near that never met. Counts are zero there."],
      ["Weigh late events more", false, "The better ones do, by a decay over places."],
    ]),
  ];
}

// -- GRU ------------------------------------------------------------------------------------------

function gru(found, gates) {
  const events = given(found).slice(gates.first);
  const names = events.map((one) => String(one.place + 1));
  const empty = Math.max(0, 1 - gates.memory.reduce((sum, x) => sum + x, 0));
  return [
    h("p", {}, `A GRU reads your session as you read a sentence: one event after another, with a memory of ${gates.units} numbers, the state h. Two gates, each a number between 0 and 1 for every unit, decide what becomes of it:`),
    h("pre", { class: "code" }, "h′ = (1 − z) h + z c      z, the update gate: how much of a unit is written anew\nc  = tanh(W x + U (r h))   r, the reset gate: how much of the old state the new one may see"),
    h("h3", {}, "The update gate, a row an event, a column a unit"),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": "Update gates" },
      heat(gates.update, {
        label: `Update gates of ${gates.update[0].length} units after each of ${events.length} events`,
        rows: names,
        cell: 12,
        told: (row, unit, value) => `After event ${names[row]}, unit ${unit + 1}: ${percent(value, 0)} written anew`,
      }),
    ),
    h(
      "p",
      { class: "scale" },
      "0 kept ",
      h("span", { class: "ramp", "aria-hidden": "true" }),
      " 1 written anew",
    ),
    h("h3", {}, "What is left of each event in the end"),
    h("p", {}, "Unit by unit the final state is a mixture of what each event wrote: its own z times the (1 − z) of everything after it. So forgetting can be read off exactly."),
    h(
      "div",
      { class: "mixture", role: "img", "aria-label": `Shares of the final state: ${events.map((one, n) => `event ${one.place + 1} ${percent(gates.memory[n], 0)}`).join(", ")}` },
      events.map((one, n) => h("i", { vars: { "--share": gates.memory[n], "--colour": colourOf(one.place) } }, gates.memory[n] > 0.05 ? one.place + 1 : "")),
      empty > 0.005 ? h("i", { class: "empty", vars: { "--share": empty } }) : null,
    ),
    h(
      "ul",
      { class: "reached" },
      events.map((one, n) => h("li", {}, h("span", {}, h("span", { class: "badge", vars: { "--colour": colourOf(one.place) } }, one.place + 1), ` ${titleOf(one)}`), bar(gates.memory[n], percent(gates.memory[n]), colourOf(one.place)), h("small", {}, `wrote ${percent(gates.renewed[n], 0)}, let in ${percent(gates.reset[n], 0)} of the old`))).slice(-10),
    ),
    question("inside", "An event has an update gate near 0 in all units. What does the model say of it?", [
      ["It is the most important event", false, "The other way round: with z = 0 the state stays as it was."],
      ["It passes it over: the state stays", true, "h′ = (1 − 0) h + 0 c = h. A mis-click can be ignored that way, if training has shown what one looks like."],
      ["It forgets everything before", false, "That is z = 1."],
    ]),
  ];
}

// -- transformer ----------------------------------------------------------------------------------

function transformer(found, attention) {
  const events = given(found).slice(attention.first);
  const names = events.map((one) => String(one.place + 1));
  const drawn = h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Attention weights" });
  const looked = h("ul", { class: "reached" });
  const layers = attention.layers.length;
  const heads = attention.layers[0].length;
  const chosen = { layer: layers - 1, head: 0 };
  const draw = () => {
    const weights = attention.layers[chosen.layer][chosen.head];
    show(
      drawn,
      heat(weights, {
        label: `Attention weights of layer ${chosen.layer + 1}, head ${chosen.head + 1}: a row looks at the columns`,
        rows: names,
        columns: names,
        cell: Math.max(16, Math.min(34, Math.floor(420 / names.length))),
        told: (row, column, value) => `Event ${names[row]} looks at event ${names[column]}: ${percent(value)}`,
      }),
    );
    const last = weights[weights.length - 1];
    show(
      looked,
      events
        .map((one, n) => h("li", {}, h("span", {}, h("span", { class: "badge", vars: { "--colour": colourOf(one.place) } }, one.place + 1), ` ${titleOf(one)}`), bar(last[n], percent(last[n]), colourOf(one.place))))
        .slice(-10),
    );
  };
  const select = (name, many) =>
    h(
      "label",
      {},
      `${name} `,
      h(
        "select",
        { id: `of-${name.toLowerCase()}`, onchange: (x) => { chosen[name.toLowerCase()] = Number(x.target.value); draw(); } },
        Array.from({ length: many }, (_, n) => h("option", { value: String(n), selected: n === chosen[name.toLowerCase()] }, n + 1)),
      ),
    );
  draw();
  return [
    h("p", {}, "Self-attention looks at the whole session at once. Every event asks (a query), every event offers (a key), and the softmax of query · key / √d says how much of each is taken in. No state has to carry everything along, and all rows are computed side by side, which is why such models train fast."),
    h("div", { class: "line" }, select("Layer", layers), select("Head", heads)),
    h("div", { class: "two" }, h("div", {}, h("h3", {}, "Rows look at columns"), drawn, attention.causal ? h("small", {}, "Above the diagonal is the future: nobody may look there, or training would copy the answer.") : null), h("div", {}, h("h3", {}, "What the last event looks at"), looked)),
    question("inside", "The first row is always 100 % on itself. Why?", [
      ["The first event matters most", false, "It says nothing of how much others look at it: read down the column for that."],
      ["There is nothing else it may look at", true, "Attention is causal: an event sees itself and what came before. A softmax over one number is 1."],
      ["It is a mistake of the drawing", false, "A softmax over a single score must be 1."],
    ]),
  ];
}

// -- sessions as tokens ---------------------------------------------------------------------------

function sessionTokens(found, tokens) {
  const numbers = [...new Set(given(found).map((one) => one.session))];
  const rows = numbers.map((session) => given(found).filter((one) => one.session === session));
  return [
    h("p", {}, `${found.model} reads sessions, not events: what you did in one becomes one vector, and attention runs over those. A year of visits is then a short sequence, and its cost grows with the square of the sessions, not of the events.`),
    h(
      "ol",
      { class: "tokens" },
      tokens.map((token) =>
        h(
          "li",
          {},
          h("h3", {}, `Session ${token.session + 1}${token.open ? ", still open" : ""}`),
          h("small", {}, `${token.events} events in one vector of length ${number(token.length, 2)}; how alike is it to each?`),
          h(
            "ul",
            { class: "reached" },
            (rows[token.session] || []).slice(-token.alike.length).map((one, n) => h("li", {}, h("span", {}, h("span", { class: "badge", vars: { "--colour": colourOf(one.place) } }, one.place + 1), ` ${titleOf(one)}`), bar(Math.max(0, token.alike[n]), number(token.alike[n], 2), colourOf(one.place)))),
          ),
        ),
      ),
    ),
    question("inside", "One session has a hundred events, the next has two. How many tokens are they?", [
      ["102", false, "That would be an item-level model."],
      ["2", true, "One session, one token, whatever its length. What is lost is the order within it, if the vector is a mean."],
      ["1", false, "Then nothing would be left to attend to."],
    ]),
  ];
}
