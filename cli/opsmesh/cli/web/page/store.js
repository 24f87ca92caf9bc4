// What the page knows: events and runs within bounds, the rest as it was last sent.

export const MOST = 10000;
export const store = {
  events: [], dropped: 0, missed: 0, runs: new Map(), health: null, rates: [], profiles: [],
  approvals: [], letters: [], letters_total: 0, producers: [], hosts: [], line: "connecting",
};

const listeners = new Set();
let changed = new Set();
let drawing = false;

// Calls back at most once a frame, with the names of what has changed.
export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function touch(name) {
  changed.add(name);
  if (drawing) return;
  drawing = true;
  setTimeout(() => {
    drawing = false;
    const names = changed;
    changed = new Set();
    for (const listener of [...listeners]) listener(names);
  }, 50);
}

let key = null;

export class Failed extends Error {
  constructor(status, told) {
    super(told.error ?? `the server says ${status}`);
    this.status = status;
    this.hint = told.hint ?? "";
  }
}

async function request(path, body) {
  const how = { headers: { "x-opsmesh-key": key ?? "" } };
  if (body !== undefined) {
    how.method = "POST";
    how.headers["content-type"] = "application/json";
    how.body = JSON.stringify(body);
  }
  const reply = await fetch(path, how);
  if (!reply.ok) throw new Failed(reply.status, await reply.json().catch(() => ({})));
  return reply;
}

export const get = async (path) => (await request(path)).json();
export const post = async (path, body) => (await request(path, body)).json();

// The token stands in the fragment, once: it becomes a session, and goes from the address.
export async function enter() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given !== null) {
    history.replaceState(null, "", "/#/events");
    const told = await (await request("/api/session", { token: given })).json();
    localStorage.setItem("opsmesh-key", told.key);
  }
  key = localStorage.getItem("opsmesh-key");
  if (key === null) throw new Failed(401, { error: "this browser has no session" });
}

const take = {
  events(rows) {
    for (const row of rows) store.events.push(row);
    if (store.events.length > MOST + 500) {
      store.dropped += store.events.length - MOST;
      store.events.splice(0, store.events.length - MOST);
    }
  },
  missed(count) { store.missed += count; },
  runs(rows) {
    for (const row of rows) {
      store.runs.delete(row.id);
      store.runs.set(row.id, row);
    }
    for (const id of store.runs.keys()) {
      if (store.runs.size <= 500) break;
      store.runs.delete(id);
    }
  },
};

function frame(text) {
  let name = "";
  let data = "";
  for (const line of text.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data += line.slice(6);
  }
  if (!name) return;
  const value = JSON.parse(data);
  if (take[name]) take[name](value);
  else store[name] = value;
  touch(name);
}

async function listen() {
  const reply = await request("/api/live");
  store.events = [];
  store.runs = new Map();
  store.dropped = store.missed = 0;
  line("live");
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    frames.forEach(frame);
  }
}

function line(text) {
  store.line = text;
  touch("line");
}

// For ever. EventSource cannot send the key, so that this is done by hand.
export async function follow() {
  for (let wait = 500; ; wait = Math.min(wait * 2, 10000)) {
    try {
      await listen();
      wait = 500;
    } catch (error) {
      if (error.status === 401) throw error;
    }
    line("the server is away, trying again");
    await new Promise((then) => setTimeout(then, wait));
  }
}
