// Operations: the numbers for whoever has to keep this up at three in the morning.

import { get, post } from "./api.js";
import { bar, lines } from "./charts.js";
import { ago, count, h, keepingFocus, ms, number, percent, say, show } from "./dom.js";

const EVERY = 2000;
let tell = () => {};
let timer = 0;
let parts = null;

export function use(arms, notice) {
  tell = notice;
}

export async function enter(place) {
  if (!parts) {
    parts = { board: h("div", { class: "board" }) };
    show(place, h("h1", {}, "Is all well?"), parts.board);
    document.addEventListener("visibilitychange", () => !document.hidden && !place.hidden && turn());
  }
  await refresh();
  leave();
  timer = setInterval(() => !document.hidden && turn(), EVERY);
}

export function leave() {
  clearInterval(timer);
  timer = 0;
}

const turn = () =>
  refresh().then(
    () => tell(null),
    (error) => tell(error),
  );

async function refresh() {
  const [numbers, models, ready] = await Promise.all([get("v1/operations"), get("v1/models"), get("readyz").catch((error) => ({ status: error.message }))]);
  keepingFocus(parts.board, () => show(parts.board, tiles(numbers, ready), traffic(numbers), latency(numbers), stages(numbers), sources(numbers), comparison(numbers), numbers.shadows.length ? shadows(numbers) : null, versions(numbers, models), learning(numbers), health("Store", numbers.store, numbers.now), indexes(numbers), failures(numbers)));
}

const panel = (title, wide, ...children) => h("section", { class: `panel card ${wide}`, "aria-label": title }, h("h2", {}, title), children);

function tile(name, value, note, state = "") {
  return h("div", { class: `tile card ${state}` }, h("span", {}, name), h("b", {}, value), h("small", {}, note));
}

function tiles(x, ready) {
  const { recommend } = x.latency;
  const degraded = Object.values(x.degraded).reduce((sum, n) => sum + n, 0);
  const well = ready.status === "ok" && x.store.ok;
  return h(
    "div",
    { class: "tiles" },
    tile("State", well ? "Well" : "Not well", well ? `up since ${new Date(x.started).toLocaleTimeString("en-GB")} · ${x.workers} ${x.workers === 1 ? "process" : "processes"}` : x.store.error || ready.status, well ? "good" : "bad"),
    tile("Requests", `${number(x.rate.requests)}/s`, "over the last minute"),
    tile("Events", `${number(x.rate.events)}/s`, "accepted and durable"),
    tile("Lists, p50", ms(recommend.p50), `p90 ${ms(recommend.p90)} · p99 ${ms(recommend.p99)}`),
    tile("Fallback", percent(x.fallback_share), "of listed items came of no model", x.fallback_share > 0.2 ? "warn" : ""),
    tile("Degraded", count(degraded), "answers with a part missing", degraded ? "warn" : ""),
  );
}

const traffic = (x) =>
  panel("Throughput", "half", lines([{ name: "requests a second", points: x.history.map((row) => row.requests), colour: "var(--event-0)" }], { label: "Requests a second over the last hour", unit: "per second, a point every five seconds" }));

const latency = (x) =>
  panel(
    "Latency of lists",
    "half",
    lines(
      [
        { name: "p50", points: x.history.map((row) => row.p50), colour: "var(--event-2)" },
        { name: "p99", points: x.history.map((row) => row.p99), colour: "var(--event-1)" },
      ],
      { label: "Latency of recommendations over the last hour", unit: "ms" },
    ),
  );

const STAGES = { recommend: "a list, all in all", history: "reading the history", model: "the model", explain: "the reasons", store: "waiting for the disk", events: "events alone" };

function stages(x) {
  const most = Math.max(...Object.keys(STAGES).map((name) => x.latency[name]?.p99 || 0), 0.001);
  return panel(
    "Where the time goes",
    "half",
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ["Stage", "p50", "p90", "p99", ""].map((name) => h("th", { scope: "col" }, name)))),
      h(
        "tbody",
        {},
        Object.entries(STAGES).map(([name, told]) => {
          const row = x.latency[name] || {};
          return h("tr", {}, h("th", { scope: "row" }, told), h("td", {}, ms(row.p50)), h("td", {}, ms(row.p90)), h("td", {}, ms(row.p99)), h("td", { class: "wide" }, bar((row.p99 || 0) / most, "")));
        }),
      ),
    ),
  );
}

