// The page: follows the orchestrator's stream and keeps tiles, verifiers, edges and the charts of one edge up to date.

import { Charts, sparkline } from "./charts.js";
import { AskForKey, follow, request, useKey } from "./connection.js";
import { byId, element, setText, setTitle } from "./dom.js";
import { EdgeTable } from "./edges.js";
import { ago, amount, gauge, milliseconds, percent, plural, whole } from "./format.js";
import { Scatter } from "./scatter.js";
import { VerifierList, setBar } from "./verifiers.js";

const RANGES = [["5 min", 300], ["30 min", 1800], ["3 h", 10800], ["24 h", 86400]];
const TREND_POINTS = 120;

const view = {
  fleet: null,
  heardAt: 0,
  isLive: false,
  trend: [],
  range: 300,
  chartsDueAt: 0,
  chartsFor: null,
  isChosen: false,
};

const charts = new Charts(byId("charts"));
const verifiers = new VerifierList(byId("verifiers"), byId("verifiers-note"));
const edges = new EdgeTable({
  grid: byId("edges"),
  head: byId("edges-head"),
  body: byId("edges-body"),
  note: byId("edges-note"),
  empty: byId("edges-empty"),
  filter: byId("filter"),
  onSelect: select,
});

const scatter = new Scatter(byId("scatter"), { onSelect: select });

function onEvent(kind, data) {
  if (kind === "fleet") {
    edges.edges = new Map(data.edges.map((edge) => [edge.id, edge]));
    view.trend = data.trend;
  } else if (kind === "change") {
    for (const edge of data.edges) edges.edges.set(edge.id, edge);
    for (const id of data.gone) edges.edges.delete(id);
    const point = data.trend_point;
    if (point && point.at_s !== view.trend[view.trend.length - 1]?.at_s) view.trend = [...view.trend, point].slice(-TREND_POINTS);
  } else {
    return;
  }
  view.fleet = data;
  view.heardAt = Date.now();
  chooseEdge();
  drawTiles(data);
  verifiers.update(data.verifiers);
  edges.update();
  scatter.update([...edges.edges.values()], edges.selected);
  drawDetail();
  drawConnection();
  refreshCharts();
}

function chooseEdge() {
  const known = edges.edges.get(edges.selected);
  // Before anything is measured nobody is the busiest: the choice is made again then.
  if (known !== undefined && (view.isChosen || known.tokens_per_s !== null)) return;
  const wanted = decodeURIComponent(location.hash.slice(1));
  if (edges.edges.has(wanted)) return select(wanted);
  let busiest = null;
  for (const edge of edges.edges.values()) {
    if (edge.state === "online" && (busiest === null || (edge.tokens_per_s ?? 0) > (busiest.tokens_per_s ?? 0))) busiest = edge;
  }
  select((busiest ?? edges.edges.values().next().value)?.id ?? null, { isChosen: false });
}

function select(id, { isChosen = true } = {}) {
  if (edges.selected === id && !isChosen) return;
  edges.selected = id;
  view.isChosen = isChosen;
  if (isChosen && id !== null) history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  if (isChosen) setText(byId("pin-note"), "");
  view.chartsDueAt = 0;
  edges.draw();
  scatter.update([...edges.edges.values()], id);
  drawDetail();
  refreshCharts();
}

function drawTiles({ totals, orchestrator }) {
  setText(byId("tile-online"), whole(totals.num_online));
  setText(byId("tile-online-of"), ` of ${whole(totals.num_edges)}`);
  setText(byId("tile-verifiers"), whole(totals.num_verifiers_online));
  setText(byId("tile-sessions"), ` ${plural(totals.num_sessions, "session")} of ${whole(totals.max_sessions)}`);
  setBar(byId("load-sessions"), totals.max_sessions > 0 ? totals.num_sessions / totals.max_sessions : 0);
  setText(byId("tile-tokens"), amount(totals.tokens_per_s));
  setText(byId("tile-acceptance"), percent(totals.acceptance_probability));
  setText(byId("tile-waste"), percent(totals.waste));
  setText(byId("tile-latency"), milliseconds(orchestrator.decision_latency_median_s));
  setText(byId("tile-latency-p99"), orchestrator.decision_latency_p99_s === null ? "" : ` p99 ${milliseconds(orchestrator.decision_latency_p99_s)}`);
  setText(byId("tile-decisions"), `${plural(orchestrator.num_published, "policy", "policies")} sent`);
  const spark = (id, key) => sparkline(byId(id), view.trend.map((point) => point[key]));
  spark("spark-online", "num_online");
  spark("spark-tokens", "tokens_per_s");
  spark("spark-acceptance", "acceptance_probability");
  spark("spark-waste", "waste");
}

