// A list of any length: only the rows that are seen are elements. Arrow keys, j and k, Page keys,
// Home and End move; Enter opens.
import { el } from "./dom.js";

export class List {
  // draw(item) gives a row's contents, open(item) is Enter or a click, id(item) tells items apart
  // empty() says why there is none
  constructor({ label, draw, open, id, empty }) {
    Object.assign(this, { draw, open, id, empty, items: [], chosen: null });
    this.room = el("div", { class: "room" });
    this.node = el("div", { class: "rows", tabindex: 0, role: "listbox", "aria-label": label,
      onscroll: () => this.show(), onkeydown: (event) => this.key(event) }, this.room);
    this.sizes = new ResizeObserver(() => this.show());
    this.sizes.observe(this.node);
  }

  get height() { return matchMedia("(max-width: 700px)").matches ? 48 : 28; }

  // Newest first: who looks at older ones keeps them in view while new ones come.
  set(items) {
    const top = Math.floor(this.node.scrollTop / this.height);
    const held = top > 0 ? this.items[top] : null;
    this.items = items;
    if (held) {
      const now = items.findIndex((one) => this.id(one) === this.id(held));
      if (now > top) this.node.scrollTop += (now - top) * this.height;
    }
    this.show();
  }

  show() {
    const height = this.height;
    this.room.style.height = `${this.items.length * height}px`;
    const first = Math.max(Math.floor(this.node.scrollTop / height) - 5, 0);
    const last = Math.min(first + Math.ceil(this.node.clientHeight / height) + 10, this.items.length);
    const rows = [];
    for (let n = first; n < last; n++) {
      const item = this.items[n];
      const id = this.id(item);
      const row = el("div", { class: "row", role: "option", id: `row-${id}`,
        "aria-selected": id === this.chosen ? "true" : "false", "aria-posinset": n + 1,
        "aria-setsize": this.items.length, onclick: () => { this.choose(n); this.open(item); } },
        this.draw(item));
      row.style.top = `${n * height}px`;
      rows.push(row);
    }
    if (!this.items.length) rows.push(el("p", { class: "empty" }, this.empty()));
    this.room.replaceChildren(...rows);
  }

  choose(n) {
    if (!this.items.length) return;
    n = Math.min(Math.max(n, 0), this.items.length - 1);
    this.chosen = this.id(this.items[n]);
    const [top, height] = [n * this.height, this.height];
    if (top < this.node.scrollTop) this.node.scrollTop = top;
    else if (top + height > this.node.scrollTop + this.node.clientHeight)
      this.node.scrollTop = top + height - this.node.clientHeight;
    this.node.setAttribute("aria-activedescendant", `row-${this.chosen}`);
    this.show();
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const at = this.items.findIndex((one) => this.id(one) === this.chosen);
    const page = Math.max(Math.floor(this.node.clientHeight / this.height) - 1, 1);
    const to = { ArrowDown: at + 1, j: at + 1, ArrowUp: at - 1, k: at - 1, PageDown: at + page,
      PageUp: at - page, Home: 0, End: this.items.length - 1 }[event.key];
    if (to !== undefined) this.choose(to);
    else if (event.key === "Enter" && at >= 0) this.open(this.items[at]);
    else return;
    event.preventDefault();
  }
}
