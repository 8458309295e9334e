/* Which pictures are selected: single ones, or all that a search finds but a few.

   selection.toggle(12); selection.all("hat", "rating:general", 4000); selection.count; selection.target → {pictures: […]} or {query} */
import { narrowed } from "./query.js";

const watchers = new Set();
let ids = new Set();
let whole = null; // {text, filter, total} where everything found is selected; `ids` are then those left out

function changed() {
  for (const fn of watchers) fn();
}

export const selection = {
  anchor: null, // the place in the results from which shift selects
  has: (id) => ids.has(id) !== (whole !== null),
  get count() { return whole ? whole.total - ids.size : ids.size; },
  get isAll() { return whole !== null; },
  /** What an edit is about, as the API takes it. */
  get target() {
    if (!whole) return { pictures: [...ids] };
    const out = ids.size ? `-id:${[...ids].join(",")}` : "";
    return { query: narrowed(whole.text, `${whole.filter} ${out}`.trim()).query };
  },
  toggle(id) {
    if (!ids.delete(id)) ids.add(id);
    changed();
  },
  add(more) {
    for (const id of more) whole ? ids.delete(id) : ids.add(id);
    changed();
  },
  set(only) {
    ids = new Set(only);
    whole = null;
    changed();
  },
  all(text, filter, total) {
    ids = new Set();
    whole = { text, filter, total };
    changed();
  },
  clear() {
    if (!ids.size && !whole) return;
    ids = new Set();
    whole = null;
    this.anchor = null;
    changed();
  },
  watch: (fn) => watchers.add(fn),
};
