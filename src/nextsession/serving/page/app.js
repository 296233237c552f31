// The frame of the page: which view is seen, who is visiting, light or dark.

import { ask, become, fresh, get, me, post, theme, useKey } from "./api.js";
import { count, h, say, show } from "./dom.js";
import * as explorer from "./explorer.js";
import * as operations from "./operations.js";
import * as shop from "./shop.js";

const views = { shop, explorer, operations };
const at = (id) => document.getElementById(id);
let seen = "";

/** Say what went wrong where it cannot be overlooked, and what to do. */
function notice(error) {
  const place = at("notice");
  place.hidden = !error;
  if (!error) return;
  const parts = [h("span", {}, error.message)];
  if (error.status === 401 || error.status === 403) {
    const field = h("input", { type: "password", autocomplete: "off", placeholder: "Key", "aria-label": "Key of this server" });
    const use = (done) => {
      done.preventDefault();
      useKey(field.value);
      start();
    };
    parts.push(h("form", { onsubmit: use }, field, h("button", {}, "Use this key")));
  } else parts.push(h("button", { type: "button", onclick: start }, "Try again"));
  show(place, parts);
}

async function look() {
  const wanted = location.hash.slice(1).split("/")[0];
  const name = views[wanted] ? wanted : "shop";
  const moved = seen !== name;
  if (moved) views[seen]?.leave?.();
  seen = name;
  for (const other of Object.keys(views)) at(`view-${other}`).hidden = other !== name;
  for (const link of document.querySelectorAll("nav [data-view]"))
    link.dataset.view === name ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  document.title = `${name[0].toUpperCase()}${name.slice(1)} · nextsession`;
  if (moved) scrollTo(0, 0);
  try {
    await views[name].enter(at(`view-${name}`));
    notice(null);
  } catch (error) {
    notice(error);
  }
}

/** Return the arms; a key that may not see them all still gets the arm of this visitor. */
async function known() {
  try {
    return (await get("v1/models")).arms.filter((arm) => arm.role === "answer");
  } catch (error) {
    if (error.status !== 403) throw error;
    const { arm, model, version, softmax } = await post("v1/explorations", { visitor: me(), k: 1 });
    return [{ arm, model, version, items: softmax.items }];
  }
}

async function start() {
  show(at("visitor"), h("span", { class: "dot", "aria-hidden": "true" }), h("span", { class: "unseen" }, "You are "), me());
  try {
    const arms = await known();
    for (const view of Object.values(views)) view.use(arms, notice);
    at("served").textContent = `${arms.map((arm) => arm.model).join(" and ")} · ${count(arms[0].items)} items`;
    seen = "";
    await look();
  } catch (error) {
    notice(error);
  }
}

function person() {
  const box = at("person");
  const field = h("input", { id: "name", value: me(), maxlength: 200, required: true, autocomplete: "off" });
  const told = h("p", { class: "told", role: "status" });
  const leave = (name) => {
    become(name);
    box.close();
    start();
  };
  const forget = async () => {
    try {
      const receipt = await ask("DELETE", `v1/visitors/${encodeURIComponent(me())}`);
      const name = me();
      become(`guest-${fresh(6)}`);
      start();
      told.textContent = `Erased ${name}: ${count(receipt.events)} events, ${count(receipt.impressions)} lists. Receipt ${receipt.tombstone.slice(0, 16)}…`;
      field.value = me();
    } catch (error) {
      told.textContent = error.message;
    }
  };
  const change = (done) => {
    done.preventDefault();
    leave(field.value);
  };
  show(
    box,
    h("h2", { id: "person-title" }, "Who you are here"),
    h("p", {}, "A visitor is a name of your choice. Everything this page shows of you hangs on it."),
    h(
      "form",
      { onsubmit: change },
      h("label", { for: "name" }, "Name"),
      h("div", { class: "line" }, field, h("button", { class: "main" }, "Be this visitor")),
    ),
    h(
      "div",
      { class: "line" },
      h("button", { type: "button", onclick: () => leave(`guest-${fresh(6)}`) }, "Somebody new"),
      h("button", { type: "button", class: "danger", onclick: forget }, "Forget me"),
      h("button", { type: "button", class: "quiet", onclick: () => box.close() }, "Close"),
    ),
    told,
  );
  box.showModal();
}

function dress(name) {
  if (name) document.documentElement.dataset.theme = name;
  const dark = name ? name === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  at("theme").textContent = dark ? "☀" : "☾";
  return dark ? "light" : "dark";
}

let next = dress(theme.get());
at("theme").addEventListener("click", () => {
  theme.set(next);
  const now = next;
  next = dress(next);
  say(`The page is ${now} now.`);
});
at("visitor").addEventListener("click", person);
addEventListener("hashchange", look);
document.querySelector(".skip").addEventListener("click", (click) => {
  click.preventDefault(); // the hash says which view is seen
  at("main").focus();
});
start();
