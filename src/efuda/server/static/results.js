/* What a search found, fetched in windows as they are looked at: results.need(400, 460); results.at(412).

   Windows nobody looks at any longer are cancelled while under way, and forgotten when there are many. */
import { get, isStale } from "./api.js";

export const WINDOW = 100;
const KEPT = 120; // windows

export class Results {
  /** `changed(first, last)` is called when pictures arrive, `failed(error)` when they do not. */
  constructor(query, changed, failed) {
    Object.assign(this, { query, changed, failed, total: null, revision: null, windows: new Map() });
  }

  at(index) {
    return this.windows.get(Math.floor(index / WINDOW))?.pictures?.[index % WINDOW] ?? null;
  }

  /** Fetches what is not there of `first` … `last`, and stops fetching all else. */
  need(first, last) {
    const from = Math.floor(Math.max(0, first) / WINDOW);
    const to = Math.floor(Math.max(0, this.total === null ? last : Math.min(last, this.total - 1)) / WINDOW);
    for (const [number, window] of this.windows) {
      if (window.stop && (number < from || number > to)) this.drop(number);
    }
    for (let number = from; number <= to; number += 1) this.load(number);
    this.forget(from, to);
  }

  async load(number) {
    const known = this.windows.get(number);
    if (known) return known.ready;
    const stop = new AbortController();
    const window = { pictures: null, stop, ready: null };
    this.windows.set(number, window);
    window.ready = this.fetch(number, window);
    return window.ready;
  }

  async fetch(number, window) {
    try {
      const found = await get("/api/search", { q: this.query, offset: number * WINDOW, limit: WINDOW }, window.stop.signal);
      window.pictures = found.pictures;
      window.stop = null;
      const first = this.total === null;
      this.total ??= found.total; // a change that comes later is told, and shown when one asks for it
      this.revision ??= found.revision;
      this.changed(number * WINDOW, number * WINDOW + WINDOW, first);
    } catch (error) {
      if (this.windows.get(number) === window) this.windows.delete(number);
      if (!isStale(error)) this.failed(error);
    }
  }

  drop(number) {
    this.windows.get(number).stop?.abort();
    this.windows.delete(number);
  }

  forget(from, to) {
    if (this.windows.size <= KEPT) return;
    const middle = (from + to) / 2;
    const far = [...this.windows.keys()].sort((a, b) => Math.abs(b - middle) - Math.abs(a - middle));
    for (const number of far.slice(0, this.windows.size - KEPT)) this.windows.delete(number);
  }

  close() {
    for (const number of [...this.windows.keys()]) if (this.windows.get(number).stop) this.drop(number);
  }

  /** The ids from one place to another, also of those nobody has looked at. */
  async ids(first, last) {
    const ids = [];
    for (let offset = first; offset <= last; offset += 1000) {
      const limit = Math.min(1000, last - offset + 1);
      const here = Array.from({ length: limit }, (_, i) => this.at(offset + i));
      if (here.every(Boolean)) ids.push(...here.map((picture) => picture.id));
      else ids.push(...(await get("/api/search", { q: this.query, offset, limit })).pictures.map((picture) => picture.id));
    }
    return ids;
  }

  /** Where a picture is among those that are here; -1 if it is not. */
  indexOf(id) {
    for (const [number, window] of this.windows) {
      const place = window.pictures?.findIndex((picture) => picture.id === id) ?? -1;
      if (place >= 0) return number * WINDOW + place;
    }
    return -1;
  }
}
