// Profiles as they stand: state, what waits for them, how their runs went, their objectives.
import { ago, badge, el, link, show, svg, table, took } from "./dom.js";
import { store } from "./store.js";

const percent = (share) => (share === null ? "-"
  : `${(Math.round(share * 10000) / 100).toLocaleString(undefined, { maximumFractionDigits: Math.abs(share) > 2 ? 0 : 2 })}%`);

// What is left of an error budget.
function budget(left) {
  if (left === null) return "-";
  const part = Math.min(Math.max(left, 0), 1);
  return [svg("svg", { class: "meter", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "box", width: 100, height: 10 }),
    svg("rect", { class: `fill ${left > 0.25 ? "info" : left > 0 ? "warn" : "error"}`, width: 100 * part, height: 10 })),
    ` ${percent(left)}`];
}

export function profiles() {
  const node = el("div");
  function draw(changed) {
    if (!changed.has("all") && !changed.has("profiles")) return;
    const objectives = store.profiles.flatMap((one) => one.objectives.map((each) => ({ ...each, profile: one.name })));
    show(node, 
      el("h2", {}, "Profiles"),
      table([
        ["profile", (one) => [link(`#/runs/${encodeURIComponent(one.name)}`, one.name), one.kind !== "profile" && [" ", badge(one.kind)]], "nowrap"],
        ["state", (one) => badge(one.state)],
        ["health", (one) => [one.objectives.filter((each) => ["breached", "burning"].includes(each.verdict))
          .map((each) => [el("span", { class: "badge error" }, `${each.verdict} ${each.objective}`), " "]),
          one.asking > 0 && [link("#/approvals", `${one.asking} wait for an answer`), " "], one.verdict === one.state ? "" : badge(one.verdict), " ", one.detail,
          one.fix && [el("br"), el("code", {}, one.fix)]], "long"],
        ["lag", (one) => one.waiting.toLocaleString(), "number"],
        ["runs, 7 d", (one) => one.runs.toLocaleString(), "number"],
        ["succeeded", (one) => (one.succeeded + one.failed ? percent(one.succeeded / (one.succeeded + one.failed)) : "-"), "number"],
        ["failed", (one) => one.failed || "-", "number"],
        ["false positives", (one) => one.false_positives || "-", "number"],
        ["last run", (one) => ago(one.last), "nowrap"],
      ], store.profiles, "No profile: opsmesh profile enable --shipped shows what comes with opsmesh."),
      el("h3", {}, "Objectives"),
      table([
        ["profile", (one) => one.profile, "nowrap"], ["objective", (one) => one.objective],
        ["wanted", (one) => (one.within_ms === null ? percent(one.target) : `≤ ${took(one.within_ms)}`), "number"],
        ["measured", (one) => (one.within_ms === null ? percent(one.good) : took(one.value_ms)), "number"],
        ["runs", (one) => one.runs, "number"], ["bad", (one) => one.bad || "-", "number"],
        ["budget left", (one) => budget(one.budget_left), "nowrap"],
        ["burn, 1 h", (one) => (one.burn_rate_1h === null ? "-" : `${one.burn_rate_1h.toFixed(1)}×`), "number"],
        ["verdict", (one) => badge(one.verdict)],
      ], objectives, "No profile has objectives; one says so: slo: {success: 99%, latency_p99: 500ms}"));
  }
  return { node, draw };
}
