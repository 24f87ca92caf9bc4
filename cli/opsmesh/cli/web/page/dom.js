// Makes elements. The one rule: whatever came with an event is text, and never markup; the
// browser is told to refuse the other way (Trusted Types).

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : shown(child));
  }
  return node;
}

export const el = (tag, attributes, ...children) =>
  fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

// Takes the place of what was there.
export function show(node, ...children) {
  node.replaceChildren();
  return fill(node, {}, children);
}

// What turns a text around, or is not to be seen, is shown by its number.
export const shown = (text) =>
  String(text).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (one) => "\\u" + one.charCodeAt(0).toString(16).padStart(4, "0"));

const two = (n) => String(n).padStart(2, "0");

export function clock(ms) {
  if (!ms) return "-";
  const at = new Date(ms);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  if (Date.now() - ms < 12 * 3600e3) return `${time}.${String(at.getMilliseconds()).padStart(3, "0")}`;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

export function ago(ms) {
  if (!ms) return "never";
  const s = Math.max((Date.now() - ms) / 1000, 0);
  if (s < 90) return `${Math.round(s)} s ago`;
  if (s < 5400) return `${Math.round(s / 60)} min ago`;
  return s < 129600 ? `${Math.round(s / 3600)} h ago` : `${Math.round(s / 86400)} d ago`;
}

export function took(ms) {
  if (ms === null || ms === undefined) return "-";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 120e3 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60e3)} min`;
}

const KIND = {
  ok: "good", succeeded: "good", done: "good", running: "good", enabled: "good", intact: "good",
  degraded: "warn", burning: "warn", retrying: "warn", unknown: "warn", shadow: "warn",
  waiting: "wait", asked: "wait", queued: "wait", started: "wait", too_few: "quiet",
  down: "error", failed: "error", deadlettered: "error", failing: "error", breached: "error",
  skipped: "quiet", cancelled: "quiet", disabled: "quiet",
  info: "info", warn: "warn", error: "error", critical: "critical",
};
export const kind = (word) => KIND[word] ?? "quiet";
export const badge = (word) => el("span", { class: `badge ${kind(word)}` }, String(word).replace("_", " "));

// columns: [heading, row => content, class]
export function table(columns, rows, empty) {
  if (!rows.length) return el("p", { class: "empty" }, empty);
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "table" },
    el("table", {},
      el("thead", {}, el("tr", {}, columns.map(([name, , style]) =>
        el("th", { scope: "col", class: style }, name)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, columns.map(([, get, style]) =>
        el("td", { class: style }, get(row))))))));
}

export const facts = (pairs) => el("dl", {}, pairs
  .filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false)
  .map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));

export const json = (value) => el("pre", { tabindex: 0 }, JSON.stringify(value, null, 2));

export const link = (to, text) => el("a", { href: to }, text);
export const storyLink = (id, text) => link(`#/story/${encodeURIComponent(id)}`, text);
export const runLink = (id, text) => link(`#/run/${encodeURIComponent(id)}`, text ?? id.slice(0, 13));

// A line of numbers, as bars.
export function bars(values, label) {
  const most = Math.max(...values, 1);
  return svg("svg", { viewBox: `0 0 ${values.length} 20`, preserveAspectRatio: "none", role: "img",
    "aria-label": label },
    values.map((value, n) => value > 0 && svg("rect", { class: "fill", x: n, width: 0.85,
      y: 20 - Math.max(20 * value / most, 1), height: Math.max(20 * value / most, 1) })));
}
