// Numbers as people read them. Every function takes null or undefined for what is not known and says so with a dash.

const UNKNOWN = "\u2013";

const isKnown = (value) => typeof value === "number" && Number.isFinite(value);

export function milliseconds(seconds) {
  if (!isKnown(seconds)) return UNKNOWN;
  const ms = seconds * 1000;
  if (ms === 0) return "0 ms";
  if (ms < 1) return `${(ms * 1000).toFixed(0)} \u00b5s`;
  if (ms >= 10000) return `${seconds.toFixed(1)} s`;
  return `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
}

// A gauge that is 0 until it is known.
export const gauge = (seconds) => (seconds > 0 ? milliseconds(seconds) : UNKNOWN);

export function percent(part) {
  if (!isKnown(part)) return UNKNOWN;
  const value = part * 100;
  return `${value > 0 && value < 9.95 ? value.toFixed(1) : value.toFixed(0)} %`;
}

export function amount(value) {
  if (!isKnown(value)) return UNKNOWN;
  if (value !== 0 && Math.abs(value) < 9.95) return value.toFixed(1);
  return Math.round(value).toLocaleString("en-US");
}

export function whole(value) {
  return isKnown(value) ? Math.round(value).toLocaleString("en-US") : UNKNOWN;
}

// A mean of whole numbers; the numbers themselves need no digits.
export const length = (value) => (Number.isInteger(value) ? whole(value) : amount(value));

export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
}

export function ago(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

export const plural = (number, one, many = `${one}s`) => `${whole(number)} ${number === 1 ? one : many}`;
