// The way to the orchestrator: requests with the API key if one is asked for, and the stream of events, which is
// read with fetch because EventSource cannot send a key. The stream says something every second; silence means that it is lost.

const KEY = "paceline-api-key";
const SILENCE_MS = 6000;
const RETRY_MS = [500, 1000, 2000, 4000, 5000];

export class AskForKey extends Error {}

export async function request(path, { method = "GET", body } = {}) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method,
    headers,
    cache: "no-store",
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: AbortSignal.timeout(10000),
  });
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401) throw new AskForKey();
  if (!response.ok) throw new Error(answer.error ?? `status ${response.status}`);
  return answer;
}

export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

// Calls onEvent(kind, data) for every event and onState(isLive, needsKey) when that changes. Tries again for ever.
export async function follow({ onEvent, onState, askKey }) {
  for (let failures = 0; ; ) {
    try {
      await readStream((kind, data) => {
        failures = 0;
        onState(true);
        onEvent(kind, data);
      });
    } catch (error) {
      if (error instanceof AskForKey) {
        await askKey();
        continue;
      }
    }
    onState(false);
    await new Promise((wake) => setTimeout(wake, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]));
  }
}

async function readStream(onEvent) {
  const stop = new AbortController();
  let timer = setTimeout(() => stop.abort(), SILENCE_MS);
  const headers = { Accept: "text/event-stream" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  try {
    const response = await fetch("/api/events", { headers, signal: stop.signal, cache: "no-store" });
    if (response.status === 401) throw new AskForKey();
    if (!response.ok) throw new Error(`status ${response.status}`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => stop.abort(), SILENCE_MS);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) dispatch(block, onEvent);
    }
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
}

function dispatch(block, onEvent) {
  let kind = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) kind = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  if (data.length > 0) onEvent(kind, JSON.parse(data.join("\n")));
}
