// All edges at once: how far ahead each drafts, over how far away its verifier is. Drawn on a canvas, thousands of dots included.

import { gauge } from "./format.js";

const LEFT = 30;
const RIGHT = 20;
const TOP = 8;
const BOTTOM = 20;
const TICKS_S = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3];
const REACH = 14;

export class Scatter {
  constructor(canvas, { onSelect }) {
    this.canvas = canvas;
    this.dots = [];
    this.selected = null;
    this.edges = [];
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("click", (event) => {
      const near = this.nearest(event);
      if (near !== null) onSelect(near.edge.id);
    });
    canvas.addEventListener("pointermove", (event) => {
      const near = this.nearest(event);
      canvas.title = near === null ? "" : `${near.edge.id}: ${near.edge.draft_length} ahead at ${gauge(near.edge.rtt_s)}`;
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  update(edges, selected) {
    this.edges = edges.filter((edge) => edge.state === "online" && edge.rtt_s > 0);
    this.selected = selected;
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (width < 80 || height < 80) return;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const look = getComputedStyle(document.documentElement);
    const color = (name) => look.getPropertyValue(name).trim();
    const rtts = this.edges.map((edge) => edge.rtt_s);
    const low = Math.min(0.005, ...rtts) * 0.8;
    const high = Math.max(0.25, ...rtts) * 1.25;
    const top = Math.max(8, Math.ceil((Math.max(0, ...this.edges.map((edge) => edge.draft_length)) + 1) / 4) * 4);
    const x = (rtt) => LEFT + ((Math.log(rtt) - Math.log(low)) / (Math.log(high) - Math.log(low))) * (width - LEFT - RIGHT);
    const y = (length) => TOP + (1 - length / top) * (height - TOP - BOTTOM);
    this.rules(pen, { x, y, low, high, top, width, height, color });
    this.dots = this.edges.map((edge) => ({ edge, x: x(edge.rtt_s), y: y(edge.draft_length) }));
    const radius = this.dots.length > 500 ? 2 : this.dots.length > 100 ? 3 : 4.5;
    pen.fillStyle = color("--accent");
    for (const dot of this.dots) {
      // Fainter: fewer of its guesses hold.
      pen.globalAlpha = 0.15 + 0.75 * (dot.edge.acceptance_probability ?? 0) ** 2;
      pen.beginPath();
      pen.arc(dot.x, dot.y, radius, 0, 2 * Math.PI);
      pen.fill();
    }
    pen.globalAlpha = 1;
    const marked = this.dots.find((dot) => dot.edge.id === this.selected);
    if (marked === undefined) return;
    pen.fillStyle = color("--draft");
    pen.strokeStyle = color("--text");
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.arc(marked.x, marked.y, radius + 1.5, 0, 2 * Math.PI);
    pen.fill();
    pen.stroke();
  }

  rules(pen, { x, y, low, high, top, width, height, color }) {
    pen.font = "10.5px system-ui, sans-serif";
    pen.fillStyle = color("--muted");
    pen.strokeStyle = color("--edge");
    pen.lineWidth = 1;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const length of [0, top / 4, top / 2, (3 * top) / 4, top]) {
      const level = Math.round(y(length)) + 0.5;
      pen.beginPath();
      pen.moveTo(LEFT, level);
      pen.lineTo(width - RIGHT, level);
      pen.stroke();
      pen.fillText(String(length), LEFT - 7, level);
    }
    pen.textAlign = "center";
    pen.textBaseline = "alphabetic";
    for (const tick of TICKS_S) {
      if (tick >= low && tick <= high) pen.fillText(gauge(tick).replace(".0", ""), x(tick), height - 4);
    }
  }

  nearest(event) {
    const box = this.canvas.getBoundingClientRect();
    let best = null;
    let bestDistance = REACH;
    for (const dot of this.dots) {
      const distance = Math.hypot(dot.x - (event.clientX - box.left), dot.y - (event.clientY - box.top));
      if (distance < bestDistance) [best, bestDistance] = [dot, distance];
    }
    return best;
  }
}
