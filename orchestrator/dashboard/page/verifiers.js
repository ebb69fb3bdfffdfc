// The table of verifiers: few rows, each with how full and how busy it is.

import { element, setClass, setText, setTitle } from "./dom.js";
import { amount, gauge, percent } from "./format.js";

export class VerifierList {
  constructor(container, note) {
    this.container = container;
    this.note = note;
    this.rows = new Map();
  }

  update(verifiers) {
    setText(this.note, verifiers.length ? "" : "none has reported; start one with: paceline cloud --broker HOST:PORT");
    const seen = new Set(verifiers.map((verifier) => verifier.id));
    for (const [id, row] of this.rows) {
      if (seen.has(id)) continue;
      row.line.remove();
      this.rows.delete(id);
    }
    for (const verifier of verifiers) {
      let row = this.rows.get(verifier.id);
      if (row === undefined) {
        row = makeRow();
        this.rows.set(verifier.id, row);
        this.container.append(row.line);
      }
      fill(row, verifier);
    }
  }
}

function makeRow() {
  const parts = {};
  const text = (name, tag = "span") => (parts[name] = element(tag));
  const figure = (name, label, title) => element("div", { className: "figure", title }, text(name, "b"), element("small", { text: label }));
  const meter = (name, label) => {
    parts[`${name}Bar`] = element("i");
    return element("div", { className: `gauge ${name}` },
      element("div", { className: "gauge-head" }, element("small", { text: label }), text(name, "b")),
      element("div", { className: "load" }, parts[`${name}Bar`]));
  };
  parts.dot = element("i", { className: "dot" });
  parts.badge = element("span", { className: "badge" });
  const line = element("article", { className: "verifier" },
    element("div", { className: "verifier-head" }, parts.dot, text("id", "strong"), parts.badge, text("model", "small"), element("span", { className: "grow" }), text("address", "code")),
    element("div", { className: "verifier-figures" },
      meter("sessions", "Sessions"),
      meter("busy", "Busy"),
      figure("step", "Step", "Time of a step of the model, the mean of the recent ones"),
      figure("queue", "Queue", "Time a session waits for its step"),
      figure("tokens", "Tokens/s", "Committed tokens per second")));
  return { ...parts, line };
}

function fill(row, verifier) {
  setClass(row.line, `verifier ${verifier.state}`);
  setClass(row.dot, `dot ${verifier.state}`);
  setText(row.id, verifier.id);
  setTitle(row.id, verifier.id);
  setText(row.address, verifier.address || "\u2013");
  setText(row.badge, verifier.state === "online" ? "" : verifier.state);
  row.badge.hidden = verifier.state === "online";
  const model = [verifier.model, verifier.dtype].filter(Boolean).join(" \u00b7 ");
  setText(row.model, model || "\u2013");
  setTitle(row.model, model);
  const full = verifier.max_sessions > 0 ? verifier.num_sessions / verifier.max_sessions : 0;
  setText(row.sessions, `${verifier.num_sessions} of ${verifier.max_sessions}`);
  setBar(row.sessionsBar, full);
  setText(row.busy, percent(verifier.busy));
  setBar(row.busyBar, verifier.busy);
  setText(row.step, gauge(verifier.step_s));
  setText(row.queue, verifier.step_s > 0 ? (verifier.queue_s > 0 ? gauge(verifier.queue_s) : "0 ms") : "\u2013");
  setText(row.tokens, amount(verifier.tokens_per_s));
}

export function setBar(bar, share) {
  const width = `${(Math.min(1, Math.max(0, share)) * 100).toFixed(1)}%`;
  if (bar.style.width !== width) bar.style.width = width;
  setClass(bar, share > 0.9 ? "hot" : share > 0.75 ? "warm" : "");
}
