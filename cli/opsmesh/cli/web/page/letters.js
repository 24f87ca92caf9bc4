// Dead letters: what no attempt could handle, to send again or to give up.
import { clock, el, facts, json, link, runLink, show, storyLink, table } from "./dom.js";
import { deed } from "./notice.js";
import { get, post, store } from "./store.js";

export function letters() {
  const node = el("div");
  function draw(changed) {
    if (!changed.has("all") && !changed.has("letters")) return;
    const found = [...store.letters].reverse();
    show(node, el("h2", {}, "Dead letters"),
      store.letters_total > found.length && el("p", { class: "quiet" }, `the newest ${found.length} of ${store.letters_total}; all, in groups: opsmesh dlq ls --group`),
      table([
        ["number", (one) => link(`#/letters/${one.seq}`, one.seq), "number"],
        ["time", (one) => clock(one.at), "time"], ["profile", (one) => one.profile, "nowrap"],
        ["topic", (one) => (one.event ? storyLink(one.event, one.topic) : one.topic)],
        ["attempts", (one) => one.attempts, "number"], ["reason", (one) => one.reason, "long"],
      ], found, "No dead letter: every run came to its end."));
  }
  return { node, draw };
}

export function letter(seq) {
  const node = el("div", {}, el("p", { class: "quiet" }, "…"));
  const comment = el("input", { placeholder: "why; it goes on record", "aria-label": "Comment" });
  const act = (what, said) => (event) => deed(event.currentTarget, async () => {
    await post(`/api/letters/${seq}`, { act: what, comment: comment.value });
    history.replaceState(null, "", "#/letters");
    dispatchEvent(new HashChangeEvent("hashchange"));
    return said;
  });
  get(`/api/letters/${Number(seq)}`).then((found) => show(node, 
    el("h2", {}, `Dead letter ${found.seq} of ${found.profile}`),
    el("pre", { class: "error" }, found.reason),
    facts([["topic", found.topic], ["event", found.event_id && storyLink(found.event_id, found.event_id)],
      ["run", found.run_id && runLink(found.run_id, found.run_id)], ["host", found.host],
      ["stored", clock(Date.parse(found.stored_time))], ["group", found.group_key]]),
    ...(found.errors ?? []).map((one) => el("pre", {}, `attempt ${one.attempt ?? "?"} ${one.step ?? ""}: ${one.error ?? JSON.stringify(one)}`)),
    el("div", { class: "bar acts" }, comment,
      el("button", { type: "button", class: "main", onclick: act("retry", "Sent again, as its profile is today.") }, "Send again"),
      el("button", { type: "button", onclick: act("drop", "Given up; its event stays in the stream and in the evidence.") }, "Give up")),
    el("h3", {}, "Event"), json(found.event ?? found.base64)))
    .catch((error) => show(node, el("p", { class: "error" }, error.message), el("p", { class: "quiet" }, error.hint)));
  return { node };
}
