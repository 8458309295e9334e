/* The pictures, as rows that fill the width: each row holds the same number and has the same height, and shares its width
   by how wide its pictures are. So any place among a million is known without measuring, and little is cut off.

   Only rows near the window exist. One cell is in the tab order; arrows move it. */
import { h, icon, later, number, spoken } from "./dom.js";
import { link } from "./address.js";
import { thumbnailOf } from "./api.js";
import { selection } from "./selection.js";
import { settings } from "./settings.js";
import { Tall } from "./tall.js";

const WIDEST = { small: 128, medium: 196, large: 290 }; // about how wide a cell is
const FEWEST = { small: 4, medium: 3, large: 2 };       // in a row, on a phone
const MOST_CELLS = 440;
const AROUND = 1.1;     // windows' heights that are ready above and below, together
const HURRY = 0.5;      // windows' heights between two frames: only placeholders then
const LONG = 450;       // ms that a press is long
const PAUSE = 90;       // ms without scrolling after which they are filled

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const shape = (picture) => clamp((picture?.width ?? 0) / (picture?.height || 1) || 1, 0.55, 2);

export class Grid {
  /** `open(index, id)` shows a picture; `moved(index)` is told which is on top. */
  constructor(port, spacer, grid, { open, moved }) {
    Object.assign(this, { port, grid, open, moved, results: null, rows: new Map(), columns: 5, rowHeight: 200, active: 0 });
    this.tall = new Tall(port, spacer);
    this.settle = later(PAUSE, () => {
      grid.classList.remove("moving");
      this.draw();
    });
    this.frame = 0;
    this.seen = 0;
    port.addEventListener("scroll", () => this.scrolled(), { passive: true });
    new ResizeObserver(() => this.measure()).observe(port);
    grid.addEventListener("click", (event) => this.clicked(event));
    grid.addEventListener("focusin", (event) => this.focused(event));
    grid.addEventListener("keydown", (event) => this.pressed(event));
    this.listenToTouch();
    selection.watch(() => this.mark());
    settings.watch((name) => name === "size" && this.measure());
  }

  get total() { return this.results?.total ?? 0; }
  get rowCount() { return Math.ceil(this.total / this.columns); }

  /** Shows results of which the first window is there. */
  show(results, at = 0) {
    this.results = results;
    this.active = clamp(at, 0, Math.max(0, results.total - 1));
    this.shape = this.averageShape();
    this.empty();
    this.measure();
    this.reveal(this.active, "start");
  }

  empty() {
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
  }

  /** The layout for this width; the picture that is on top stays there. */
  measure() {
    const width = this.port.clientWidth - 2 * this.edge();
    if (!this.results || width <= 0) return;
    const first = Math.round(this.tall.top / this.stride) * this.columns;
    this.gap = width < 700 ? 4 : 8;
    const lines = (this.port.clientHeight * (1 + AROUND)) / (WIDEST[this.settings()] / this.shape) + 2;
    const room = Math.max(3, Math.floor(MOST_CELLS / lines));
    this.columns = clamp(Math.round(width / WIDEST[this.settings()]), FEWEST[this.settings()], room);
    this.rowHeight = Math.round((width - (this.columns - 1) * this.gap) / this.columns / this.shape);
    this.width = width;
    this.tall.height = this.rowCount * this.stride + this.edge();
    this.tall.top = this.total ? Math.floor(first / this.columns) * this.stride : 0;
    this.grid.setAttribute("aria-rowcount", this.rowCount);
    this.grid.setAttribute("aria-colcount", this.columns);
    this.grid.style.setProperty("--row", `${this.rowHeight}px`);
    this.grid.style.setProperty("--gap", `${this.gap}px`);
    this.empty();
    this.draw();
  }

  settings() { return settings.size in WIDEST ? settings.size : "medium"; }
  edge() { return this.port.clientWidth < 700 ? 4 : 16; }
  get stride() { return this.rowHeight + (this.gap ?? 8); }

  averageShape() {
    const here = [];
    for (const window of this.results.windows.values()) here.push(...(window.pictures ?? []));
    if (!here.length) return 0.8;
    return clamp(here.reduce((sum, picture) => sum + shape(picture), 0) / here.length, 0.66, 1.5);
  }

  /** Pictures arrived. */
  arrived(first, last) {
    for (const [number, row] of this.rows) {
      if ((number + 1) * this.columns > first && number * this.columns < last) this.fill(row, number);
    }
  }

