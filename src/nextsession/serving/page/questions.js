// Questions to check oneself: the answer comes with its reason, right or wrong.

import { h } from "./dom.js";

/** `answers` are `[text, is it right?, what is said then]`. */
export function question(id, text, answers) {
  const said = h("p", { class: "said", role: "status" });
  const pick = ([, right, reason]) => () => {
    said.className = right ? "said right" : "said wrong";
    said.textContent = `${right ? "Yes." : "Not quite."} ${reason}`;
  };
  return h(
    "details",
    { class: "question", id: `question-${id}` },
    h("summary", {}, "Check yourself"),
    h(
      "fieldset",
      {},
      h("legend", {}, text),
      answers.map((one, place) =>
        h("label", {}, h("input", { type: "radio", name: id, value: String(place), onchange: pick(one) }), h("span", {}, one[0])),
      ),
    ),
    said,
  );
}
