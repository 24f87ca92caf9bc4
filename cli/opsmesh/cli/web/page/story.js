// The picture of a story: what led to what, from left to right. Arrow keys go along its lines.
import { badge, clock, el, facts, json, kind, link, runLink, show, shown, storyLink, svg, table, took }
  from "./dom.js";
import { get, store } from "./store.js";

const WIDE = 216, HIGH = 46, GAP_X = 30, GAP_Y = 12, STEP = 16;

const cut = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);

// Columns by distance from the beginning; a node stands beside the middle of what it led to.
export function layout(nodes) {
  const below = new Map(nodes.map((one) => [one.id, []]));
  const first = [];
  for (const one of nodes) (below.get(one.above) ?? first).push(one);
  let y = 10;
  // without recursion: a story may be as deep as it is long
  const order = [];
  const left = first.map((one) => [one, 0]).reverse();
  while (left.length) {
    const [one, depth] = left.pop();
    order.push(one);
    one.x = 10 + depth * (WIDE + GAP_X);
    one.high = HIGH + (one.kind === "run" ? Math.min(one.steps.length, 6) * STEP : 0);
    const next = below.get(one.id);
    if (!next.length) {
      one.y = y;
      y += one.high + GAP_Y;
    }
    for (const each of [...next].reverse()) left.push([each, depth + 1]);
  }
  for (const one of [...order].reverse()) {
    const next = below.get(one.id);
    if (!next.length) continue;
    const middle = (next[0].y + next.at(-1).y + next.at(-1).high) / 2;
    one.y = Math.max(middle - one.high / 2, next[0].y);
  }
  // a tall run beside few small events may reach below them
  const columns = new Map();
  let bottom = 0;
  for (const one of order) {
    const free = columns.get(one.x) ?? 0;
    one.y = Math.max(one.y, free);
    columns.set(one.x, one.y + one.high + GAP_Y);
    bottom = Math.max(bottom, one.y + one.high);
  }
  return { below, order, wide: Math.max(...nodes.map((one) => one.x), 0) + WIDE + 10, high: bottom + 10 };
}

function title(one) {
  return one.kind === "run" ? one.profile : one.event.topic;
}

function node(one, choose) {
  const state = one.kind === "run" ? one.state : one.event.severity;
  const second = one.kind === "run" ? `run ${one.state}, ${took(one.took_ms)}`
    : `${clock(one.at)}  ${one.event.host}/${one.event.source}`;
  const steps = one.kind === "run" ? one.steps.slice(0, 6) : [];
  return svg("g", { class: `node ${one.kind}`, tabindex: -1, role: "treeitem", "data-id": one.id,
    transform: `translate(${one.x} ${one.y})`,
    "aria-label": shown(`${one.kind} ${title(one)}, ${state}`), onclick: () => choose(one),
    onfocus: () => choose(one, false) },
    svg("rect", { class: "box", width: WIDE, height: one.high, rx: one.kind === "run" ? 10 : 4 }),
    svg("rect", { class: `stripe ${kind(state)}`, width: 5, height: one.high, rx: 2 }),
    svg("text", { x: 14, y: 18 }, `${one.kind === "run" ? "▸ " : ""}${cut(title(one), 30)}`),
    svg("text", { x: 14, y: 36, class: "small" }, cut(second, 35)),
    steps.map((step, n) => [
      svg("rect", { class: `stripe ${kind(step.state)}`, x: 16, y: HIGH + n * STEP - 2, width: 8, height: 8 }),
      svg("text", { x: 30, y: HIGH + 6 + n * STEP, class: "small" },
        cut(`${step.id} ${step.state} ${step.took_ms === null ? "" : took(step.took_ms)}`, 31))]));
}

function edge(from, to) {
  const [x1, y1] = [from.x + WIDE, from.y + from.high / 2];
  const [x2, y2] = [to.x, to.y + to.high / 2];
  const half = (x1 + x2) / 2;
  return svg("path", { class: "edge", d: `M${x1} ${y1}C${half} ${y1} ${half} ${y2} ${x2} ${y2}` });
}