  scrolled() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      this.tall.scrolled();
      const hurry = Math.abs(this.tall.top - this.seen) > HURRY * this.port.clientHeight;
      this.grid.classList.add("moving"); // fading in costs a layer each
      this.draw(hurry);
      this.settle();
    });
  }

  /** Rows that should be there are there, others are not. */
  draw(hurry = false) {
    if (!this.results || this.results.total === null) return;
    const top = this.tall.top;
    const height = this.port.clientHeight;
    const margin = (height * AROUND) / 2;
    const from = clamp(Math.floor((top - margin) / this.stride), 0, Math.max(0, this.rowCount - 1));
    const to = clamp(Math.ceil((top + height + margin) / this.stride), from, this.rowCount) - 1;
    const kept = this.grid.contains(document.activeElement) ? this.rowOf(this.active) : -1;
    for (const [number, row] of this.rows) {
      if ((number < from || number > to) && number !== kept) this.discard(number, row);
    }
    if (!hurry) this.results.need(from * this.columns, (to + 1) * this.columns + (top >= this.seen ? this.columns * 4 : 0));
    for (let number = from; number <= to; number += 1) this.row(number, hurry);
    for (const [number, row] of this.rows) row.style.transform = `translateY(${Math.round(number * this.stride - this.tall.offset)}px)`;
    this.seen = top;
    if (!hurry) this.moved(Math.round(top / this.stride) * this.columns);
  }

  rowOf(index) { return Math.floor(index / this.columns); }

  discard(number, row) {
    this.rows.delete(number);
    for (const image of row.querySelectorAll("img")) image.removeAttribute("src");
    row.remove();
  }

  row(number, hurry) {
    let row = this.rows.get(number);
    if (!row) {
      const cells = Math.min(this.columns, this.total - number * this.columns);
      row = h("div", { class: "row", role: "row", aria: { rowindex: number + 1 } }, Array.from({ length: cells }, (_, i) => cell(i)));
      this.rows.set(number, row);
      this.place(row, number);
    } else if (!row.dataset.waiting) return;
    if (hurry) row.dataset.waiting = "yes";
    else this.fill(row, number);
  }

  /** Puts the row where it is read: screen readers follow the order of the document. */
  place(row, number) {
    const next = this.grid.firstElementChild && [...this.rows.entries()].filter(([other]) => other > number).sort((a, b) => a[0] - b[0])[0];
    this.grid.insertBefore(row, next?.[1] ?? null);
  }

  fill(row, number) {
    delete row.dataset.waiting;
    const start = number * this.columns;
    const pictures = [...row.children].map((_, i) => this.results.at(start + i));
    const shapes = pictures.map((picture) => (picture ? shape(picture) : this.shape));
    const sum = shapes.reduce((a, b) => a + b, 0);
    const room = this.width - (row.children.length - 1) * this.gap;
    const full = row.children.length === this.columns;
    const scale = full ? room / sum : Math.min(this.rowHeight, room / sum);
    [...row.children].forEach((element, i) => {
      element.style.width = `${(shapes[i] * scale).toFixed(2)}px`;
      this.fillCell(element, start + i, pictures[i]);
    });
  }

  fillCell(element, index, picture) {
    const [anchor, pick] = element.children;
    anchor.tabIndex = index === this.active ? 0 : -1;
    if (!picture) {
      if (!anchor.hasAttribute("aria-label")) anchor.setAttribute("aria-label", `Picture ${number(index + 1)}, loading`);
      return;
    }
    if (Number(element.dataset.id) !== picture.id) {
      element.dataset.id = picture.id;
      anchor.href = link({ id: picture.id });
      const words = `${picture.width} × ${picture.height}${picture.rating ? `, ${picture.rating}` : ""}`;
      anchor.setAttribute("aria-label", `Picture ${number(index + 1)} of ${number(this.total)}, ${words}`);
      pick.setAttribute("aria-label", `Select picture ${number(index + 1)}`);
      const image = h("img", { alt: "", decoding: "async", draggable: false, onload: () => image.classList.add("here"), onerror: () => element.classList.add("broken") });
      image.src = thumbnailOf(picture);
      if (image.complete) image.classList.add("here");
      anchor.replaceChildren(image, ...badges(picture));
    }
    this.markCell(element, picture.id);
  }

  mark() {
    this.grid.classList.toggle("selecting", selection.count > 0);
    for (const row of this.rows.values()) for (const element of row.children) if (element.dataset.id) this.markCell(element, Number(element.dataset.id));
  }

  markCell(element, id) {
    const chosen = selection.has(id);
    element.setAttribute("aria-selected", chosen);
    element.children[1].setAttribute("aria-pressed", chosen);
  }

  // ── where one is ──────────────────────────────────────────────────────────────────────────────────────────────────

  cellAt(index) { return this.rows.get(this.rowOf(index))?.children[index % this.columns] ?? null; }

  indexOfCell(element) {
    return (Number(element.parentElement.getAttribute("aria-rowindex")) - 1) * this.columns + [...element.parentElement.children].indexOf(element);
  }

  /** Scrolls no more than is needed to see it. */
  reveal(index, where = "near") {
    const top = this.rowOf(index) * this.stride;
    const height = this.port.clientHeight;
    if (where === "start") this.tall.top = top;
    else if (top < this.tall.top) this.tall.top = top - this.gap;
    else if (top + this.stride > this.tall.top + height) this.tall.top = top + this.stride - height + this.gap;
    this.draw();
  }

  activate(index) {
    const before = this.cellAt(this.active)?.firstElementChild;
    if (before) before.tabIndex = -1;
    this.active = clamp(index, 0, Math.max(0, this.total - 1));
    const now = this.cellAt(this.active)?.firstElementChild;
    if (now) now.tabIndex = 0;
  }

  focus(index = this.active) {
    this.activate(index);
    this.reveal(this.active);
    this.cellAt(this.active)?.firstElementChild.focus({ preventScroll: true });
  }

  focused(event) {
    const element = event.target.closest(".cell");
    if (element) this.activate(this.indexOfCell(element));
  }

  pressed(event) {
    const index = this.destination(event);
    if (index === null) return;
    event.preventDefault();
    const from = this.active;
    if (event.shiftKey) selection.anchor ??= from;
    this.focus(clamp(index, 0, Math.max(0, this.total - 1)));
    if (event.shiftKey) this.selectTo(this.active);
    else selection.anchor = null;
  }

  destination(event) {
    if (event.altKey || event.metaKey) return null;
    const page = Math.max(1, Math.floor(this.port.clientHeight / this.stride)) * this.columns;
    const lineStart = this.rowOf(this.active) * this.columns;
    const moves = {
      ArrowRight: this.active + 1,
      ArrowLeft: this.active - 1,
      ArrowDown: this.active + this.columns < this.total || this.rowOf(this.active) === this.rowCount - 1 ? this.active + this.columns : this.total - 1,
      ArrowUp: this.active - this.columns,
      PageDown: this.active + page,
      PageUp: this.active - page,
      Home: event.ctrlKey ? 0 : lineStart,
      End: event.ctrlKey ? this.total - 1 : lineStart + this.columns - 1,
    };
    if (!(event.key in moves)) return null;
    if (event.key === "ArrowUp" && moves.ArrowUp < 0) return this.active;
    if (event.key === "ArrowDown" && moves.ArrowDown >= this.total) return this.active;
    return moves[event.key];
  }

  // ── selecting ─────────────────────────────────────────────────────────────────────────────────────────────────────

  clicked(event) {
    const element = event.target.closest(".cell");
    if (!element?.dataset.id) return event.preventDefault();
    const index = this.indexOfCell(element);
    const id = Number(element.dataset.id);
    const picks = event.target.closest(".pick") || selection.count > 0;
    if (event.shiftKey) {
      event.preventDefault();
      selection.anchor ??= this.active;
      this.activate(index);
      this.selectTo(index);
    } else if (picks || event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.activate(index);
      this.toggle(index, id);
    } else {
      event.preventDefault();
      this.open(index, id);
    }
    return undefined;
  }

  toggle(index = this.active, id = this.results.at(index)?.id) {
    if (!id) return;
    selection.anchor = index;
    selection.toggle(id);
  }

  async selectTo(index) {
    const [first, last] = [Math.min(selection.anchor, index), Math.max(selection.anchor, index)];
    const ids = await this.results.ids(first, last);
    selection.isAll ? selection.add(ids) : selection.set(ids);
  }

  /** A long press selects, as in a phone's own gallery. */
  listenToTouch() {
    let timer = 0;
    let long = false;
    this.grid.addEventListener("touchstart", (event) => {
      const element = event.target.closest(".cell");
      clearTimeout(timer);
      long = false;
      if (!element?.dataset.id || event.touches.length > 1) return;
      timer = setTimeout(() => {
        long = true;
        this.toggle(this.indexOfCell(element), Number(element.dataset.id));
        navigator.vibrate?.(10);
      }, LONG);
    }, { passive: true });
    for (const name of ["touchmove", "touchcancel"]) this.grid.addEventListener(name, () => clearTimeout(timer), { passive: true });
    this.grid.addEventListener("touchend", (event) => {
      clearTimeout(timer);
      if (long) event.preventDefault(); // no click follows
    });
    this.grid.addEventListener("contextmenu", (event) => long && event.preventDefault());
  }
}

function cell(column) {
  return h("div", { class: "cell", role: "gridcell", aria: { colindex: column + 1, selected: "false" } },
    h("a", { tabIndex: -1, href: "#grid" }),
    h("button", { type: "button", class: "pick", tabIndex: -1, aria: { pressed: "false", label: "Select" } }, icon("check")));
}

function badges(picture) {
  const texts = [];
  if (picture.duration) texts.push(`${Math.floor(picture.duration / 60)}:${String(Math.round(picture.duration % 60)).padStart(2, "0")}`);
  else if (picture.filetype === "gif") texts.push("GIF");
  return texts.map((text) => h("span", { class: "badge", aria: { hidden: "true" } }, spoken(text)));
}
