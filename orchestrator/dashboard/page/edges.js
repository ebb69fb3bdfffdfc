// The table of edges: sorted, filtered, and only the rows in sight are in the page, so that thousands are no burden.

import { element, setClass, setText, setTitle } from "./dom.js";
import { amount, gauge, percent, plural, whole } from "./format.js";

const ROW = 38;
const SPARE = 6;

const rank = { online: 0, silent: 1, offline: 2 };

const COLUMNS = [
  { key: "id", label: "Edge", cell: "name" },
  { key: "verifier", label: "Verifier", cell: "text" },
  { key: "rtt_s", label: "RTT", cell: "number", hint: "Round trip to the verifier in use, and how far it typically strays" },
  { key: "acceptance_probability", label: "Acceptance", cell: "number", hint: "Accepted / judged over the recent past" },
  { key: "draft_length", label: "Draft", cell: "number", hint: "How many tokens deep the edge drafts" },
  { key: "tokens_per_s", label: "Tokens/s", cell: "number", hint: "Committed tokens per second" },
  { key: "waste", label: "Waste", cell: "number", hint: "Drafted tokens that came to nothing: rejected, late or stale" },
  { key: "explanation", label: "Why", cell: "text" },
];

export class EdgeTable {
  constructor({ grid, head, body, note, empty, filter, onSelect }) {
    Object.assign(this, { grid, head, body, note, empty, onSelect });
    this.edges = new Map();
    this.rows = [];
    this.pool = [];
    this.sort = { key: "tokens_per_s", isDown: true };
    this.selected = null;
    this.query = "";
    this.headers = COLUMNS.map((column) => this.header(column));
    head.append(...this.headers);
    body.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(body);
    this.track = element("div", { className: "grid-track" });
    body.append(this.track);
    filter.addEventListener("input", () => {
      this.query = filter.value.trim().toLowerCase();
      body.scrollTop = 0;
      this.update();
    });
    grid.addEventListener("keydown", (event) => this.key(event));
  }

  header(column) {
    const button = element("button", { text: column.label, title: column.hint ?? "", attributes: { type: "button" } });
    button.addEventListener("click", () => {
      const isSame = this.sort.key === column.key;
      this.sort = { key: column.key, isDown: isSame ? !this.sort.isDown : column.cell === "number" };
      this.update();
    });
    return element("div", { className: `${column.cell} c-${column.key}`, attributes: { role: "columnheader" } }, button);
  }

  update() {
    this.headers.forEach((header, index) => {
      const isSorted = COLUMNS[index].key === this.sort.key;
      header.setAttribute("aria-sort", isSorted ? (this.sort.isDown ? "descending" : "ascending") : "none");
    });
    const wanted = this.query;
    const all = [...this.edges.values()];
    this.rows = wanted
      ? all.filter((edge) => [edge.id, edge.verifier, edge.state].some((text) => text.toLowerCase().includes(wanted)))
      : all;
    this.rows.sort(this.order());
    this.empty.hidden = this.rows.length > 0;
    setText(this.empty, all.length ? "No edge matches." : "No edge has reported yet. Start one with: paceline edge --broker HOST:PORT");
    setText(this.note, wanted ? `${whole(this.rows.length)} of ${plural(all.length, "edge")}` : plural(all.length, "edge"));
    this.draw();
  }

  order() {
    const { key, isDown } = this.sort;
    const turn = isDown ? -1 : 1;
    return (one, other) => {
      // Whoever is gone stands below, however the table is sorted.
      if (one.state !== other.state) return rank[one.state] - rank[other.state];
      const a = one[key];
      const b = other[key];
      const aKnown = a !== null && a !== "";
      const bKnown = b !== null && b !== "";
      if (aKnown !== bKnown) return aKnown ? -1 : 1;
      if (aKnown && a !== b) {
        const first = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
        if (first !== 0) return turn * first;
      }
      return one.id < other.id ? -1 : 1;
    };
  }

  draw() {
    const height = `${this.rows.length * ROW}px`;
    if (this.track.style.height !== height) this.track.style.height = height;
    const first = Math.max(0, Math.floor(this.body.scrollTop / ROW) - SPARE);
    const last = Math.min(this.rows.length, Math.ceil((this.body.scrollTop + this.body.clientHeight) / ROW) + SPARE);
    while (this.pool.length < last - first) this.pool.push(this.row());
    this.pool.forEach((row, index) => {
      const edge = index < last - first ? this.rows[first + index] : undefined;
      row.line.hidden = edge === undefined;
      if (edge !== undefined) this.fill(row, edge, first + index);
    });
    this.grid.setAttribute("aria-rowcount", String(this.rows.length));
  }

  row() {
    const dot = element("i", { className: "dot" });
    const name = element("span");
    const cells = COLUMNS.slice(1).map((column) => element("div", { className: `${column.cell} c-${column.key}`, attributes: { role: "gridcell" } }));
    const line = element("div", { className: "grid-row", attributes: { role: "row" } },
      element("div", { className: "name c-id", attributes: { role: "gridcell" } }, dot, name), ...cells);
    const jitter = element("small");
    const rtt = element("span");
    cells[1].append(rtt, jitter);
    const bar = element("i");
    const share = element("span");
    cells[2].append(share, element("span", { className: "meter" }, bar));
    const length = element("span");
    const pinned = element("small", { className: "pinned", text: "pinned" });
    cells[3].append(pinned, length);
    line.addEventListener("click", () => this.onSelect(line.dataset.edge));
    this.track.append(line);
    return { line, dot, name, cells, rtt, jitter, bar, share, length, pinned };
  }

  fill(row, edge, index) {
    row.line.dataset.edge = edge.id;
    row.line.style.transform = `translateY(${index * ROW}px)`;
    setClass(row.line, `grid-row${edge.id === this.selected ? " selected" : ""}${edge.state === "online" ? "" : " away"}`);
    row.line.setAttribute("aria-selected", String(edge.id === this.selected));
    row.line.setAttribute("aria-rowindex", String(index + 1));
    setClass(row.dot, `dot ${edge.state}`);
    setTitle(row.dot, edge.state);
    setText(row.name, edge.id);
    setTitle(row.name, edge.id);
    const [verifier, , , , tokens, waste, why] = row.cells;
    setText(verifier, edge.verifier || "\u2013");
    setTitle(verifier, edge.verifier);
    setText(row.rtt, gauge(edge.rtt_s));
    setText(row.jitter, edge.rtt_s > 0 ? ` \u00b1 ${gauge(edge.jitter_s)}` : "");
    setText(row.share, percent(edge.acceptance_probability));
    const width = `${Math.round((edge.acceptance_probability ?? 0) * 100)}%`;
    if (row.bar.style.width !== width) row.bar.style.width = width;
    setText(row.length, whole(edge.draft_length));
    row.pinned.hidden = edge.pinned === null;
    setText(tokens, amount(edge.tokens_per_s));
    setText(waste, percent(edge.waste));
    setText(why, edge.explanation);
    setTitle(why, edge.explanation);
  }

  key(event) {
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
    const move = moves[event.key];
    if (move === undefined || event.target !== this.grid || this.rows.length === 0) return;
    event.preventDefault();
    const now = this.rows.findIndex((edge) => edge.id === this.selected);
    const next = Math.min(this.rows.length - 1, Math.max(0, now + move));
    this.onSelect(this.rows[next].id);
    const top = next * ROW;
    if (top < this.body.scrollTop) this.body.scrollTop = top;
    else if (top + ROW > this.body.scrollTop + this.body.clientHeight) this.body.scrollTop = top + ROW - this.body.clientHeight;
  }
}
