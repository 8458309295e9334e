/* The search box: completes under the search so far, and shows a mistake under its very character. */
import { $, h, icon, iconButton, narrow, say } from "./dom.js";
import { address } from "./address.js";
import { complete, unitsOf } from "./api.js";
import { combobox } from "./combobox.js";
import { shown, terms } from "./query.js";
import { settings } from "./settings.js";

let input = null;

export function searchBox(form) {
  input = h("input", { id: "query", type: "text", name: "q", aria: { label: "Search by tags" }, placeholder: narrow.matches ? "Search tags" : "Search: 1girl smile -hat rating:g" });
  const list = h("div", { id: "suggestions", class: "options", aria: { label: "Suggestions" } });
  const clear = iconButton("close", "Empty the search", () => {
    input.value = "";
    search("");
    input.focus();
  }, { class: "quiet clear" });
  form.append(h("label", { class: "glass", for: "query" }, icon("search"), h("span", { class: "unseen" }, "Search by tags")), input, clear, list);
  const box = combobox({ input, list, suggest, submit: search });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    box.close();
    search(input.value);
  });
  address.watch(show);
  show(address.now);
}

function show(now) {
  if (document.activeElement !== input || terms(input.value).map((word) => word.text).join(" ") !== now.q) input.value = now.q;
}

async function suggest(text, at, signal) {
  const { query, shift } = shown(text, settings.ratings);
  const plain = !query.startsWith(text, shift); // the order was moved behind: places would not agree
  const found = await (plain ? complete(text, at, 12, signal) : complete(query, at + shift, 12, signal));
  const moved = plain ? 0 : shift;
  return { ...found, start: found.start - moved, end: Math.min(found.end - moved, text.length) };
}

export function search(text) {
  const q = terms(text).map((word) => word.text).join(" ");
  address.go({ q, id: null, view: "", kind: "", at: 0 });
}

export function focusSearch() {
  input.focus();
  input.select();
}

/** What is wrong with the search, with the mark under the character and suggestions to click; null takes it away. */
export function showProblem(error, retry) {
  const place = $("problem");
  place.replaceChildren();
  input.removeAttribute("aria-invalid");
  input.removeAttribute("aria-describedby");
  if (!error) return;
  const known = error.position !== null && error.kind === "query";
  const text = address.now.q;
  const position = known ? unitsOf(text, error.position) : 0;
  if (known) {
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", "mistake");
  }
  place.append(h("div", { class: "mistake", id: "mistake" },
    h("p", {}, error.message),
    known ? marked(text, position) : null,
    known && error.suggestions.length ? h("p", { class: "instead" }, "Correct it to ", error.suggestions.slice(0, 6).map((word) => suggestion(text, position, word))) : null,
    known ? null : h("button", { type: "button", class: "button", onclick: retry }, icon("refresh"), "Try again")));
  say(error.message);
}

function marked(text, position) {
  const at = Math.max(0, Math.min(position, text.length));
  const letter = [...text.slice(at)][0] ?? " ";
  return h("p", { class: "marked" }, text.slice(0, at), h("mark", {}, letter), text.slice(at + (at < text.length ? letter.length : 0)));
}

function suggestion(text, position, word) {
  return h("button", { type: "button", class: "chip", onclick: () => search(corrected(text, position, word)) }, word);
}

/** The search with `word` in the place of what stands at the position; of a metatag the value stays, of a group its end. */
export function corrected(text, position, word) {
  const term = terms(text).find((one) => one.start <= position && position < one.end) ?? { end: position };
  const old = text.slice(position, term.end);
  const tail = word.endsWith(":") ? old.slice(old.indexOf(":") + 1) : /(?<!\([^)]*)\)+$/.exec(old)?.[0] ?? "";
  return text.slice(0, position) + word + tail + text.slice(term.end);
}
