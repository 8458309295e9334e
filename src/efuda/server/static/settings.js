/* What a person chose, kept in this browser: settings.theme, settings.set("theme", "dark"), settings.watch(fn). */

const DEFAULTS = {
  theme: "auto",        // auto | light | dark
  size: "medium",       // small | medium | large
  ratings: ["general"], // what is shown; "none" is what has no rating
  shortcuts: true,      // single keys
  side: true,           // the list of tags beside the pictures
};
const KEY = "efuda";
const watchers = new Set();
const chosen = { ...DEFAULTS, ...read() };

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    if (!Array.isArray(kept.ratings)) delete kept.ratings;
    return kept;
  } catch {
    return {}; // private windows may refuse, people may edit
  }
}

function set(name, value) {
  chosen[name] = value;
  try {
    localStorage.setItem(KEY, JSON.stringify(chosen));
  } catch {
    // It holds until the page is closed.
  }
  for (const fn of watchers) fn(name);
}

addEventListener("storage", (event) => {
  if (event.key !== KEY) return;
  Object.assign(chosen, DEFAULTS, read());
  for (const fn of watchers) for (const name of Object.keys(DEFAULTS)) fn(name);
});

export const settings = {
  get theme() { return chosen.theme; },
  get size() { return chosen.size; },
  get ratings() { return chosen.ratings; },
  get shortcuts() { return chosen.shortcuts; },
  get side() { return chosen.side; },
  set,
  watch: (fn) => watchers.add(fn),
};
