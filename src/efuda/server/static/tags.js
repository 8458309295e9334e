/* The tags of one picture, by category, each with its score and where it comes from, and what one can do about it. */
import { h, icon, iconButton, number, plural, spoken } from "./dom.js";
import { link } from "./address.js";
import { written } from "./query.js";

const ORDER = ["artist", "copyright", "character", "general", "meta"];
const TITLES = { artist: "Artist", copyright: "Series", character: "Characters", general: "Tags", meta: "About the picture" };
const ORIGINS = { person: "a person", model: "the model", import: "an import", implied: "implied" };

/** `act`: {search(name), why(name), confirm(name), refuse(name), allow(name)}; `why` is null without a tagger. */
export function tagList(picture, act) {
  const tags = picture.tags.filter((tag) => tag.category !== "rating");
  const groups = ORDER.map((category) => [category, tags.filter((tag) => tag.category === category)]).filter(([, found]) => found.length);
  const refused = picture.refused ?? [];
  return h("div", { class: "taglist", onkeydown: (event) => moved(event, act) },
    h("h2", { class: "unseen" }, "Tags"),
    groups.length ? null : h("p", { class: "faint" }, "It has no tags yet."),
    groups.map(([category, found]) => h("section", { data: { category } }, h("h3", {}, TITLES[category]), h("ul", {}, found.map((tag) => item(tag, act))))),
    refused.length ? h("section", { class: "refused" }, h("h3", {}, "Refused"), h("ul", {}, refused.map((tag) => refusal(tag, act)))) : null);
}

function item(tag, act) {
  const name = spoken(tag.name);
  const percent = tag.score === null ? null : Math.round(100 * tag.score);
  const row = h("li", { data: { tag: tag.name, by: tag.by } },
    h("a", { class: "tag", href: link({ q: written(tag.name), id: null, at: 0 }), title: plural(tag.count ?? 0, "picture"), onclick: (event) => follow(event, () => act.search(written(tag.name))) }, name),
    h("span", { class: "origin", title: origin(tag) }, icon(tag.by), h("span", { class: "unseen" }, `, ${origin(tag)}`)),
    percent === null ? h("span", { class: "score" }) : h("span", { class: "score" }, `${percent}`, h("span", { class: "unseen" }, " percent")),
    h("span", { class: "acts" },
      act.why && tag.by === "model" ? iconButton("why", `Why ${name}?`, () => act.why(tag.name), { class: "quiet why", aria: { label: `Why ${name}?`, pressed: "false" } }) : null,
      tag.by === "person" ? null : iconButton("check", `Confirm ${name}`, () => act.confirm(tag.name), { data: { act: "confirm" } }),
      iconButton("close", `Remove ${name}`, () => act.refuse(tag.name), { data: { act: "refuse" } })));
  row.style.setProperty("--score", tag.score ?? 0);
  return row;
}

function refusal(tag, act) {
  const name = spoken(tag.name);
  return h("li", { data: { tag: tag.name } }, h("s", { class: "tag" }, name), h("span", { class: "acts" },
    iconButton("undo", `No longer refuse ${name}`, () => act.allow(tag.name))));
}

function origin(tag) {
  const at = tag.at ? `, ${tag.at.slice(0, 10)}` : "";
  if (tag.by === "implied") return tag.source ? `implied by ${spoken(tag.source)}` : "implied";
  return `by ${ORIGINS[tag.by] ?? tag.by}${tag.source && tag.by !== "person" ? ` ${tag.source}` : ""}${at}`;
}

function follow(event, go) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go();
}

/** Up and down go from tag to tag; Delete removes the one that has the focus. */
function moved(event, act) {
  const row = event.target.closest("li");
  if (!row || event.ctrlKey || event.metaKey || event.altKey) return;
  const links = [...event.currentTarget.querySelectorAll("a.tag")];
  const here = links.indexOf(row.querySelector("a.tag"));
  if ((event.key === "ArrowDown" || event.key === "ArrowUp") && here >= 0) {
    links[here + (event.key === "ArrowDown" ? 1 : -1)]?.focus();
  } else if (event.key === "Delete" && here >= 0) act.refuse(row.dataset.tag);
  else if (event.key === "w" && row.querySelector(".why")) act.why(row.dataset.tag);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

export function ratingsOf(picture) {
  return Object.entries(picture.ratings ?? {}).map(([name, score]) => `${name} ${number(Math.round(100 * score))} %`).join(", ");
}
