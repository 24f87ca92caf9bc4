// What profiles did, and each step of a run.
import { badge, clock, el, facts, json, kind, link, runLink, show, storyLink, table, took } from "./dom.js";
import { get, store } from "./store.js";

export function runs(profile) {
  const list = el("div");
  const search = el("input", { type: "search", class: "grow", value: profile, "aria-label": "Filter",
    placeholder: "profile, topic or state", oninput: () => draw(new Set(["all"])) });
  const node = el("div", {}, el("div", { class: "bar" }, search), list);
  function draw(changed) {
    if (!changed.has("all") && !changed.has("runs")) return;
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [...store.runs.values()].reverse().filter((one) =>
      words.every((word) => `${one.profile} ${one.topic} ${one.state} ${one.host}`.toLowerCase().includes(word)));
    show(list, table([
      ["time", (one) => runLink(one.id, clock(one.updated)), "time"],
      ["state", (one) => badge(one.state)],
      ["profile", (one) => one.profile, "nowrap"],
      ["event", (one) => storyLink(one.event, one.topic), "nowrap"],
      ["steps", (one) => one.steps.map((step) => el("span", { class: kind(step.state),
        title: `${step.id}: ${step.state}` }, step.state === "done" ? "✓" : step.state === "failed" ? "✗" : "·")), "nowrap"],
      ["attempt", (one) => one.attempt || "-", "number"],
      ["took", (one) => took(one.took_ms), "number"],
      ["reason", (one) => one.reason.slice(0, 160), "long"],
    ], found.slice(0, 200), "No run of the last day is like this."));
  }
  return { node, draw };
}

const FACTS = [["run_id", "run"], ["profile_hash", "definition"], ["host", "host"], ["trigger", "trigger"],
  ["reason", "reason"], ["evidence_path", "evidence"]];

function step(one) {
  const asked = (one.asked ?? []).at(-1);
  return el("div", { class: "card" }, el("h2", {}, one.id, badge(one.state)),
    facts([["action", one.action], ["began", one.started && clock(Date.parse(one.started))],
      ["took", one.duration_ms == null ? "" : took(one.duration_ms)], ["exit code", one.exit_code],
      ["bundle", typeof one.output?.bundle === "string" && link(`#/bundles/${encodeURIComponent(one.output.bundle)}`, one.output.bundle.slice(0, 12))],
      ["asks", asked?.prompt],
      ["answered", asked?.reply && `${asked.reply.verdict} by ${asked.reply.by} via ${asked.reply.via} ${asked.reply.comment ?? ""}`]]),
    one.error && el("pre", {}, one.error),
    one.output && Object.keys(one.output).length > 0 && el("details", {}, el("summary", {}, "output"), json(one.output)));
}

export function run(id) {
  const node = el("div", {}, el("p", { class: "quiet" }, "…"));
  let known = null;
  const read = () => get(`/api/runs/${encodeURIComponent(id)}`).then((found) => {
    show(node, 
      el("div", { class: "bar" }, el("h2", {}, found.profile), badge(found.state ?? "queued"),
        found.state === "waiting" && link("#/approvals", "answer it")),
      facts([["event", storyLink(found.event_id, `${found.topic} ${found.event_id}`)],
        ["began", found.created && clock(Date.parse(found.created))], ["last change", found.updated && clock(Date.parse(found.updated))],
        ...FACTS.map(([name, title]) => [title, found[name]]),
        ["dead letter", found.dlq_seq && link(`#/letters/${found.dlq_seq}`, found.dlq_seq)]]),
      ...(found.errors ?? []).map((one) => el("pre", {}, `attempt ${one.attempt}, ${one.step}: ${one.error}`)),
      el("h3", {}, "Steps"), el("div", { class: "cards" }, (found.steps ?? []).map(step)));
  }).catch((error) => show(node, el("p", { class: "error" }, error.message),
    el("p", { class: "quiet" }, error.hint)));
  return { node, draw(changed) {
    const now = store.runs.get(id);
    if (!changed.has("all") && (!changed.has("runs") || now === known)) return;
    known = now;
    read();
  } };
}
