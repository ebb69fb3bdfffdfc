// Charts of one edge over one time axis, drawn as SVG: a line each, a band for jitter, steps for what is set and not measured.

import { element, setText, shape } from "./dom.js";
import { amount, clock, length, milliseconds, percent } from "./format.js";

const PANELS = [
  { key: "rtt_s", label: "Round trip", tell: milliseconds, style: "rtt", band: "jitter_s", least: 0.01 },
  { key: "acceptance_probability", label: "Acceptance", tell: percent, style: "acceptance", top: 1 },
  { key: "draft_length", label: "Draft length", tell: length, style: "draft", steps: true, least: 4 },
  { key: "tokens_per_s", label: "Tokens/s", tell: amount, style: "tokens", least: 1 },
];
const HEIGHT = 80;
const LEFT = 58;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 8;

export class Charts {
  constructor(container) {
    this.container = container;
    this.points = [];
    this.decisions = [];
    this.from = 0;
    this.to = 1;
    this.cursor = null;
    this.panels = PANELS.map((panel) => {
      const value = element("b");
      const svg = shape("svg", { class: `chart ${panel.style}`, height: HEIGHT, role: "img", "aria-label": panel.label });
      const head = element("div", { className: "chart-head" }, element("span", { text: panel.label }), value);
      container.append(element("div", { className: "chart-row" }, head, svg));
      return { ...panel, svg, value };
    });
    this.axis = shape("svg", { class: "chart axis", height: 22, "aria-hidden": "true" });
    container.append(this.axis);
    this.note = element("p", { className: "chart-note" });
    container.append(this.note);
    new ResizeObserver(() => this.draw()).observe(container);
    container.addEventListener("pointermove", (event) => this.point(event));
    container.addEventListener("pointerleave", () => this.point(null));
  }

  show({ points, decisions, from, to }) {
    Object.assign(this, { points, decisions, from, to });
    this.draw();
  }

  draw() {
    const width = this.panels[0].svg.clientWidth;
    if (width < 120) return;
    this.width = width;
    for (const panel of this.panels) this.drawPanel(panel, width);
    this.drawAxis(width);
    this.drawCursor();
    setText(this.note, this.points.length ? "" : "Nothing is recorded yet for this time; a point comes every 5 s.");
  }

  x(at) {
    return LEFT + ((at - this.from) / (this.to - this.from)) * (this.width - LEFT - RIGHT);
  }

