/* The bar that appears when pictures are selected: tags to add or remove, a rating, all that was found. */
import { $, h, icon, iconButton, number, plural, say } from "./dom.js";
import { complete } from "./api.js";
import { combobox } from "./combobox.js";
import { edit } from "./edits.js";
import { unwritten } from "./query.js";
import { selection } from "./selection.js";

const RATINGS = ["general", "sensitive", "questionable", "explicit"];
let input = null;
let selectAll = () => {};

/** Tags in a field: words, or words after commas. */
export const tagsOf = (text) => text.toLowerCase().split(/[\s,]+/).filter(Boolean);

/** Completes the tag that is being typed, whatever stands around it. */
export async function suggestTags(text, at, signal) {
  const start = text.slice(0, at).search(/[^\s,]*$/);
  const begin = start + (text[start] === "-" ? 1 : 0);
  const end = at + text.slice(at).search(/[\s,]|$/);
  const word = text.slice(begin, end);
  if (!word) return { start: at, end: at, suggestions: [] };
  const found = await complete(word, at - begin, 10, signal);
  const tags = found.suggestions.filter((one) => one.category).map((one) => ({ ...one, value: unwritten(one.value) }));
  return { start: begin, end, suggestions: tags };
}

export function editBar(all) {
  selectAll = all;
  input = h("input", { id: "edittags", type: "text", aria: { label: "Tags to add or to remove" }, placeholder: "Tags to add or remove" });
  const list = h("div", { id: "editsuggestions", class: "options up", aria: { label: "Suggested tags" } });
  const rating = h("select", { id: "editrating", aria: { label: "Rating" }, onchange: () => rate(rating) },
    h("option", { value: "" }, "Rate …"), RATINGS.map((name) => h("option", { value: name }, name)));
  $("editbar").append(
    h("div", { class: "chosen" }, iconButton("close", "Select nothing", clear), h("strong", { id: "selected" }), h("button", { type: "button", id: "selectall", class: "button plain", onclick: () => selectAll() }, "Select all")),
    h("form", { class: "edit", onsubmit: (event) => event.preventDefault() },
      h("div", { class: "field" }, input, list),
      h("button", { type: "button", class: "button", onclick: () => change("add") }, icon("plus"), "Add"),
      h("button", { type: "button", class: "button", onclick: () => change("remove") }, icon("minus"), "Remove"),
      rating));
  combobox({ input, list, suggest: suggestTags, submit: () => change("add") });
  selection.watch(show);
}

function show() {
  const bar = $("editbar");
  const count = selection.count;
  const was = bar.hidden;
  bar.hidden = count === 0;
  document.body.classList.toggle("selecting", count > 0);
  $("selected").textContent = `${number(count)} selected`;
  $("selectall").hidden = selection.isAll;
  if (count) say(`${plural(count, "picture")} selected${was ? ". Press E to edit their tags" : ""}`);
  else if (!was) say("Nothing selected");
}

/** Lets go of all; whoever was in the bar is back in the grid. */
function clear() {
  selection.clear();
  dispatchEvent(new Event("efuda:togrid"));
}

export const focusEditBar = () => selection.count && input.focus();

async function change(how) {
  const words = tagsOf(input.value);
  if (!words.length) return input.focus();
  const plus = words.filter((word) => !word.startsWith("-"));
  const minus = words.filter((word) => word.startsWith("-")).map((word) => word.slice(1));
  const tags = how === "add" ? { add: plus, remove: minus } : { remove: [...plus, ...minus] };
  if (await edit(selection.target, tags)) input.value = "";
  return undefined;
}

async function rate(select) {
  if (select.value) await edit(selection.target, { rating: select.value });
  select.value = "";
}
