// A cover for every item: drawn from its id, so it is the same everywhere and nothing has to be fetched.

import { s } from "./dom.js";

function hash(text) {
  let x = 2166136261;
  for (const c of text) x = Math.imul(x ^ c.codePointAt(0), 16777619);
  x ^= x >>> 15;
  x = Math.imul(x, 2246822507);
  x ^= x >>> 13;
  return x >>> 0;
}

function draw(seed) {
  let x = seed || 1;
  return (from, to) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return from + ((x >>> 0) / 4294967296) * (to - from);
  };
}

const MOTIFS = [
  (r, ink) => [
    s("circle", { cx: r(25, 75), cy: r(35, 60), r: r(16, 26), fill: ink(0) }),
    s("path", { d: `M0 ${r(75, 95)} Q${r(20, 40)} ${r(55, 75)} 55 ${r(80, 95)} T100 ${r(70, 95)} V133 H0Z`, fill: ink(1) }),
    s("path", { d: `M0 ${r(100, 112)} Q50 ${r(82, 100)} 100 ${r(100, 116)} V133 H0Z`, fill: ink(2) }),
  ],
  (r, ink) => [0, 1, 2, 3].map((i) => s("circle", { cx: 50, cy: 66, r: 46 - 11 * i + r(-2, 2), fill: ink(i) })),
  (r, ink) => {
    const lean = r(-30, 30);
    return [0, 1, 2, 3, 4].map((i) =>
      s("path", { d: `M${i * 24 - 20} 0 h13 l${lean} 133 h-13Z`, fill: ink(i) }),
    );
  },
  (r, ink) => [
    s("path", { d: `M${r(10, 35)} 112 L${r(35, 65)} ${r(15, 40)} L${r(75, 95)} 112Z`, fill: ink(0) }),
    s("path", { d: `M-10 133 L${r(15, 40)} ${r(55, 75)} L70 133Z`, fill: ink(1) }),
    s("path", { d: `M40 133 L${r(65, 85)} ${r(70, 90)} L112 133Z`, fill: ink(2) }),
  ],
  (r, ink) => {
    const found = [];
    for (let row = 0; row < 5; row++)
      for (let column = 0; column < 4; column++)
        found.push(s("circle", { cx: 14 + 24 * column, cy: 18 + 24 * row, r: r(2.5, 10.5), fill: ink(row + column) }));
    return found;
  },
  (r, ink) => [
    s("path", { d: `M0 133 A100 ${r(85, 110)} 0 0 1 100 33 V133Z`, fill: ink(0) }),
    s("path", { d: "M0 133 A66 66 0 0 1 66 67 V133Z", fill: ink(1) }),
    s("circle", { cx: r(18, 40), cy: r(22, 42), r: r(8, 15), fill: ink(2) }),
  ],
];

/** Return the cover of an item, for the eye alone: its title always stands beside it. */
export function poster(item) {
  const seed = hash(String(item));
  const r = draw(seed);
  const hue = Math.floor(r(0, 360));
  const other = (hue + [28, 150, 200, 320][Math.floor(r(0, 4))]) % 360;
  const ink = (i) => (i % 2 ? `hsl(${other} 62% ${64 - 7 * (i % 3)}%)` : `hsl(${hue} 70% ${72 - 12 * (i % 4)}%)`);
  const motif = MOTIFS[Math.floor(r(0, MOTIFS.length))];
  return s(
    "svg",
    { class: "poster", viewBox: "0 0 100 133", "aria-hidden": "true", preserveAspectRatio: "xMidYMid slice" },
    s("rect", { width: 100, height: 133, fill: `hsl(${hue} 48% ${r(24, 34)}%)` }),
    motif(r, ink),
  );
}
