// Events as they come, the newest at the top.
import { clock, el, kind } from "./dom.js";
import { matcher } from "./filter.js";
import { List } from "./list.js";
import { store } from "./store.js";

const SEVERITIES = ["info", "warn", "error", "critical"];
let text = "";
let least = "info";

export function filterEvents(wanted) {
  text = wanted;
  least = "info";
  location.hash = "#/events";
}

export function row(one) {
  return [el("span", { class: "time" }, clock(one.at).slice(-12)),
    el("span", { class: `sev ${kind(one.severity)}` }, one.severity),
    el("span", { class: "topic" }, one.topic),
    el("span", { class: "from" }, one.error ? "" : `${one.host}/${one.source}`),
    el("span", { class: "gist" }, one.error ?? one.gist)];
}

export function events() {
  let held = null;
  const list = new List({ label: "Events, the newest first", draw: row, id: (one) => one.seq,
    empty: () => (store.events.length ? "No event is like this; Esc, and another filter."
      : "No event yet. A first one: opsmesh exec -- ls /nowhere"),
    open: (one) => { if (one.id) location.hash = `#/story/${encodeURIComponent(one.id)}`; } });
  const told = el("span", { class: "quiet", role: "status" });
  const search = el("input", { type: "search", class: "grow", value: text, "aria-label": "Filter",
    placeholder: "words, topic:python.* host:laptop -source:ruff", spellcheck: "false",
    oninput: () => { text = search.value; draw(); } });
  const severity = el("select", { "aria-label": "Severity at least",
    onchange: () => { least = severity.value; draw(); } },
    SEVERITIES.map((one) => el("option", { value: one, selected: one === least },
      one === "info" ? "all severities" : `${one} and worse`)));
  const pause = el("button", { type: "button", "aria-pressed": "false", onclick: hold }, "Hold");

  function hold() {
    held = held ? null : [...store.events];
    pause.setAttribute("aria-pressed", held ? "true" : "false");
    pause.textContent = held ? "Go on" : "Hold";
    draw();
  }

  function draw(changed) {
    if (changed && !changed.has("all") && (held || !changed.has("events"))) return;
    const all = held ?? store.events;
    const wanted = matcher(text);
    const from = SEVERITIES.indexOf(least);
    const found = [];
    for (let n = all.length - 1; n >= 0; n--) {
      const one = all[n];
      if ((from === 0 || SEVERITIES.indexOf(one.severity) >= from) && wanted(one)) found.push(one);
    }
    list.set(found);
    const some = found.length === all.length ? "" : ` of ${all.length.toLocaleString()}`;
    told.textContent = `${found.length.toLocaleString()}${some} events${held ? ", held" : ""}` +
      (store.missed ? `, ${store.missed.toLocaleString()} came too fast to show` : "");
  }

  const node = el("div", { class: "view" },
    el("div", { class: "bar" }, search, severity, pause, told), list.node);
  return { node, draw, gone: () => list.sizes.disconnect(),
    key: (event) => {
      if (event.key === "p") hold();
      else if (["j", "k", "ArrowDown", "ArrowUp"].includes(event.key)) {
        list.node.focus();
        list.key(event);
      } else return false;
      return true;
    } };
}
