// How the mesh is: what is wrong and what mends it, processes, hosts, and who was heard.
import { ago, badge, el, facts, show, table } from "./dom.js";
import { store } from "./store.js";

const wrong = (one, how) => el("div", { class: `card ${how}` }, one.what, el("br"), el("code", {}, one.fix));
const heard = (title, found, empty) => [el("h3", {}, title), table([
  ["name", (one) => one.name, "nowrap"], ["last event", (one) => one.topic],
  ["when", (one) => ago(one.last), "nowrap"], ["events seen", (one) => one.count.toLocaleString(), "number"],
], [...found].sort((a, b) => b.last - a.last), empty)];

export function mesh() {
  const node = el("div");
  function draw(changed) {
    if (!["all", "health", "producers", "hosts"].some((one) => changed.has(one)) || !store.health) return;
    const health = store.health;
    show(node, [
      el("h2", {}, "The mesh is ", badge(health.connected || health.verdict === "down" ? health.verdict || "…" : "no broker")),
      health.problems.length || health.notes.length
        ? el("div", { class: "cards wide" }, health.problems.map((one) => wrong(one, "lost")), health.notes.map((one) => wrong(one, "noted")))
        : el("p", { class: "quiet" }, "Nothing is wrong."),
      el("h3", {}, "Processes"), table([
        ["name", (one) => one.name, "nowrap"], ["state", (one) => badge(one.state)],
        ["pid", (one) => one.pid ?? "-", "number"], ["restarts", (one) => one.restarts ?? 0, "number"],
        ["last exit, or what it waits for", (one) => one.last_exit || "-", "long"],
        ["log", (one) => (one.state === "waiting" ? "-" : el("code", {}, one.log || one.unit || "-")), "nowrap"],
      ], [...health.components].sort((a, b) => (a.state === "waiting") - (b.state === "waiting")), "None runs here."),
      health.facts.length > 0 && facts(health.facts),
      heard("Producers", store.producers, "No event yet."), heard("Hosts", store.hosts, "No event yet."),
      el("h3", {}, "Streams"), table([["stream", (one) => one[0]], ["messages", (one) => (one[1].messages ?? 0).toLocaleString(), "number"],
        ["last sequence", (one) => (one[1].last_seq ?? 0).toLocaleString(), "number"]], Object.entries(health.streams), "none is known"),
    ]);
  }
  return { node, draw };
}