function detail(one) {
  if (one.kind === "run") {
    return [el("h2", {}, one.profile, badge(one.state)),
      facts([["run", runLink(one.id, one.id)], ["why", one.why], ["began", clock(one.created)],
        ["took", took(one.took_ms)], ["attempt", one.attempt], ["host", one.host],
        ["reason", one.reason]]),
      one.steps.map((step) => el("p", {}, badge(step.state), ` ${step.id} (${step.action}) `,
        el("span", { class: "quiet" }, step.took_ms === null ? "" : took(step.took_ms)),
        step.error && el("pre", {}, step.error)))];
  }
  const event = one.event;
  return [el("h2", {}, event.topic, badge(event.severity)),
    facts([["stored", `${clock(one.at)}, sequence ${one.seq}${one.archived ? ", from the archive" : ""}`],
      ["host", event.host], ["source", `${event.source} ${event.component}`],
      ["workspace", event.workspace], ["caused by", event.causation_id && storyLink(event.causation_id, event.causation_id)],
      ["id", el("code", {}, event.id)]]),
    el("h3", {}, "Payload"), json(event.payload),
    el("p", { class: "quiet" }, "every profile's reasons: ", el("code", {}, `opsmesh why ${event.id}`))];
}

export function story(id) {
  const view = el("div", { class: "view" }, el("p", { class: "quiet" }, "reading the story …"));
  let keys = () => false;
  get(`/api/stories/${encodeURIComponent(id)}`).then((found) => {
    const { below, wide, high } = layout(found.nodes);
    const byId = new Map(found.nodes.map((one) => [one.id, one]));
    const side = el("div", { class: "card", "aria-live": "polite" });
    let chosen = null;
    const choose = (one, focus = true) => {
      if (chosen === one) return;
      chosen = one;
      for (const each of nodes) {
        const is = each.dataset.id === one.id;
        each.classList.toggle("chosen", is);
        each.setAttribute("tabindex", is ? 0 : -1);
        if (is && focus) each.focus();
      }
      show(side, detail(one));
    };
    const nodes = found.nodes.map((one) => node(one, choose));
    const edges = found.nodes.filter((one) => byId.has(one.above)).map((one) => edge(byId.get(one.above), one));
    const picture = el("div", { class: "picture" }, svg("svg", { width: wide, height: high,
      role: "tree", "aria-label": "What led to what" }, edges, nodes));
    keys = (event) => {
      const beside = below.get(chosen.above) ?? found.nodes.filter((one) => !byId.has(one.above));
      const at = beside.indexOf(chosen);
      const to = { ArrowRight: below.get(chosen.id)[0], ArrowLeft: byId.get(chosen.above),
        ArrowDown: beside[at + 1], ArrowUp: beside[at - 1] }[event.key];
      if (to) choose(to);
      return to !== undefined;
    };
    const runs = found.nodes.filter((one) => one.kind === "run").length;
    const body = el("div", { class: "side" }, picture, side);
    show(view,
      el("div", { class: "bar" }, el("h2", {}, `Story of ${found.nodes.length - runs} events, ${runs} runs`),
        el("code", { class: "quiet" }, found.correlation),
        found.more > 0 && el("span", { class: "warn" }, `and ${found.more} more: opsmesh trace`)),
      body);
    // what is wide and low stands above what is told of it
    const shape = () => body.classList.toggle("over", wide > view.clientWidth * 0.64 && high < view.clientHeight * 0.55);
    new ResizeObserver(shape).observe(view);
    const start = found.nodes.find((one) => one.id === id || one.id.startsWith(id)) ?? found.nodes[0];
    choose(start, false);
    picture.scrollTo(start.x - 20, start.y - 100);
  }).catch((error) => show(view, el("p", { class: "error" }, error.message),
    el("p", { class: "quiet" }, error.hint), el("p", {}, link("#/story", "stories of the last day"))));
  return { node: view, key: (event) => keys(event) };
}

// Without an id: one to type, and the newest runs, whose stories have something to tell.
export function stories() {
  const field = el("input", { type: "search", class: "grow", "aria-label": "Id",
    placeholder: "the id of an event, a run or a correlation, or its start" });
  const list = el("div");
  const node = el("div", {},
    el("form", { class: "bar", onsubmit: (event) => {
      event.preventDefault();
      if (field.value.trim()) location.hash = `#/story/${encodeURIComponent(field.value.trim())}`;
    } }, field, el("button", { class: "main" }, "Show")),
    el("h2", {}, "Stories that ended in a run"), list);
  return { node, draw(changed) {
    if (!changed.has("all") && !changed.has("runs")) return;
    const seen = new Set();
    const found = [...store.runs.values()].reverse().filter((one) => {
      if (seen.has(one.correlation)) return false;
      seen.add(one.correlation);
      return true;
    }).slice(0, 50);
    show(list, table([["time", (one) => clock(one.updated), "time"],
      ["began with", (one) => storyLink(one.event, one.topic), "nowrap"],
      ["ran", (one) => one.profile, "nowrap"], ["state", (one) => badge(one.state)],
      ["host", (one) => one.host]], found, "No run yet: a story is shown for any event, too; open one in Events."));
  } };
}
