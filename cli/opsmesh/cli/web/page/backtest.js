// A profile's text against the past, beside the one in force. Nothing is run.
import { badge, clock, el, show, storyLink, table } from "./dom.js";
import { deed } from "./notice.js";
import { post } from "./store.js";

const EXAMPLE = `version: 1
profiles:
  tell-me:
    on: [python.test.failed, service.start.failed]
    where: event.severity == "error"
    actions:
      - command: [notify-send, "\${{ event.topic }}"]
`;
let text = EXAMPLE;

const OTHER = { none: "did not look", fire: "fires" };
const words = (name, told) => `${name}: ${told.clause}${told.reason ? `, ${told.reason}` : ""}`;

function firing(one) {
  const [fires, other] = one.kind === "gained" ? ["now", "before"] : ["before", "now"];
  return el("div", { class: `firing ${one.kind}` }, el("strong", {}, one.topic), " ",
    el("span", { class: "quiet" }, clock(Date.parse(one.time))), " ", storyLink(one.event_id, "story"),
    el("div", {}, words(`${fires} fires`, one.fired)),
    el("div", { class: "quiet" }, words(`${other} ${OTHER[one.other.outcome] ?? one.other.outcome ?? "nothing"}`, one.other)));
}

function change(one) {
  const side = (kind, heading, count) => {
    const found = one.differences.filter((each) => each.kind === kind);
    return el("section", {}, el("h3", {}, `${heading}: ${count.toLocaleString()}`), found.map(firing),
      found.length < count && el("p", { class: "quiet" }, `and ${count - found.length} more: opsmesh profile backtest --all`));
  };
  return el("div", { class: "card" }, el("h2", {}, one.profile,
    one.gained + one.lost ? badge("differs") : badge("the same firings")),
    el("p", { class: "quiet" }, one.before === null ? "It is not in force under this name."
      : `${one.firings_before.toLocaleString()} firings as it is in force, ${one.firings_after.toLocaleString()} as it is written here`),
    el("div", { class: "pair" }, side("lost", "Fires only as it is in force", one.lost),
      side("gained", "Fires only as it is written here", one.gained)));
}

export function backtest() {
  const area = el("textarea", { "aria-label": "Profiles, as YAML", spellcheck: "false", oninput: () => { text = area.value; } });
  area.value = text;
  const since = el("select", { "aria-label": "Period" }, [["1h", "the last hour"], ["1d", "the last day"], ["7d", "7 days"], ["30d", "30 days"]]
    .map(([value, name]) => el("option", { value, selected: value === "7d" }, name)));
  const result = el("div");
  const go = el("button", { type: "button", class: "main", onclick: () => {
    show(result, el("p", { class: "quiet" }, "deciding …"));
    deed(go, async () => {
      try {
        const found = await post("/api/backtest", { text: area.value, since: since.value });
        show(result, drawn(found));
        return `${found.messages.toLocaleString()} events decided; nothing was run`;
      } catch (error) {
        show(result, el("pre", { class: "error" }, error.message), el("p", { class: "quiet" }, error.hint ?? ""));
        throw error;
      }
    });
  } }, "Decide the past");
  return { node: el("div", {}, el("h2", {}, "Backtest"),
    el("p", { class: "quiet" }, "What would these profiles have done, beside those of the same name that are in force? Nothing is run and nothing is sent."),
    area, el("div", { class: "bar" }, since, go), result) };
}

function drawn(found) {
  return [
    table([["profile", (one) => one.profile, "nowrap"], ["events", (one) => one.events.toLocaleString(), "number"],
      ["firings", (one) => (one.firings).toLocaleString(), "number"],
      ["otherwise", (one) => Object.entries(one.outcomes ?? {}).filter(([name, count]) => name !== "fire" && count)
        .map(([name, count]) => `${name} ${count}`).join(", "), "long"]], found.profiles, "no profile"),
    ...found.diff.map(change),
  ];
}
