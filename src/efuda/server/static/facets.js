/* The tags of what is shown, by category: a click adds one to the search, minus (or alt and click) leaves it out. */
import { $, h, icon, iconButton, narrow, number, plural, shortNumber, spoken } from "./dom.js";
import { address } from "./address.js";
import { get, isStale } from "./api.js";
import { has, shown, terms, without, withTerm, written } from "./query.js";
import { search } from "./searchbox.js";
import { settings } from "./settings.js";

const MOST = 40; // of each category
const FEW = 6;  // of a category, before "more"; of general ones, all
const TITLES = { artist: "Artists", copyright: "Series", character: "Characters", general: "Tags", meta: "About the picture" };
let stop = null;

export async function showFacets(q) {
  stop?.abort();
  stop = new AbortController();
  const side = $("side");
  if (side.hidden) return;
  side.setAttribute("aria-busy", "true");
  try {
    const found = await get("/api/facets", { q: shown(q, settings.ratings).query, limit: MOST }, stop.signal);
    side.replaceChildren(head(), used(q), ...found.groups.map((group) => section(group, found.total, q)), foot(found));
  } catch (error) {
    if (isStale(error)) return;
    side.replaceChildren(head(), used(q), h("p", { class: "faint" }, error.kind === "query" ? "Tags are listed once the search is understood." : error.message));
  }
  side.removeAttribute("aria-busy");
}

/** Searches, and on a narrow screen shows what was found. */
function go(q) {
  search(q);
  if (narrow.matches) toggleSide(false);
}

function head() {
  return h("div", { class: "sidehead" }, h("h2", {}, "Tags"), iconButton("close", "Hide the tags", () => toggleSide(false)));
}

function used(q) {
  const words = terms(q).map((word) => word.text).filter((word) => !/^\(|\)$|^(or|and)$/i.test(word));
  if (!words.length) return "";
  return h("div", { class: "used", role: "group", aria: { label: "What is searched" } }, words.map((word) =>
    h("button", { type: "button", class: word.startsWith("-") ? "chip out" : "chip", title: `Take ${word} out of the search`, aria: { label: `Take ${word} out of the search` }, onclick: () => go(without(q, word)) },
      word, icon("close"))));
}

function section({ category, tags }, total, q) {
  const fresh = tags.filter(({ name }) => !has(q, written(name)));
  if (!fresh.length) return "";
  return h("section", { class: "facet", data: { category } },
    h("h3", {}, TITLES[category] ?? category),
    list(fresh, category === "general" ? fresh.length : FEW, total, q));
}

function list(tags, few, total, q) {
  const whole = h("ul", {}, tags.slice(0, tags.length > few + 1 ? few : tags.length).map((tag) => item(tag, total, q)));
  if (whole.children.length === tags.length) return whole;
  const more = h("li", { class: "more" }, h("button", { type: "button", class: "button plain", onclick: () => {
    more.remove();
    whole.append(...tags.slice(few).map((tag) => item(tag, total, q)));
    whole.children[few].querySelector("button").focus();
  } }, `${number(tags.length - few)} more`));
  whole.append(more);
  return whole;
}

function item({ name, count }, total, q) {
  const add = (event) => go(withTerm(q, written(name), event.altKey ? "-" : ""));
  const share = Math.max(0.01, total ? count / total : 0);
  const row = h("li", {},
    h("button", { type: "button", class: "tag", aria: { label: `${spoken(name)}, ${plural(count, "picture")}: add to the search` }, onclick: add,
      onkeydown: (event) => event.key === "-" && (event.preventDefault(), go(withTerm(q, written(name), "-"))) },
    h("span", { class: "name" }, spoken(name)), h("span", { class: "count", title: number(count) }, shortNumber(count))),
    iconButton("minus", `Leave out ${spoken(name)}`, () => go(withTerm(q, written(name), "-"))));
  row.style.setProperty("--share", share.toFixed(3));
  return row;
}

function foot({ exact }) {
  return exact ? "" : h("p", { class: "faint" }, "Counts are estimates: so many pictures are found.");
}

/** Shows or hides the list; on a narrow screen it lies over the pictures. */
export function toggleSide(wanted = $("side").hidden) {
  if (!narrow.matches) settings.set("side", wanted);
  place(wanted);
  if (wanted) {
    showFacets(address.now.q).then(() => narrow.matches && $("side").querySelector("button")?.focus());
  } else if (narrow.matches) $("tagsbutton")?.focus();
}

function place(wanted) {
  $("side").hidden = !wanted;
  $("tagsbutton")?.setAttribute("aria-expanded", String(wanted));
}

export function startSide() {
  place(!narrow.matches && settings.side);
  narrow.addEventListener("change", () => {
    place(!narrow.matches && settings.side);
    showFacets(address.now.q);
  });
  $("side").addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !narrow.matches) return;
    event.stopPropagation();
    toggleSide(false);
  });
}
