// When what happened, a lane for each tool of each host: a mark is all that happened in its slice.
import { clock, el, kind, shown, svg } from "./dom.js";
import { filterEvents } from "./events.js";
import { store } from "./store.js";

const SPANS = [["5 minutes", 300e3], ["1 hour", 3600e3], ["6 hours", 6 * 3600e3], ["1 day", 86400e3],
  ["all that is here", 0]];
const WORSE = ["info", "warn", "error", "critical"];
const LANES = 60, LEFT = 190, HIGH = 24;
let span = 0;

export function timeline() {
  const picture = el("div", { class: "picture" });
  const told = el("span", { class: "quiet" });
  const select = el("select", { "aria-label": "How far back", onchange: () => {
    span = Number(select.value);
    paint();
  } }, SPANS.map(([name, ms]) => el("option", { value: ms, selected: ms === span }, name)));

  function paint() {
    const now = Date.now();
    const begin = span ? now - span : store.events[0]?.at ?? now - 60e3;
    const wide = Math.max(picture.clientWidth - 4, 520);
    const slices = Math.floor((wide - LEFT - 10) / 9);
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
      parts.push(svg("text", { x: 8, y: top + 15 }, label.length > 27 ? label.slice(0, 26) + "…" : label));
      for (const [n, cell] of lanes.get(name)) {
        const at = begin + (n + 0.5) * (now - begin) / slices;
        const size = Math.min(6 + 3 * Math.log2(cell.count + 1), HIGH - 4);
        const words = `${clock(at)} ${label}: ${[...cell.topics].map(([topic, count]) => `${count} × ${topic}`).join(", ")}`;
        const open = () => filterEvents(`host:${host} source:${source}`);
        parts.push(svg("rect", { class: `cell ${kind(WORSE[cell.worst])}`, x: LEFT + n * 9, width: 8,
          y: top + (HIGH - 4 - size) / 2, height: size, rx: 2, tabindex: 0, role: "button",
          "aria-label": shown(words), onclick: open,
          onkeydown: (event) => { if (event.key === "Enter") open(); } }, svg("title", {}, words)));
      }
    });
    for (let n = 0; n <= 4; n++)
      parts.push(svg("text", { class: "small", x: LEFT + n * (wide - LEFT - 10) / 4, y: 14,
        "text-anchor": n === 4 ? "end" : n ? "middle" : "start" },
        clock(begin + n * (now - begin) / 4).replace(/\.\d+$/, "")));
    const more = lanes.size - names.length;
    told.textContent = `${names.length} lanes${more > 0 ? `, ${more} more are not drawn` : ""}; a mark opens its lane's events`;
    if (picture.contains(document.activeElement)) return; // who goes along it is not disturbed
    picture.replaceChildren(names.length
      ? svg("svg", { width: wide, height: 34 + names.length * HIGH, role: "group", "aria-label": "Timeline" }, parts)
      : el("p", { class: "empty" }, "No event in this time."));
  }

  let last = 0;
  const node = el("div", { class: "view" }, el("div", { class: "bar" }, select, told), picture);
  return { node, draw(changed) {
    if (!changed.has("all") && (!changed.has("events") || Date.now() - last < 1000)) return;
    last = Date.now();
    paint();
  } };
}