const SOURCES = { model: "the model", fallback: "the fallback", recent: "wanted lately", usual: "usually wanted", any: "anything", explore: "tried out" };

function sources(x) {
  const total = Object.values(x.answers).reduce((sum, n) => sum + n, 0);
  return panel(
    "Where items come from",
    "half",
    h("p", {}, h("small", {}, "A list is filled from the first of these, then from the next, until it is long enough.")),
    x.explore.share ? h("p", {}, h("small", {}, `Places but the first go with probability ${percent(x.explore.share)} to items of which little is known: ${Object.entries(x.explore.cold).map(([arm, n]) => `${arm} has ${count(n || 0)}`).join(", ")}.`)) : null,
    h("ul", { class: "reached" }, [...x.chain, ...(x.explore.share ? ["explore"] : [])].map((name) => [name, SOURCES[name]]).map(([name, told]) => h("li", {}, h("span", {}, told), bar(total ? x.answers[name] / total : 0, total ? `${percent(x.answers[name] / total)} · ${count(x.answers[name])}` : "–")))),
    h("p", {}, h("small", {}, `${percent(x.cold_share)} of the events read are of items that no model knows. Of the catalogue ${Object.entries(x.coverage).map(([arm, share]) => `${arm} has listed ${percent(share)}`).join(", ")}.`)),
  );
}

function comparison(x) {
  const answering = x.arms.filter((arm) => arm.role === "answer");
  const most = Math.max(0.01, ...answering.map((arm) => (arm.answers ? arm.high : 0)));
  const axis = (v) => v / most;
  return panel(
    "Arms of the comparison",
    "full",
    h("p", {}, h("small", {}, "Clicks on lists, per list shown, with the 95 % interval. As long as the intervals overlap much, nothing is decided.")),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": "Arms" },
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, ["Arm", "Share", "Lists", "Clicks", "Rate", "95 % interval"].map((name) => h("th", { scope: "col" }, name)))),
        h(
          "tbody",
          {},
          answering.map((arm, n) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, arm.arm),
              h("td", {}, percent(arm.weight / (x.arms.reduce((sum, one) => sum + one.weight, 0) || 1), 0)),
              h("td", {}, count(arm.answers)),
              h("td", {}, count(arm.clicks)),
              h("td", {}, arm.answers ? percent(arm.rate) : "–"),
              h(
                "td",
                { class: "wide" },
                arm.answers
                  ? h(
                      "span",
                      { class: "interval", role: "img", "aria-label": `from ${percent(arm.low)} to ${percent(arm.high)}`, title: `${percent(arm.low)} to ${percent(arm.high)}`, vars: { "--low": axis(arm.low), "--high": axis(arm.high), "--rate": axis(arm.rate), "--colour": `var(--event-${n % 10})` } },
                      h("i", {}),
                      h("b", {}),
                    )
                  : "no list yet",
              ),
            ),
          ),
        ),
      ),
    ),
    h("p", { class: "scale-ends" }, h("span", {}, "0 %"), h("span", {}, percent(most))),
  );
}

function shadows(x) {
  const heads = ["Arm", "Model", "Lists", "Failures", "Dropped", "p50", "p99", "Same items as shown"];
  return panel(
    "Shadows",
    "full",
    h("p", {}, h("small", {}, "Asked what the others answered, after the answer has gone out. Nobody sees their lists; what they had no time for is dropped.")),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": "Shadows" },
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, heads.map((name) => h("th", { scope: "col" }, name)))),
        h(
          "tbody",
          {},
          x.shadows.map((one) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, one.arm),
              h("td", {}, one.model),
              h("td", {}, count(one.answers)),
              h("td", {}, count(one.failures)),
              h("td", {}, count(one.dropped)),
              h("td", {}, ms(one.p50)),
              h("td", {}, ms(one.p99)),
              h("td", { class: "wide" }, one.overlap === null ? "no list yet" : bar(one.overlap, percent(one.overlap))),
            ),
          ),
        ),
      ),
    ),
  );
}

