// How long it takes: from an event to the first step, and a run as a whole, by profile.
import { el, svg, took } from "./dom.js";
import { store } from "./store.js";

// Limits of the bars, in milliseconds: 1, 2, 5, 10, …
const LIMITS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 10e3, 20e3, 60e3, Infinity];
const name = (limit) => (limit === Infinity ? "more" : limit < 1000 ? String(limit) : `${limit / 1000}s`);

const at = (sorted, share) => sorted[Math.min(Math.floor(share * sorted.length), sorted.length - 1)];

function histogram(values, label, what = "runs") {
  const counts = LIMITS.map((limit, n) => values.filter((one) => one <= limit && one > (LIMITS[n - 1] ?? -1)).length);
  const most = Math.max(...counts, 1);
  const sorted = [...values].sort((a, b) => a - b);
  const words = values.length
    ? `${values.length} ${what}; half within ${took(at(sorted, 0.5))}, 95% within ${took(at(sorted, 0.95))}, the slowest ${took(sorted.at(-1))}`
    : "none that tells";
  return el("figure", { class: "card" }, el("figcaption", {}, el("strong", {}, label), el("br"),
    el("span", { class: "quiet" }, words)),
    svg("svg", { viewBox: "0 0 480 150", role: "img", "aria-label": `${label}: ${words}` },
      svg("line", { class: "grid", x1: 0, x2: 480, y1: 128, y2: 128 }),
      counts.map((count, n) => {
        const high = count ? Math.max(100 * count / most, 2) : 0;
        return [svg("rect", { class: "fill", x: n * 30 + 2, width: 26, y: 128 - high, height: high },
          svg("title", {}, `${count} ${what} within ${name(LIMITS[n])}`)),
          count > 0 && svg("text", { class: "small", x: n * 30 + 15, y: 122 - high, "text-anchor": "middle" }, count),
          svg("text", { class: "small", x: n * 30 + 15, y: 144, "text-anchor": "middle" }, name(LIMITS[n]))];
      })));
}

export function latency() {
  let wanted = "";
  const select = el("select", { "aria-label": "Profile", onchange: () => {
    wanted = select.value;
    draw(new Set(["all"]));
  } });
  const charts = el("div", { class: "cards wide" });
  function draw(changed) {
    if (!changed.has("all") && !changed.has("runs")) return;
    const all = [...store.runs.values()];
    const names = [...new Set(all.map((one) => one.profile))].sort();
    if (document.activeElement !== select)
      select.replaceChildren(...["", ...names].map((one) => el("option", { value: one, selected: one === wanted }, one || "all profiles")));
    const found = all.filter((one) => !wanted || one.profile === wanted);
    const numbers = (field) => found.map((one) => one[field]).filter((one) => one !== null);
    charts.replaceChildren(
      histogram(numbers("latency_ms"), "From the event to the first step"),
      histogram(numbers("took_ms"), "A run as a whole"),
      histogram(found.flatMap((one) => one.steps.map((step) => step.took_ms)).filter((one) => one !== null), "One step", "steps"));
  }
  return { node: el("div", {}, el("div", { class: "bar" }, select,
    el("span", { class: "quiet" }, "milliseconds, of the newest 500 runs of the last day")), charts), draw };
}
