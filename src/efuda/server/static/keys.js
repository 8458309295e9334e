/* Every key, in one list, which "?" shows: bind("Pictures", "e", "edit the selected", run, {when}).

   Single keys can be switched off in the settings; none works while one types or a panel is open. */
import { settings } from "./settings.js";

const bindings = [];
const NAMES = { " ": "Space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc" };

export function bind(group, keys, label, run, { when = () => true, typing = false } = {}) {
  bindings.push({ group, keys: [keys].flat(), label, run, when, typing });
}

/** What is shown in the help only: keys that a part of the page handles itself. */
export function mention(group, shownKeys, label) {
  bindings.push({ group, keys: [], shown: [shownKeys].flat(), label, when: () => false });
}

/** [["Everywhere", [{keys: ["/"], label: "search"}, …]], …] */
export function listed() {
  const groups = new Map();
  for (const { group, keys, shown, label } of bindings) {
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push({ keys: shown ?? keys.map(readable), label });
  }
  return [...groups];
}

const readable = (key) => key.split("+").map((part) => NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part)).join(" + ") || "+";

function pressed(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const control = event.ctrlKey || event.metaKey;
  const shift = event.shiftKey && (control || /^[a-z]$/.test(key) || event.key.length > 1);
  return `${control ? "Ctrl+" : ""}${shift ? "Shift+" : ""}${key}`;
}

const types = (target) => target instanceof Element && target.closest("input:not([type=checkbox],[type=radio]), textarea, select, [contenteditable]") !== null;

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
  const key = pressed(event);
  const single = !key.includes("Ctrl+") && key.length <= 7 && !/^(Arrow|Esc|Del|Page|Home|End)/.test(event.key);
  if (single && !settings.shortcuts) return;
  for (const binding of bindings) {
    if (!binding.keys.includes(key) || (types(event.target) && !binding.typing) || !binding.when(event)) continue;
    if (binding.run(event) === false) continue;
    event.preventDefault();
    return;
  }
});
