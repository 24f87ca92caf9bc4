// When what happened, a lane for each tool of each host: a mark is all that happened in its slice.
import { clock, el, kind, shown, svg } from "./dom.js";
import { filterEvents } from "./events.js";
import { store } from "./store.js";

const SPANS = [["5 minutes", 300e3], ["1 hour", 3600e3], ["6 hours", 6 * 3600e3], ["1 day", 86400e3],
  ["all that is here", 0]];
const WORSE = ["info", "warn", "error", "critical"];
const LANES = 60, HIGH = 24;
let span = 0;

export function timeline() {
  const picture = el("div", { class: "picture" });
  const told = el("span", { class: "quiet" });
  const select = el("select", { "aria-label": "How far back", onchange: () => {
    span = Number(select.value);
    paint();
  } }, SPANS.map(([name, ms]) => el("option", { value: ms, selected: ms === span }, name)));

  // One mark is a stop of the tab key; arrows go along its lane, and to the lanes beside.
  function along(event) {
    const lane = Number(event.target.dataset.lane);
    const x = Number(event.target.getAttribute("x"));
    const cells = [...picture.querySelectorAll(".cell")];
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const down = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const far = (one) => Math.abs(Number(one.getAttribute("x")) - x);
    let to = null;
    if (by) to = cells[cells.indexOf(event.target) + by];
    else if (down) to = cells.filter((one) => Number(one.dataset.lane) === lane + down).sort((a, b) => far(a) - far(b))[0];
    else return;
    event.preventDefault();
    if (!to) return;
    event.target.setAttribute("tabindex", -1);
    to.setAttribute("tabindex", 0);
    to.focus();
  }

  function paint() {
    const now = Date.now();
    const begin = span ? now - span : store.events[0]?.at ?? now - 60e3;
    const wide = Math.max(picture.clientWidth - 4, 340);
    const left = wide < 600 ? 118 : 190, most = wide < 600 ? 16 : 27;
    const slices = Math.floor((wide - left - 10) / 9);
    const lanes = new Map();
    for (const one of store.events) {
      if (one.at < begin || one.error) continue;
      const name = `${one.host}\u0001${one.source}`;
      if (!lanes.has(name)) lanes.set(name, new Map());
      const n = Math.min(Math.floor((one.at - begin) / (now - begin || 1) * slices), slices - 1);
      const cell = lanes.get(name).get(n) ?? { count: 0, worst: 0, topics: new Map() };
      cell.count++;
      cell.worst = Math.max(cell.worst, WORSE.indexOf(one.severity));
      if (cell.topics.size < 6) cell.topics.set(one.topic, (cell.topics.get(one.topic) ?? 0) + 1);
      lanes.get(name).set(n, cell);
    }
    const names = [...lanes.keys()].sort().slice(0, LANES);
    const parts = [];
    names.forEach((name, y) => {
      const [host, source] = name.split("\u0001");
      const top = 24 + y * HIGH;
      if (!y || names[y - 1].split("\u0001")[0] !== host)
        parts.push(svg("line", { class: "grid", x1: 0, x2: wide, y1: top - 2, y2: top - 2 }));
      const label = `${host}/${source}`;
      parts.push(svg("text", { x: 8, y: top + 15 }, label.length > most ? label.slice(0, most - 1) + "…" : label, svg("title", {}, label)));
      for (const [n, cell] of [...lanes.get(name)].sort(([a], [b]) => a - b)) {
        const at = begin + (n + 0.5) * (now - begin) / slices;
        const size = Math.min(6 + 3 * Math.log2(cell.count + 1), HIGH - 4);
        const words = `${clock(at)} ${label}: ${[...cell.topics].map(([topic, count]) => `${count} × ${topic}`).join(", ")}`;
        const open = () => filterEvents(`host:${host} source:${source}`);
        parts.push(svg("rect", { class: `cell ${kind(WORSE[cell.worst])}`, x: left + n * 9, width: 8,
          y: top + (HIGH - 4 - size) / 2, height: size, rx: 2, tabindex: -1, role: "button",
          "data-lane": y, "aria-label": shown(words), onclick: open,
          onkeydown: (event) => { if (event.key === "Enter") open(); else along(event); } }, svg("title", {}, words)));
      }
    });
    const times = wide < 600 ? 2 : 4;
    for (let n = 0; n <= times; n++)
      parts.push(svg("text", { class: "small", x: left + n * (wide - left - 10) / times, y: 14,
        "text-anchor": n === times ? "end" : n ? "middle" : "start" },
        clock(begin + n * (now - begin) / times).replace(/\.\d+$/, "")));
    const more = lanes.size - names.length;
    told.textContent = `${names.length} lanes${more > 0 ? `, ${more} more are not drawn` : ""}; a mark opens its lane's events`;
    if (picture.contains(document.activeElement)) return; // who goes along it is not disturbed
    picture.replaceChildren(names.length
      ? svg("svg", { width: wide, height: 34 + names.length * HIGH, role: "group", "aria-label": "Timeline" }, parts)
      : el("p", { class: "empty" }, "No event in this time."));
    picture.querySelector(".cell")?.setAttribute("tabindex", 0);
  }

  let last = 0;
  const node = el("div", { class: "view" }, el("div", { class: "bar" }, select,
    WORSE.map((one) => el("span", { class: `key ${one}` }, one)), told), picture);
  return { node, draw(changed) {
    if (!changed.has("all") && (!changed.has("events") || Date.now() - last < 1000)) return;
    last = Date.now();
    paint();
  } };
}
