/* Pictures that are the same or nearly: which one to keep, and the others' tags merged into it. */
import { $, bytes, h, icon, number, plural, say, spoken } from "./dom.js";
import { address, link } from "./address.js";
import { get } from "./api.js";
import { merge, undo } from "./edits.js";
import { allowed } from "./ratings.js";
import { thumbnailOf } from "./api.js";

const PAGE = 20;
const KINDS = { pixels: "The same pixels", near: "Look alike" };

export async function showDuplicates(root, kind, close) {
  kind = kind in KINDS ? kind : "pixels";
  const title = h("h1", { tabIndex: -1 }, "Duplicates");
  const list = h("div", { class: "groups" });
  const tabs = h("nav", { class: "segments", aria: { label: "How alike" } }, Object.entries(KINDS).map(([name, text]) =>
    h("a", { class: "seg", href: link({ view: "duplicates", kind: name }), aria: { current: name === kind ? "page" : null }, onclick: (event) => (event.preventDefault(), address.replace({ kind: name })) }, h("span", {}, text))));
  root.hidden = false;
  root.replaceChildren(
    h("header", { class: "viewbar" }, h("button", { type: "button", class: "quiet back", title: "Back to the pictures", aria: { label: "Back to the pictures" }, onclick: close }, icon("left")), title, tabs),
    h("main", { class: "duplicates", aria: { label: "Duplicates" } }, list));
  document.title = "Duplicates · efuda";
  title.focus({ preventScroll: true });
  list.append(h("p", { class: "faint" }, "Looking …"));
  await load(list, kind, 0);
}

async function load(list, kind, offset) {
  try {
    const { total, groups } = await get("/api/duplicates", { kind, offset, limit: PAGE });
    if (!offset) list.replaceChildren(total ? h("p", { class: "faint" }, `${plural(total, "group")}. Merging keeps one picture, gives it the tags of the others, and takes those out of the collection; no file is deleted.`) : nothing(kind));
    list.append(...groups.map((group) => groupOf(group)));
    if (offset + groups.length < total && groups.length) list.append(more(list, kind, offset + groups.length, total));
    say(plural(total, "group"));
  } catch (error) {
    list.replaceChildren(h("p", { class: "bad" }, error.message));
  }
}

function nothing(kind) {
  return h("div", { class: "empty" }, icon("twins"), h("p", {}, kind === "pixels" ? "No two pictures have the same pixels." : "No two pictures look alike."));
}

function more(list, kind, offset, total) {
  const button = h("button", { type: "button", class: "button", onclick: () => {
    button.remove();
    load(list, kind, offset);
  } }, `Show more (${number(total - offset)} left)`);
  return button;
}

const better = (a, b) => b.width * b.height - a.width * a.height || b.bytes - a.bytes;

function groupOf({ pictures, shared_tags: shared }) {
  const best = [...pictures].sort(better)[0];
  const name = `keep-${pictures[0].id}`;
  const form = h("form", { class: "group", aria: { label: `Pictures ${pictures.map((picture) => picture.id).join(", ")}` }, onsubmit: async (event) => {
    event.preventDefault();
    const keep = Number(new FormData(form).get(name));
    const operation = await merge(keep, pictures.map((picture) => picture.id).filter((id) => id !== keep));
    if (operation) done(form, operation, keep);
  } });
  form.append(
    h("div", { class: "choicesrow" }, pictures.map((picture) => choice(picture, name, picture === best))),
    h("div", { class: "line" }, h("span", { class: "faint" }, plural(shared, "tag in common", "tags in common")), h("button", { type: "submit", class: "button strong" }, "Keep the chosen one, merge the rest")));
  return form;
}

function choice(picture, name, checked) {
  const only = picture.only_tags ?? [];
  const seen = allowed(picture.rating);
  return h("div", { class: "twin" },
    h("a", { class: seen ? "thumb" : "thumb covered", href: link({ id: picture.id }), aria: { label: `Open picture ${picture.id}` }, onclick: (event) => (event.preventDefault(), address.go({ id: picture.id })) },
      seen ? h("img", { alt: "", loading: "lazy", src: thumbnailOf(picture) }) : h("span", {}, picture.rating ?? "not rated")),
    h("label", { class: "choice" }, h("input", { type: "radio", name, value: picture.id, checked }), h("span", {}, `Keep ${picture.id}`)),
    h("p", { class: "faint" }, `${number(picture.width)} × ${number(picture.height)} · ${bytes(picture.bytes)} · ${picture.filetype.toUpperCase()}`),
    only.length ? h("p", { class: "only" }, h("span", { class: "faint" }, "Only here: "), only.slice(0, 8).map(spoken).join(", "), only.length > 8 ? ` and ${only.length - 8} more` : "") : null);
}

function done(form, operation, keep) {
  const back = h("button", { type: "button", class: "button plain", onclick: async () => {
    if (await undo(operation.id)) dispatchEvent(new Event("efuda:duplicates"));
  } }, "Undo");
  const line = h("p", { class: "merged", tabIndex: -1 }, icon("check"), `Merged into picture ${keep}. `, back);
  form.replaceWith(line);
  line.focus();
}

export const leaveDuplicates = () => $("view").replaceChildren();
