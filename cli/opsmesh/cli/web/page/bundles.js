// Evidence bundles: what profiles have collected, and the report of each.
import { clock, el, facts, link, runLink, show, table } from "./dom.js";
import { get } from "./store.js";

const size = (bytes) => (bytes == null ? "-" : bytes < 10240 ? `${bytes} B` : `${Math.round(bytes / 1024).toLocaleString()} KiB`);
const wrong = (node) => (error) => show(node, el("p", { class: "error" }, error.message), el("p", { class: "quiet" }, error.hint));

export function bundles() {
  const node = el("div", {}, el("p", { class: "quiet" }, "…"));
  get("/api/bundles").then((found) => show(node, el("h2", {}, "Evidence bundles"), table([
    ["time", (one) => clock(Date.parse(one.created_utc)), "time"],
    ["bundle", (one) => link(`#/bundles/${encodeURIComponent(one.bundle)}`, one.bundle.slice(0, 12)), "nowrap"],
    ["profile", (one) => one.profile ?? "-", "nowrap"], ["topic", (one) => one.topic ?? "-"],
    ["host", (one) => one.host ?? "-"], ["where", (one) => one.where],
    ["size", (one) => size(one.bytes), "number"], ["errors", (one) => one.errors || "-", "number"],
  ], found, "No bundle yet: the action collect writes them, and so do the shipped profiles."))).catch(wrong(node));
  return { node };
}

export function bundle(id) {
  const node = el("div", {}, el("p", { class: "quiet" }, "…"));
  get(`/api/bundles/${encodeURIComponent(id)}`).then((found) => show(node, 
    el("h2", {}, `Bundle ${found.bundle.slice(0, 12)}`),
    facts([["profile", found.profile], ["topic", found.topic], ["run", found.run_id && runLink(found.run_id, found.run_id)],
      ["host", found.host], ["made", clock(Date.parse(found.created_utc))], ["folder", found.folder && el("code", {}, found.folder)]]),
    el("h3", {}, "Report"), found.report ? el("pre", { tabindex: 0 }, found.report) : el("p", { class: "empty" }, "It has none."),
    el("h3", {}, "Files"), table([
      ["file", (one) => one.name, "nowrap"], ["size", (one) => size(one.size), "number"],
      ["what is missing", (one) => one.error ?? "", "long"], ["SHA-256", (one) => el("code", {}, (one.sha256 ?? "-").slice(0, 16))],
    ], found.manifest.files ?? [], "No file."),
    el("p", { class: "quiet" }, "a file: ", el("code", {}, `opsmesh evidence bundle show ${found.bundle.slice(0, 12)} --file NAME`))))
    .catch(wrong(node));
  return { node };
}
