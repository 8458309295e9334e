/* Elements made from data, never from markup: h("a", {href: "/"}, "text"). Text goes in as text nodes only. */

const ICONS = {
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM20 20l-4.8-4.8",
  close: "M6 6l12 12M18 6L6 18",
  check: "M5 12.5l4.5 4.5L19 7.5",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  minus: "M6 12h12",
  plus: "M12 5v14M5 12h14",
  tags: "M4 7h16M4 12h11M4 17h7",
  undo: "M9 7L4.5 11.5 9 16M5 11.5h9a5 5 0 0 1 0 10h-2",
  redo: "M15 7l4.5 4.5L15 16M19 11.5h-9a5 5 0 0 0 0 10h2",
  history: "M4 12a8 8 0 1 0 2.5-5.8M4 4v4h4M12 8v4.5l3 1.8",
  jobs: "M12 3v3M12 18v3M4.2 7.5l2.6 1.5M17.2 15l2.6 1.5M4.2 16.5L6.8 15M17.2 9l2.6-1.5",
  gear: "M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM19 12l2-1-1-3-2.3.3-1.4-1.4L16.7 4.600l-3-1L12.5 5.500h-1L10.3 3.600l-3 1 .4 2.300L6.3 8.3 4 8 3 11l2 1-2 1 1 3 2.3-.3 1.4 1.4-.4 2.3 3 1 1.2-1.900h1l1.2 1.9 3-1-.4-2.3 1.4-1.400L20 16l1-3z",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
  shield: "M12 3l7.5 3v5.500c0 4.5-3 7.7-7.5 9.5-4.5-1.8-7.5-5-7.5-9.500V6z",
  twins: "M4 8h11v12H4zM9 8V4h11v12h-5",
  keys: "M3 7h18v11H3zM6.5 10.500h.01M10 10.500h.01M13.5 10.500h.01M17 10.500h.01M8 14.500h8",
  why: "M12 4a6 6 0 0 0-3.5 10.900V18h7v-3.100A6 6 0 0 0 12 4zM9.5 21h5",
  person: "M12 4a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM4.5 20.500c.6-4 3.5-6 7.5-6s6.9 2 7.5 6",
  model: "M12 3l2 6 6 3-6 2.500L12 21l-2-6.500L4 12l6-3z",
  import: "M12 4v11M7.5 11l4.5 4.5 4.5-4.500M5 20h14",
  implied: "M5 6v6a3 3 0 0 0 3 3h11M15 11l4 4-4 4",
  more: "M4 7h16M4 12h16M4 17h16",
  out: "M13 5h6v6M19 5l-9 9M17 14v5H5V7h5",
  refresh: "M20 11a8 8 0 1 0-.6 4M20 5v6h-6",
  similar: "M4 5h7v7H4zM13 12h7v7h-7zM15 5h4v4h-4zM5 15h4v4H5z",
};

/** An element with properties and children; `on…` are listeners, `data`/`aria` objects become attributes. */
export function h(name, props = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(props)) set(element, key, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function set(element, key, value) {
  if (value === null || value === undefined || value === false) return;
  if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
  else if (key === "class") element.className = value;
  else if (key === "data") Object.assign(element.dataset, value);
  else if (key === "aria") for (const [name, text] of Object.entries(value)) text !== null && element.setAttribute(`aria-${name}`, text);
  else if (key in element && typeof value !== "string") element[key] = value;
  else element.setAttribute(key, value);
}

/** A drawn icon, hidden from screen readers: its button has a name of its own. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(space, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button with an icon and a name that screen readers say and that shows as a tip. */
export function iconButton(name, label, onclick, props = {}) {
  return h("button", { type: "button", class: "quiet", title: label, aria: { label }, onclick, ...props }, icon(name));
}

export const $ = (id) => document.getElementById(id);

const counts = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
export const number = (n) => counts.format(n);
export const shortNumber = (n) => (n < 10000 ? counts.format(n) : short.format(n));
export const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;
/** A tag as people read it. */
export const spoken = (tag) => tag.replace(/^rating:/, "").replaceAll("_", " ");

export function bytes(n) {
  for (const unit of ["bytes", "KB", "MB"]) {
    if (n < 1024) return `${unit === "bytes" || n >= 100 ? Math.round(n) : n.toFixed(1)} ${unit}`;
    n /= 1024;
  }
  return `${n.toFixed(1)} GB`;
}

export function when(text) {
  const date = new Date(text);
  return Number.isNaN(date.valueOf()) ? text : date.toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
}

export function day(text) {
  const date = new Date(text);
  return Number.isNaN(date.valueOf()) ? text : date.toLocaleDateString("en", { dateStyle: "medium" });
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

/** Says something to screen readers; inside the open dialog where there is one, as all else is inert then. */
export function say(text) {
  const place = document.querySelector("dialog[open] .live") ?? $("polite");
  place.textContent = "";
  setTimeout(() => (place.textContent = text), 40);
}

/** `fn` at most once a while, the last call counts. */
export function later(milliseconds, fn) {
  let timer = 0;
  const call = (...args) => {
    clearTimeout(timer);
    timer = setTimeout(fn, milliseconds, ...args);
  };
  call.cancel = () => clearTimeout(timer);
  return call;
}

export const narrow = matchMedia("(max-width: 859px)");
export const still = matchMedia("(prefers-reduced-motion: reduce)");
