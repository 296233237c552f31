// Drawings: heat maps, bars, lines. Each says in words what it shows.

import { h, number, s } from "./dom.js";

/** A heat map of numbers from 0 to 1, `values[row][column]`. */
export function heat(values, { label, cell = 14, gap = 1, rows = [], columns = [], told }) {
  const width = Math.max(...values.map((row) => row.length)) * (cell + gap);
  const left = rows.length ? 26 : 0;
  const top = columns.length ? 20 : 0;
  const marks = [];
  values.forEach((row, y) => {
    if (rows[y]) marks.push(s("text", { x: 20, y: top + y * (cell + gap) + cell * 0.75, "text-anchor": "end", class: "axis" }, rows[y]));
    row.forEach((value, x) => {
      const box = s("rect", { x: left + x * (cell + gap), y: top + y * (cell + gap), width: cell, height: cell, rx: 2, class: "cell" });
      box.style.setProperty("--v", Math.max(0, Math.min(1, value)));
      if (told) box.append(s("title", {}, told(y, x, value)));
      marks.push(box);
    });
  });
  columns.forEach((name, x) =>
    marks.push(s("text", { x: left + x * (cell + gap) + cell / 2, y: 13, "text-anchor": "middle", class: "axis" }, name)),
  );
  const height = top + values.length * (cell + gap);
  return s(
    "svg",
    { class: "heat", viewBox: `0 0 ${left + width} ${height}`, width: left + width, role: "img", "aria-label": label },
    marks,
  );
}

/** A bar with its number; `share` from 0 to 1. */
export const bar = (share, text, colour) =>
  h("span", { class: "meter", vars: { "--share": Math.max(0, Math.min(1, share || 0)), ...(colour && { "--colour": colour }) } }, h("i", {}), h("b", {}, text));

/** Lines over time; `series` are `{name, points: [number or null], colour}`. */
export function lines(series, { label, unit = "", height = 120, least = 1 }) {
  const width = 480;
  const many = Math.max(2, ...series.map((one) => one.points.length));
  const top = Math.max(least, ...series.flatMap((one) => one.points.filter((x) => x !== null)));
  const nice = ceiling(top);
  const x = (i) => 40 + ((width - 48) * i) / (many - 1);
  const y = (v) => 8 + (height - 22) * (1 - v / nice);
  const paths = series.map((one) => {
    let path = "";
    let pen = false;
    one.points.forEach((v, i) => {
      if (v === null) pen = false;
      else {
        path += `${pen ? "L" : "M"}${x(i + many - one.points.length).toFixed(1)} ${y(v).toFixed(1)}`;
        pen = true;
      }
    });
    const line = s("path", { d: path, class: "line" });
    line.style.setProperty("--colour", one.colour);
    return line;
  });
  const grid = [0, 0.5, 1].map((part) => [
    s("line", { x1: 40, x2: width - 8, y1: y(nice * part), y2: y(nice * part), class: "grid" }),
    s("text", { x: 35, y: y(nice * part) + 3.5, "text-anchor": "end", class: "axis" }, number(nice * part, nice < 10 ? 2 : 0)),
  ]);
  return h(
    "figure",
    {},
    s("svg", { viewBox: `0 0 ${width} ${height}`, class: "lines", role: "img", "aria-label": `${label}${unit && `, ${unit}`}` }, grid, paths),
    h(
      "figcaption",
      {},
      series.map((one) => h("span", { class: "key", vars: { "--colour": one.colour } }, one.name)),
      h("small", {}, unit),
    ),
  );
}

function ceiling(x) {
  const size = 10 ** Math.floor(Math.log10(x));
  return [1, 2, 5, 10].map((m) => m * size).find((m) => m >= x);
}
