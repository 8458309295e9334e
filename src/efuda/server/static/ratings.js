/* Which ratings are shown: only general ones until the person chooses otherwise; remembered in this browser. */
import { $, h, icon, number } from "./dom.js";
import { panel } from "./panels.js";
import { settings } from "./settings.js";

const NAMES = {
  general: "General",
  sensitive: "Sensitive",
  questionable: "Questionable",
  explicit: "Explicit",
  none: "Not rated",
};

export function startRatings(status) {
  panel("ratings", "What is shown", (body) => build(body, status()));
  settings.watch((name) => name === "ratings" && showButton());
}

export const allowed = (rating) => settings.ratings.includes(rating ?? "none");

export function ratingsButton(open) {
  const button = h("button", { type: "button", id: "ratingsbutton", class: "button", onclick: open }, icon("shield"), h("span", { class: "text" }));
  queueMicrotask(showButton);
  return button;
}

function summary() {
  const chosen = Object.keys(NAMES).filter((name) => settings.ratings.includes(name));
  if (chosen.length === Object.keys(NAMES).length) return "All ratings";
  if (chosen.length === 1) return NAMES[chosen[0]];
  return chosen.length ? `${chosen.length} ratings` : "Nothing";
}

function showButton() {
  const button = $("ratingsbutton");
  button.querySelector(".text").textContent = summary();
  button.setAttribute("aria-label", `Ratings shown: ${summary()}`);
}

function build(body, { ratings, pictures }) {
  const rated = Object.values(ratings ?? {}).reduce((sum, count) => sum + count, 0);
  const counts = { none: Math.max(0, (pictures ?? 0) - rated), ...ratings };
  const box = (name) => h("label", { class: "choice" },
    h("input", { type: "checkbox", name, checked: settings.ratings.includes(name), onchange: (event) => choose(name, event.target.checked) }),
    h("span", {}, NAMES[name]), h("span", { class: "count" }, number(counts[name] ?? 0)));
  body.replaceChildren(h("fieldset", { class: "choices" }, h("legend", {}, "Show pictures rated"), Object.keys(NAMES).map(box)),
    h("p", { class: "faint" }, "Remembered in this browser only. Pictures of other ratings are left out everywhere: in searches, among similar ones, and from edits of all that was found."));
}

function choose(name, wanted) {
  settings.set("ratings", Object.keys(NAMES).filter((one) => (one === name ? wanted : settings.ratings.includes(one))));
}
