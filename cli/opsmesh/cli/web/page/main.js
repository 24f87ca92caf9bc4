// The page: which view is shown, the keys, and the line at the top.
import { badge, bars, el, shown } from "./dom.js";
import { enter, follow, onChange, store } from "./store.js";
import { notice } from "./notice.js";
import { approvals } from "./approvals.js";
import { backtest } from "./backtest.js";
import { bundle, bundles } from "./bundles.js";
import { events } from "./events.js";
import { latency } from "./latency.js";
import { letter, letters } from "./letters.js";
import { mesh } from "./mesh.js";
import { profiles } from "./profiles.js";
import { run, runs } from "./runs.js";
import { stories, story } from "./story.js";
import { timeline } from "./timeline.js";

// A view gets (argument) and returns {node, draw(changed names), names it draws for}.
const VIEWS = [
  ["events", "Events", events],
  ["timeline", "Timeline", timeline],
  ["story", "Story", (id) => (id ? story(id) : stories())],
  ["profiles", "Profiles", profiles],
  ["runs", "Runs", runs],
  ["latency", "Latency", latency],
  ["approvals", "Approvals", approvals, () => store.approvals.length],
  ["letters", "Dead letters", (seq) => (seq ? letter(seq) : letters()), () => store.letters_total],
  ["bundles", "Evidence", (id) => (id ? bundle(id) : bundles())],
  ["backtest", "Backtest", backtest],
  ["mesh", "Mesh", mesh, () => store.health?.problems.length],
];
const HIDDEN = { run: ["runs", run] };

const content = document.getElementById("content");
const views = document.getElementById("views");
let current = null;
let shownHash = null;

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // typed by hand, with a % in it
  }
}

function route() {
  const [, name, ...rest] = location.hash.split("/");
  const argument = decoded(rest.join("/"));
  const found = VIEWS.find(([one]) => one === name);
  const [tab, make] = found ? [name, found[2]] : HIDDEN[name] ?? ["events", events];
  if (location.hash === shownHash) return;
  shownHash = location.hash;
  current?.gone?.();
  notice("");
  current = make(argument);
  content.replaceChildren(current.node);
  content.scrollTop = 0;
  for (const anchor of views.children) {
    if (anchor.dataset.view === tab) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  views.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  document.title = `${VIEWS.find(([one]) => one === tab)[1]} · opsmesh`;
  current.draw?.(new Set(["all"]));
}

function menu() {
  views.replaceChildren(...VIEWS.map(([name, title], n) =>
    el("a", { href: `#/${name}`, "data-view": name, title: n < 9 ? `key ${n + 1}` : null }, title)));
}

function counts() {
  VIEWS.forEach(([, title, , count], n) => {
    const found = count?.();
    views.children[n].replaceChildren(title);
    if (found) views.children[n].append(el("span", { class: "count" }, found));
  });
}

function top(changed) {
  if (changed.has("health")) {
    const health = store.health;
    const word = health.connected ? health.verdict || "…" : health.verdict === "down" ? "down" : "no broker";
    const verdict = document.getElementById("verdict");
    verdict.className = `badge ${badge(word === "no broker" ? "down" : word).className.split(" ")[1]}`;
    verdict.textContent = word;
    verdict.title = health.problems.map((one) => one.what).join("\n") || "nothing is wrong";
    document.getElementById("of").textContent = shown(health.of);
  }
  if (changed.has("rates")) {
    const speed = store.rates.slice(-5).reduce((sum, one) => sum + one, 0) / 5;
    document.getElementById("rate").replaceChildren(
      bars(store.rates, `events in each of the last ${store.rates.length} seconds`));
    document.getElementById("speed").textContent = `${speed < 10 ? speed.toFixed(1) : Math.round(speed).toLocaleString()}/s`;
  }
  if (changed.has("line")) document.getElementById("line").textContent = store.line === "live" ? "" : store.line;
  if (["health", "approvals", "letters_total"].some((one) => changed.has(one))) counts();
}

function turn(by) {
  const at = [...views.children].findIndex((one) => one.hasAttribute("aria-current"));
  location.hash = views.children[(at + by + VIEWS.length) % VIEWS.length].hash;
}

const KEYS = [
  ["1 … 9", "the first nine views"], ["[ ]", "the view before, the next one"], ["/", "to the filter"], ["j k ↑ ↓", "along a list"],
  ["Enter", "open what is chosen"], ["p", "events: hold still, go on"], ["Esc", "back, or close"],
  ["?", "this"],
];

function help() {
  const box = document.getElementById("help");
  if (box.open) return box.close();
  box.replaceChildren(el("h2", {}, "Keys"),
    el("dl", {}, KEYS.map(([key, what]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)])),
    el("p", { class: "quiet" }, "What is written by hand goes on record as “via web”, in the name of ",
      "the user who runs opsmesh web."),
    el("button", { type: "button", class: "main", onclick: () => box.close() }, "Close"));
  box.showModal();
}

function key(event) {
  if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey ||
    document.getElementById("help").open) return;
  const typing = event.target.matches("input, textarea, select");
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    else if (location.hash.split("/").length > 2) history.back();
    return;
  }
  if (typing) return;
  if (event.key === "?") help();
  else if (event.key === "/") content.querySelector("input[type=search]")?.focus();
  else if (/^[1-9]$/.test(event.key)) location.hash = `#/${VIEWS[event.key - 1][0]}`;
  else if (event.key === "[" || event.key === "]") turn(event.key === "]" ? 1 : -1);
  else if (!current?.key?.(event)) return;
  event.preventDefault();
}

async function start() {
  menu();
  // a pasted address changes the fragment alone
  addEventListener("hashchange", () => { if (location.hash.startsWith("#token=")) location.reload(); });
  document.getElementById("help-button").addEventListener("click", help);
  // the fragment is the view's: this link moves the focus alone
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    content.focus();
  });
  try {
    await enter();
    addEventListener("hashchange", route);
    addEventListener("keydown", key);
    onChange((changed) => {
      top(changed);
      current?.draw?.(changed);
    });
    route();
    await follow();
  } catch (error) {
    if (error.status !== 401) throw error;
    current = null;
    content.replaceChildren(el("h2", {}, "This browser may not look yet"),
      el("p", {}, `${error.message}. Open the address that `, el("code", {}, "opsmesh web"),
        " printed: the token is the part behind the #. It is good for one start of the server."));
  }
}

addEventListener("unhandledrejection", (event) => notice(event.reason));
start();