const ROLES = { answer: "answers", fallback: "fills lists", shadow: "shadow" };

function versions(x, { arms, refused }) {
  const back = async (arm) => {
    try {
      await post("v1/models", { do: "roll_back", arm });
      say(`${arm} is back at the version before.`);
      await refresh();
    } catch (error) {
      tell(error);
    }
  };
  return panel(
    "Models",
    "full",
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": "Models" },
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, ["Arm", "Role", "Model", "Version", "Items", "Loaded", "Golden requests", "Before"].map((name) => h("th", { scope: "col" }, name)))),
        h(
          "tbody",
          {},
          arms.map((arm) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, arm.arm),
              h("td", {}, ROLES[arm.role]),
              h("td", {}, arm.model),
              h("td", {}, h("code", {}, arm.version)),
              h("td", {}, count(arm.items)),
              h("td", {}, ago(arm.loaded_at, x.now)),
              h("td", {}, `${arm.golden} answered as they should be`),
              h("td", {}, arm.previous.length ? h("button", { type: "button", id: `back-${arm.arm}`, onclick: () => back(arm.arm) }, `Back to ${arm.previous[0].slice(0, 6)}`) : "none"),
            ),
          ),
        ),
      ),
    ),
    refused.map((one) => h("p", { class: "refused" }, `Refused ${ago(one.at, x.now)}: ${one.artifact}: ${one.reason}`)),
  );
}

function learning(x) {
  return panel(
    "Learning on",
    "full",
    h("p", {}, h("small", {}, "What the models have been told of what happened since they were fitted.")),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": "Learning on" },
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, ["Arm", "Told of all until", "Events", "Took", "Times", "Failures", ""].map((name) => h("th", { scope: "col" }, name)))),
        h(
          "tbody",
          {},
          x.learning.map((one) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, one.arm),
              h("td", {}, one.until ? ago(one.until, x.now) : "nothing yet"),
              h("td", {}, count(one.events)),
              h("td", {}, ms(1000 * one.seconds)),
              h("td", {}, count(one.times)),
              h("td", {}, count(one.failures)),
              h("td", { class: "wide" }, one.error || one.not_because || ""),
            ),
          ),
        ),
      ),
    ),
  );
}

/** Whatever a part says of its health, line by line: parts know best what matters. */
function health(name, facts, now) {
  const { ok, ...others } = facts;
  return panel(
    name,
    "half",
    h("p", { class: ok === false ? "lamp bad" : "lamp good" }, ok === false ? "Not well" : "Well"),
    h(
      "dl",
      {},
      Object.entries(others).map(([key, value]) => [h("dt", {}, key.replaceAll("_", " ")), h("dd", {}, told(key, value, now))]),
    ),
  );
}

const indexes = (x) => x.index.map(({ arm, kind, ...facts }) => health(`Index of ${arm}`, { kind: KINDS[kind], ...facts }, x.now));

const KINDS = { exact: "none: every item is looked at", ivf: "inverted lists (ivf)", pq: "inverted lists of codes (pq)", hnsw: "graph (hnsw)" };

function told(key, value, now) {
  if (/_at$/.test(key) && value) return ago(value, now);
  if (value === null || value === "") return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return typeof value === "object" ? JSON.stringify(value) : String(value);
  if (/bytes/.test(key)) return value > 1e6 ? `${number(value / 1e6)} MB` : `${number(value / 1e3)} kB`;
  if (/recall|share|promised/.test(key)) return number(value, 3);
  return number(value, 2);
}

function failures(x) {
  const rows = Object.entries(x.errors).sort();
  return panel(
    "Refusals and errors",
    "half",
    rows.length ? h("ul", { class: "reached" }, rows.map(([status, n]) => h("li", {}, h("span", {}, STATUS[status] || `status ${status}`), h("b", {}, count(n))))) : h("p", {}, "None since the start."),
  );
}

const STATUS = { 400: "400 no JSON", 401: "401 no key", 403: "403 key lacks the scope", 404: "404 not there", 409: "409 model refused", 413: "413 too large", 422: "422 a field is wrong", 429: "429 too often", 500: "500 our fault", 503: "503 come again later" };