function drawDetail() {
  const edge = edges.edges.get(edges.selected);
  byId("pin-form").hidden = edge === undefined;
  if (edge === undefined) {
    setText(byId("detail-title"), "No edge yet");
    setText(byId("detail-state"), "");
    setText(byId("explanation"), "");
    return;
  }
  setText(byId("detail-title"), edge.id);
  setTitle(byId("detail-title"), edge.id);
  const at = edge.verifier ? ` on ${edge.verifier}` : "";
  const heard = edge.heard_at_s === null ? "not heard of yet" : `heard of ${ago(view.fleet.at_s - edge.heard_at_s)} ago`;
  setText(byId("detail-state"), edge.state === "online" ? `online${at}` : `${edge.state}, ${heard}`);
  byId("detail-state").className = `state ${edge.state}`;
  setText(byId("explanation"), edge.explanation || "Nothing has been decided for this edge yet; it follows its own settings.");
  const length = byId("pin-length");
  if (document.activeElement !== length) length.value = String(edge.pinned ?? edge.draft_length);
  byId("release").disabled = edge.pinned === null;
}

function drawConnection() {
  const live = byId("live-pill");
  const banner = byId("banner");
  const age = (Date.now() - view.heardAt) / 1000;
  document.body.classList.toggle("stale", !view.isLive && view.fleet !== null);
  live.className = `pill ${view.isLive ? "good" : "bad"}`;
  setText(live, view.isLive ? "live" : view.fleet === null ? "connecting" : "connection lost");
  const orchestrator = view.fleet?.orchestrator;
  if (orchestrator) {
    byId("broker-pill").hidden = false;
    byId("broker-pill").className = `pill ${orchestrator.is_connected ? "good" : "warn"}`;
    setText(byId("broker-pill"), orchestrator.is_connected ? `broker ${orchestrator.broker}` : "broker lost");
    byId("history-pill").hidden = false;
    setText(byId("history-pill"), `up ${ago(orchestrator.uptime_s)} \u00b7 history ${orchestrator.history}`);
  }
  let text = "";
  if (!view.isLive && view.fleet !== null) {
    text = `The connection to the orchestrator is lost. What you see is ${ago(age)} old. Edges go on with their last policy; trying again.`;
  } else if (!view.isLive && view.failed) {
    text = "The orchestrator does not answer. Trying again.";
  } else if (orchestrator && !orchestrator.is_connected) {
    text = `The orchestrator has lost its broker ${orchestrator.broker}. Edges go on with their last policy and their own control; figures here stand still until it is back.`;
  }
  banner.hidden = text === "";
  setText(banner, text);
}

async function refreshCharts() {
  const id = edges.selected;
  const now = Date.now();
  if (id === null || (now < view.chartsDueAt && view.chartsFor === id)) return;
  view.chartsDueAt = now + (view.range > 1800 ? 30000 : 5000);
  view.chartsFor = id;
  try {
    const answer = await request(`/api/edges/${encodeURIComponent(id)}/history?last_s=${view.range}`);
    if (id !== edges.selected || answer.last_s !== view.range) return;
    charts.show({ points: answer.points, decisions: answer.decisions, from: answer.now_s - view.range, to: answer.now_s });
  } catch (error) {
    if (!(error instanceof AskForKey)) view.chartsDueAt = now + 2000;
  }
}

function drawRanges() {
  byId("ranges").replaceChildren(...RANGES.map(([label, seconds]) => {
    const button = element("button", { text: label, attributes: { type: "button", "aria-pressed": String(seconds === view.range) } });
    button.addEventListener("click", () => {
      view.range = seconds;
      view.chartsDueAt = 0;
      drawRanges();
      refreshCharts();
    });
    return button;
  }));
}

async function order(path, body, done) {
  const note = byId("pin-note");
  try {
    await request(path, { method: "POST", body });
    setText(note, done);
  } catch (error) {
    setText(note, error instanceof AskForKey ? "The key is wrong." : `Not done: ${error.message}`);
  }
}

byId("pin-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const length = Number(byId("pin-length").value);
  byId("pin-length").blur();
  order(`/api/edges/${encodeURIComponent(edges.selected)}/pin`, { draft_length: length }, `Pinned to ${length}.`);
});
byId("release").addEventListener("click", () => {
  order(`/api/edges/${encodeURIComponent(edges.selected)}/release`, {}, "Released: it is planned again.");
});

function askKey() {
  const dialog = byId("key-dialog");
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => {
    byId("key-form").addEventListener("submit", () => {
      useKey(byId("key").value);
      byId("key").value = "";
      resolve();
    }, { once: true });
    dialog.addEventListener("cancel", (event) => event.preventDefault());
  });
}

drawRanges();
setInterval(drawConnection, 1000);
window.addEventListener("hashchange", () => select(decodeURIComponent(location.hash.slice(1))));
follow({
  onEvent,
  askKey,
  onState: (isLive) => {
    view.isLive = isLive;
    view.failed = !isLive;
    drawConnection();
  },
});