  drawPanel(panel, width) {
    const known = this.points.filter((point) => point[panel.key] !== null);
    const highest = Math.max(panel.least ?? 0, ...known.map((point) => point[panel.key] + (panel.band ? point[panel.band] : 0)));
    // Whole numbers get whole ticks.
    const top = panel.top ?? (panel.steps ? 2 * Math.ceil((highest * 1.02) / 2) : niceTop(highest));
    const y = (value) => TOP + (1 - Math.min(value, top) / top) * (HEIGHT - TOP - BOTTOM);
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      const level = y(top * share);
      parts.push(shape("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: level, y2: level }));
      const label = shape("text", { class: "tick", x: LEFT - 8, y: level + 3.5, "text-anchor": "end" });
      label.textContent = panel.tell(top * share);
      parts.push(label);
    }
    for (const decision of panel.steps ? this.decisions : []) {
      if (decision.at_s < this.from) continue;
      const at = this.x(decision.at_s);
      parts.push(shape("line", { class: "decision", x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM }));
    }
    for (const run of runs(known, this.gap())) {
      const place = run.map((point) => [this.x(point.at_s), y(point[panel.key])]);
      if (panel.band) {
        const upper = run.map((point) => [this.x(point.at_s), y(point[panel.key] + point[panel.band])]);
        const lower = run.map((point) => [this.x(point.at_s), y(Math.max(0, point[panel.key] - point[panel.band]))]);
        parts.push(shape("path", { class: "band", d: `${line(upper)}L${line(lower.reverse()).slice(1)}Z` }));
      } else {
        const first = place[0][0];
        const last = place[place.length - 1][0];
        parts.push(shape("path", { class: "area", d: `${(panel.steps ? steps : line)(place)}L${last},${y(0)}L${first},${y(0)}Z` }));
      }
      parts.push(shape("path", { class: "line", d: (panel.steps ? steps : line)(place) }));
      if (run.length === 1) parts.push(shape("circle", { class: "dot", cx: place[0][0], cy: place[0][1], r: 2.5 }));
    }
    panel.y = y;
    panel.cursor = shape("g", { class: "cursor", visibility: "hidden" },
      shape("line", { y1: TOP, y2: HEIGHT - BOTTOM }), shape("circle", { r: 3.5 }));
    panel.svg.replaceChildren(...parts, panel.cursor);
  }

  drawAxis(width) {
    const count = Math.max(2, Math.floor((width - LEFT) / 130));
    const parts = [];
    for (let index = 0; index <= count; index++) {
      const at = this.from + ((this.to - this.from) * index) / count;
      const anchor = index === count ? "end" : index === 0 ? "start" : "middle";
      const label = shape("text", { class: "tick", x: this.x(at), y: 14, "text-anchor": anchor });
      label.textContent = clock(at);
      parts.push(label);
    }
    this.axis.replaceChildren(...parts);
  }

  // Samples further apart than this are not joined: nothing was known in between.
  gap() {
    const spans = this.points.slice(1).map((point, index) => point.at_s - this.points[index].at_s).sort((a, b) => a - b);
    return Math.max(16, 3.5 * (spans[spans.length >> 1] ?? 0));
  }

  point(event) {
    if (event === null || this.points.length === 0) {
      this.cursor = null;
    } else {
      const box = this.panels[0].svg.getBoundingClientRect();
      const share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
      const at = this.from + share * (this.to - this.from);
      this.cursor = share < -0.02 || share > 1.02 ? null : nearest(this.points, at);
    }
    this.drawCursor();
  }

  drawCursor() {
    const shown = this.cursor ?? this.points[this.points.length - 1];
    for (const panel of this.panels) {
      const value = shown?.[panel.key] ?? null;
      const jitter = panel.band && value !== null ? ` \u00b1 ${panel.tell(shown[panel.band])}` : "";
      setText(panel.value, panel.tell(value) + jitter);
      const isShown = this.cursor !== null && value !== null;
      panel.cursor?.setAttribute("visibility", isShown ? "visible" : "hidden");
      if (!isShown) continue;
      const [rule, dot] = panel.cursor.children;
      const at = this.x(this.cursor.at_s);
      rule.setAttribute("x1", at);
      rule.setAttribute("x2", at);
      dot.setAttribute("cx", at);
      dot.setAttribute("cy", panel.y(value));
    }
    if (this.cursor !== null) setText(this.note, `At ${clock(this.cursor.at_s)}`);
    else if (this.points.length) setText(this.note, "");
  }
}

// A small line without axes, for a tile.
export function sparkline(svg, values) {
  const width = svg.clientWidth || 160;
  const height = 30;
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return svg.replaceChildren();
  const top = Math.max(...known);
  const low = Math.min(...known);
  // A flat line is drawn flat: noise of a per mille must not look like a mountain.
  const span = Math.max(top - low, top * 0.08, 1e-9);
  const middle = (top + low) / 2;
  const place = values
    .map((value, index) => [(index / (values.length - 1)) * (width - 4) + 2, value])
    .filter(([, value]) => value !== null)
    .map(([at, value]) => [at, height / 2 - ((value - middle) / span) * (height - 8)]);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const last = place[place.length - 1];
  svg.replaceChildren(
    shape("path", { class: "area", d: `${line(place)}L${last[0]},${height}L${place[0][0]},${height}Z` }),
    shape("path", { class: "line", d: line(place) }),
    shape("circle", { class: "dot", cx: last[0], cy: last[1], r: 2.5 }),
  );
}

const line = (places) => `M${places.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join("L")}`;

function steps(places) {
  let path = `M${places[0][0].toFixed(1)},${places[0][1].toFixed(1)}`;
  for (const [x, y] of places.slice(1)) path += `H${x.toFixed(1)}V${y.toFixed(1)}`;
  return path;
}

function* runs(points, gap) {
  let run = [];
  for (const point of points) {
    if (run.length > 0 && point.at_s - run[run.length - 1].at_s > gap) {
      yield run;
      run = [];
    }
    run.push(point);
  }
  if (run.length > 0) yield run;
}

function nearest(points, at) {
  return points.reduce((best, point) => (Math.abs(point.at_s - at) < Math.abs(best.at_s - at) ? point : best));
}

function niceTop(value) {
  const scale = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * scale).find((step) => step >= value * 1.02) ?? 10 * scale;
}
