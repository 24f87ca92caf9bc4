// What waits for a person's yes or no.
import { ago, clock, el, facts, json, runLink, storyLink } from "./dom.js";
import { deed } from "./notice.js";
import { post, store } from "./store.js";

function card(one) {
  const comment = el("input", { name: "comment", placeholder: "why; it goes on record", "aria-label": "Comment", maxlength: 1000 });
  const value = one.schema && el("textarea", { "aria-label": "The value that is asked for, as JSON", placeholder: "JSON, as the schema above says" });
  const say = (verdict) => (event) => {
    event.preventDefault();
    deed(event.currentTarget, async () => {
      const body = { verdict, comment: comment.value };
      if (value && verdict === "granted") {
        try {
          body.value = JSON.parse(value.value);
        } catch (error) {
          throw new Error(`the value is no JSON: ${error.message}`);
        }
      }
      await post(`/api/approvals/${encodeURIComponent(one.id)}`, body);
      return `${one.prompt} — ${verdict}`;
    });
  };
  return el("article", { class: "card", "data-id": one.id }, el("h2", {}, one.prompt),
    facts([["profile", `${one.profile}, step ${one.step}`], ["host", one.host], ["run", runLink(one.run)],
      ["because of", storyLink(one.event, one.topic)], ["asked", ago(Date.parse(one.since))],
      ["expires", one.expires && `${clock(Date.parse(one.expires))}, then: ${one.otherwise}`],
      ["may answer", one.may_answer.join(", ")]]),
    one.schema && json(one.schema),
    el("form", { onsubmit: (event) => event.preventDefault() }, value, comment,
      el("button", { type: "button", class: "main", onclick: say("granted") }, "Approve"),
      el("button", { type: "button", onclick: say("denied") }, "Deny")));
}

export function approvals() {
  const cards = new Map();
  const list = el("div", { class: "cards" });
  const node = el("div", {}, el("h2", {}, "Questions that wait for you"), list);
  function draw(changed) {
    if (!changed.has("all") && !changed.has("approvals")) return;
    const ids = new Set(store.approvals.map((one) => one.id));
    for (const [id, old] of cards) if (!ids.has(id)) { old.remove(); cards.delete(id); }
    list.querySelector(".empty")?.remove();
    // a card stays as it is while somebody types into it
    for (const one of store.approvals)
      if (!cards.has(one.id)) { cards.set(one.id, card(one)); list.append(cards.get(one.id)); }
    if (!cards.size) list.append(el("p", { class: "empty" }, "Nothing waits for an answer."));
  }
  return { node, draw };
}
