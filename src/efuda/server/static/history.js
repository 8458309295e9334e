/* What was done, the newest first, each of which can be undone. */
import { h, icon, number, plural, when } from "./dom.js";
import { get } from "./api.js";
import { redo, undo } from "./edits.js";
import { panel, refreshPanel } from "./panels.js";

const PAGE = 50;

export function startHistory() {
  panel("history", "History", build);
  addEventListener("efuda:edited", () => refreshPanel("history"));
}

async function build(body) {
  body.setAttribute("aria-busy", "true");
  try {
    const found = await get("/api/history", { limit: PAGE });
    const list = h("ol", { class: "history" }, found.operations.map(item));
    body.replaceChildren(buttons(found), found.operations.length ? list : h("p", { class: "faint" }, "Nothing has been changed yet. Edits, merges and tagging will be listed here."), more(list, found.operations));
  } catch (error) {
    body.replaceChildren(h("p", { class: "bad" }, error.message));
  }
  body.removeAttribute("aria-busy");
}

function buttons({ can_undo: back, can_redo: again }) {
  const one = (name, label, operation, run) => h("button", { type: "button", class: "button", disabled: !operation, onclick: run }, icon(name), h("span", {}, operation ? `${label}: ${operation.summary}` : `Nothing to ${label.toLowerCase()}`));
  return h("div", { class: "undoredo" }, one("undo", "Undo", back, () => undo()), one("redo", "Redo", again, () => redo()));
}

function item(operation) {
  const { id, at, by, kind, summary, changed, undone, undoes } = operation;
  return h("li", { class: undone ? "undone" : null },
    h("div", {}, h("strong", {}, summary || kind), h("span", { class: "faint" }, `${plural(changed, "picture")} · ${by} · ${when(at)}${undone ? " · undone" : ""}`)),
    undone || undoes || !["edit", "merge", "tag", "remove"].includes(kind) ? null
      : h("button", { type: "button", class: "button plain", aria: { label: `Undo ${summary || kind}, number ${number(id)}` }, onclick: () => undo(id) }, "Undo"));
}

function more(list, operations) {
  if (operations.length < PAGE) return "";
  let last = operations.at(-1).id;
  const button = h("button", { type: "button", class: "button", onclick: async () => {
    const next = (await get("/api/history", { limit: PAGE, before: last })).operations;
    list.append(...next.map(item));
    if (next.length < PAGE) button.remove();
    else last = next.at(-1).id;
  } }, "Older");
  return button;
}
