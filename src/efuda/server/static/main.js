/* The gallery, put together: the address decides what is shown, and everything else asks for it there. */
import { $, h, icon, iconButton, later, narrow, number, plural, say, shortNumber } from "./dom.js";
import { address } from "./address.js";
import { get, isStale } from "./api.js";
import { editBar, focusEditBar } from "./editbar.js";
import { redo, undo } from "./edits.js";
import { showFacets, startSide, toggleSide } from "./facets.js";
import { Grid } from "./grid.js";
import { startHistory } from "./history.js";
import { jobChanged, startJobs } from "./jobs.js";
import { bind, listed, mention } from "./keys.js";
import { listen } from "./live.js";
import { openPanel, panel, refreshPanel, startPanels } from "./panels.js";
import { PictureView } from "./picture.js";
import { leaveDuplicates, showDuplicates } from "./duplicates.js";
import { orderOf, ratingTerm, shown, terms, withOrder, without } from "./query.js";
import { ratingsButton, startRatings } from "./ratings.js";
import { WINDOW, Results } from "./results.js";
import { focusSearch, search, searchBox, showProblem } from "./searchbox.js";
import { selection } from "./selection.js";
import { settings } from "./settings.js";
import { signIn, signOut } from "./signin.js";

const ORDERS = { "": "Newest first", id: "Oldest first", score: "Best score", mpixels: "Largest", filesize: "Heaviest", date: "Latest date", tagcount: "Most tags", random: "At random" };
let status = { pictures: 0, ratings: {}, tagger: null };
let results = null;
let grid = null;
let view = null;
let source = null;

// ── the results ─────────────────────────────────────────────────────────────────────────────────────────────────────

function run(at = 0) {
  results?.close();
  selection.clear();
  showProblem(null);
  for (const id of ["nothing", "hidden", "refresh"]) $(id).hidden = true;
  $("port").hidden = false;
  $("main").setAttribute("aria-busy", "true");
  const { q } = address.now;
  const mine = new Results(shown(q, settings.ratings).query, (first, last, isFirst) => {
    if (mine !== results) return;
    if (!isFirst) return grid.arrived(first, last);
    found();
    grid.show(mine, at); // until now, what was found before stays in sight
    return undefined;
  }, (error) => mine === results && failed(error));
  results = mine;
  results.need(at, at + WINDOW / 2);
  titled();
}

function titled() {
  if (address.now.id === null && !address.now.view) document.title = `${address.now.q || "All pictures"} · efuda`;
}

function found() {
  $("main").setAttribute("aria-busy", "false");
  summary();
  const none = results.total === 0;
  $("port").hidden = none;
  $("nothing").hidden = !none;
  if (none) $("nothing").replaceChildren(...nothing());
  say(plural(results.total, "picture"));
  showFacets(address.now.q);
  hiddenOnes(results);
  if (view.open) view.head();
}

async function failed(error) {
  $("main").setAttribute("aria-busy", "false");
  if (results.total !== null) return; // a later window: it is asked for again when it is looked at
  const { q } = address.now;
  $("port").hidden = true;
  let told = error;
  if (error.kind === "query" && results.query !== q) {
    try {
      await get("/api/search", { q, limit: 1 }); // without the filter, for the mark to be at the right character
    } catch (plain) {
      told = plain;
    }
  }
  $("count").textContent = "";
  showProblem(told, () => run());
  showFacets(q);
}

/** How many the rating filter hides of this search. */
async function hiddenOnes(mine) {
  if (!ratingTerm(settings.ratings)) return;
  try {
    const all = await get("/api/search", { q: address.now.q, limit: 1 });
    if (mine !== results || all.total <= results.total) return;
    const count = all.total - results.total;
    $("hidden").replaceChildren(`${narrow.matches ? shortNumber(count) : number(count)} hidden`, h("span", { class: narrow.matches ? "unseen" : null }, " by rating"));
    $("hidden").hidden = false;
    if (!mine.total) $("nothing").replaceChildren(...nothing(count));
  } catch (error) {
    if (!isStale(error)) $("hidden").hidden = true;
  }
}

function nothing(hidden = 0) {
  if (!status.pictures) {
    return [icon("tags"), h("h2", {}, "No pictures yet"), h("p", {}, "Add a folder on the server, and its pictures appear here while they are tagged:"),
      h("code", { class: "command" }, "efuda collection add COLLECTION FOLDER --model MODEL"),
      status.tagger ? h("button", { type: "button", class: "button", onclick: () => openPanel("jobs") }, "Tag a folder") : ""];
  }
  const words = terms(address.now.q).map((word) => word.text).filter((word) => !/^[()]+$|^(or|and)$/i.test(word));
  if (hidden) {
    return [icon("shield"), h("h2", {}, `${plural(hidden, "picture")} of other ratings`), h("p", {}, `Shown are pictures rated ${settings.ratings.join(", ").replace("none", "not at all") || "nothing"}.`),
      h("p", {}, h("button", { type: "button", class: "button strong", onclick: () => openPanel("ratings") }, "Choose what is shown"))];
  }
  return [icon("search"), h("h2", {}, "Nothing is found"),
    words.length > 1 ? h("p", {}, "Try it without ", words.map((word) => h("button", { type: "button", class: "chip", onclick: () => search(without(address.now.q, word)) }, word, icon("close")))) : "",
    words.length ? h("button", { type: "button", class: "button", onclick: () => search("") }, "Show all pictures") : ""];
}

function summary() {
  $("count").textContent = plural(results.total, "picture");
  $("order").value = orderOf(address.now.q) in ORDERS ? orderOf(address.now.q) : "";
}

function buildSummary() {
  const size = (name, text) => h("label", { class: "seg", title: text }, h("input", { type: "radio", name: "size", value: name, aria: { label: text }, checked: settings.size === name, onchange: () => settings.set("size", name) }), h("span", { aria: { hidden: "true" } }, text[0]));
  $("summary").append(
    h("button", { type: "button", id: "tagsbutton", class: "button plain", aria: { controls: "side", expanded: "false" }, onclick: () => toggleSide() }, icon("tags"), "Tags"),
    h("p", {}, h("span", { id: "count" }), " ", h("button", { type: "button", id: "hidden", class: "button plain", hidden: true, onclick: () => openPanel("ratings") })),
    h("button", { type: "button", id: "refresh", class: "button plain", hidden: true, onclick: refresh }, icon("refresh"), "Changed: show"),
    h("div", { class: "right" },
      h("fieldset", { class: "segments sizes" }, h("legend", { class: "unseen" }, "Size of the pictures"), size("small", "Small"), size("medium", "Medium"), size("large", "Large")),
      h("label", { class: "unseen", for: "order" }, "Order"),
      h("select", { id: "order", onchange: (event) => search(withOrder(address.now.q, event.target.value)) }, Object.entries(ORDERS).map(([name, text]) => h("option", { value: name }, text)))));
}

function refresh() {
  run(grid.active);
}

// ── the view over the pictures ──────────────────────────────────────────────────────────────────────────────────────

function showView(now, before) {
  const was = before.id !== null || before.view === "duplicates";
  const is = now.id !== null || now.view === "duplicates";
  $("gallery").inert = is;
  document.body.classList.toggle("viewing", is);
  if (now.id !== null) view.show(now.id);
  else {
    if (view.open) view.hide();
    if (now.view === "duplicates") showDuplicates($("view"), now.kind, () => address.back({ view: "", kind: "" }));
    else if (was) back(before);
  }
}

/** Back to the pictures, to the one that was open. */
function back(before) {
  leaveDuplicates();
  $("view").hidden = true;
  titled();
  const index = before.id === null ? -1 : results.indexOf(before.id);
  if (results.total) grid.focus(index >= 0 ? index : grid.active);
}

async function near(id, step) {
  const index = results?.indexOf(id) ?? -1;
  const other = index + step;
  if (index < 0 || other < 0 || other >= results.total) return null;
  await results.load(Math.floor(other / WINDOW));
  return results.at(other);
}

function place(id) {
  const index = results?.indexOf(id) ?? -1;
  return { index, total: results?.total ?? 0, card: results?.at(index) ?? null };
}

// ── panels, keys ────────────────────────────────────────────────────────────────────────────────────────────────────

function settingsPanel(body) {
  const radio = (name, value, text) => h("label", { class: "seg" }, h("input", { type: "radio", name, value, checked: settings[name] === value, onchange: () => settings.set(name, value) }), h("span", {}, text));
  body.replaceChildren(
    h("fieldset", { class: "segments" }, h("legend", {}, "Colours"), radio("theme", "auto", "As the system"), radio("theme", "light", "Light"), radio("theme", "dark", "Dark")),
    h("fieldset", { class: "segments" }, h("legend", {}, "Size of the pictures"), radio("size", "small", "Small"), radio("size", "medium", "Medium"), radio("size", "large", "Large")),
    h("label", { class: "choice" }, h("input", { type: "checkbox", checked: settings.shortcuts, onchange: (event) => settings.set("shortcuts", event.target.checked) }), h("span", {}, "Single keys do things (press ? for the list)")),
    h("h3", {}, "This collection"),
    h("dl", {}, [["Name", status.name], ["Pictures", number(status.pictures ?? 0)], ["Tags", number(status.tags ?? 0)], ["Tagger", status.tagger ?? "none"], ["efuda", status.version]].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value ?? "")))),
    status.needs_sign_in ? h("button", { type: "button", class: "button", onclick: signOut }, "Sign out") : "");
}

function helpPanel(body) {
  body.tabIndex = 0; // nothing in it takes the focus, yet it scrolls
  body.replaceChildren(...listed().map(([group, keys]) => h("section", {}, h("h3", {}, group), h("dl", { class: "keys" }, keys.map(({ keys: names, label }) =>
    h("div", {}, h("dt", {}, names.flatMap((name, i) => [i ? " or " : "", h("kbd", {}, name)])), h("dd", {}, label)))))));
}

function menuPanel(body) {
  const row = (name, text, act) => h("li", {}, h("button", { type: "button", class: "row", onclick: act }, icon(name), text));
  body.replaceChildren(h("ul", { class: "menu" },
    row("model", "Tag a folder", () => openPanel("jobs")),
    row("twins", "Duplicates", () => address.replace({ view: "duplicates", panel: "" })),
    row("history", "History", () => openPanel("history")),
    row("gear", "Settings", () => openPanel("settings")),
    row("keys", "Keys", () => openPanel("keys"))));
}

const duplicates = () => address.go({ view: "duplicates", id: null });

function buildTools() {
  $("tools").append(
    ratingsButton(() => openPanel("ratings")),
    h("button", { type: "button", id: "jobsbutton", class: "quiet wide", title: "Tag a folder", aria: { label: "Tag a folder" }, onclick: () => openPanel("jobs") }, icon("model"), h("span", { class: "text" })),
    iconButton("twins", "Duplicates", duplicates, { class: "quiet wide" }),
    iconButton("history", "History", () => openPanel("history"), { class: "quiet wide" }),
    iconButton("gear", "Settings", () => openPanel("settings"), { class: "quiet wide" }),
    iconButton("keys", "Keys", () => openPanel("keys"), { class: "quiet wide" }),
    iconButton("more", "Menu", () => openPanel("menu"), { class: "quiet small" }));
}

function bindKeys() {
  const browsing = () => address.now.id === null && !address.now.view;
  const looking = () => address.now.id !== null;
  const inGrid = (event) => browsing() && $("grid").contains(event.target);
  bind("Everywhere", ["/", "Ctrl+k"], "search", () => (browsing() || address.replace({ id: null, view: "" }), focusSearch()));
  bind("Everywhere", "?", "these keys", () => openPanel("keys"));
  bind("Everywhere", ["u", "Ctrl+z"], "undo the last change", () => undo());
  bind("Everywhere", ["Shift+u", "Ctrl+Shift+z", "Ctrl+y"], "do it again", () => redo());
  bind("Everywhere", "h", "history", () => openPanel("history"));
  bind("Everywhere", "j", "tag a folder, running jobs", () => openPanel("jobs"));
  bind("Everywhere", "d", "duplicates", duplicates);
  bind("Everywhere", "v", "ratings that are shown", () => openPanel("ratings"));
  bind("Everywhere", ",", "settings", () => openPanel("settings"));
  bind("Everywhere", "Escape", "close, go back, select nothing", leave, { typing: true });
  mention("Pictures", ["←", "→", "↑", "↓"], "to the next picture; with Shift, select on the way");
  mention("Pictures", ["Home", "End", "PgUp", "PgDn"], "along the row, a page; with Ctrl to the first or last");
  mention("Pictures", "Enter", "open");
  bind("Pictures", [" ", "x"], "select or not", () => grid.toggle(), { when: (event) => inGrid(event) || (browsing() && event.target === document.body) });
  bind("Pictures", "Ctrl+a", "select everything found", selectAll, { when: browsing });
  bind("Pictures", "e", "edit the tags of the selected", focusEditBar, { when: () => browsing() && selection.count > 0 });
  bind("Pictures", "t", "tags of what is found, to add to the search", () => toggleSide(), { when: browsing });
  bind("Pictures", "r", "search again", refresh, { when: browsing });
  bind("Pictures", "g", "to the pictures", () => grid.focus(), { when: browsing });
  bind("Pictures", ["+", "="], "larger pictures", () => resize(1), { when: browsing });
  bind("Pictures", "-", "smaller pictures", () => resize(-1), { when: browsing });
  bind("One picture", ["ArrowLeft", "p"], "the one before", () => view.step(-1), { when: looking });
  bind("One picture", ["ArrowRight", "n"], "the next", () => view.step(1), { when: looking });
  bind("One picture", "a", "add tags", () => $("addtag")?.focus(), { when: looking });
  bind("One picture", "s", "all similar ones", () => search(`like:${address.now.id}`), { when: looking });
  bind("One picture", ["1", "2", "3", "4"], "rate general, sensitive, questionable, explicit", (event) => view.change({ rating: ["general", "sensitive", "questionable", "explicit"][event.key - 1] }), { when: looking });
  bind("One picture", "z", "actual size, or fitted", () => view.zoom(), { when: looking });
  bind("One picture", "o", "open the original", () => view.original.click(), { when: looking });
  bind("One picture", "x", "select or not", () => selection.toggle(view.id), { when: looking });
  mention("One of its tags", ["↑", "↓"], "from tag to tag");
  mention("One of its tags", "W", "why this tag");
  mention("One of its tags", "Del", "remove it");
}

function leave(event) {
  if (event.target.closest?.("#editbar")) return grid.focus();
  if (event.target.closest?.("input, select") && event.target.closest("#view")) return view.title.focus();
  if (address.now.id !== null) return view.close();
  if (address.now.view) return address.back({ view: "", kind: "" });
  if (selection.count) return selection.clear();
  if (event.target.closest?.("#search") && results.total) return grid.focus();
  return false;
}

function resize(step) {
  const sizes = ["small", "medium", "large"];
  settings.set("size", sizes[Math.max(0, Math.min(2, sizes.indexOf(settings.size) + step))]);
  say(`${settings.size} pictures`);
}

function selectAll() {
  if (results?.total) selection.all(address.now.q, ratingTerm(settings.ratings), results.total);
}

// ── live ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The collection changed: at the top of the list, with nothing selected, look again; otherwise offer it. */
const lookAgain = later(700, async () => {
  if (!results || address.now.view) return;
  try {
    const now = await get("/api/search", { q: results.query, limit: 1 });
    if (now.total === results.total) return;
    const calm = grid.tall.top < 10 && !selection.count && !document.querySelector("dialog[open]") && !$("grid").contains(document.activeElement) && address.now.id === null;
    if (calm) run();
    else $("refresh").hidden = false;
    status = await get("/api/status");
  } catch {
    // The next change asks again.
  }
});

// ── the start ───────────────────────────────────────────────────────────────────────────────────────────────────────

function follow(now, before) {
  if (now.q !== before.q) run(now.at);
  if (now.id !== before.id || now.view !== before.view || now.kind !== before.kind) showView(now, before);
  if (now.panel !== before.panel && now.id === null && !now.view) titled();
}

async function start() {
  try {
    status = await get("/api/status");
    if (status.needs_sign_in && !status.signed_in) return signIn(begin);
    document.body.classList.toggle("readonly", Boolean(status.read_only));
    refreshPanel(address.now.panel);
    if (results?.total === 0) $("nothing").replaceChildren(...nothing());
  } catch (error) {
    if (error.status !== 401) showProblem(error, () => location.reload());
  }
  return undefined;
}

/** Everything that asks the server; again after signing in. */
function begin() {
  run(address.now.at);
  start();
  startJobs(() => status);
  source?.close();
  source = listen({ job: jobChanged, changed: lookAgain });
  if (address.now.id !== null || address.now.view) showView(address.now, { id: null, view: "" });
}

function build() {
  buildTools();
  buildSummary();
  searchBox($("search"));
  startSide();
  startRatings(() => status);
  startHistory();
  panel("settings", "Settings", settingsPanel);
  panel("keys", "Keys", helpPanel, { wide: true });
  panel("menu", "efuda", menuPanel);
  const remember = later(400, (at) => address.now.id === null && address.now.at !== at && address.replace({ at }));
  grid = new Grid($("port"), $("spacer"), $("grid"), {
    open: (index, id) => address.go({ id, at: address.now.at }),
    moved: remember,
  });
  view = new PictureView({ near, place, status: () => status });
  editBar(selectAll);
  bindKeys();
  address.watch(follow);
  settings.watch((name) => {
    if (name === "ratings") run();
    if (name === "size") for (const radio of document.querySelectorAll("input[name=size]")) radio.checked = radio.value === settings.size;
  });
  $("home").addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    search("");
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    grid.focus();
  });
  addEventListener("efuda:togrid", () => grid.focus());
  addEventListener("efuda:duplicates", () => address.now.view && showView(address.now, { id: null, view: "" }));
  addEventListener("efuda:signin", () => signIn(begin));
}

build();
begin();
startPanels();
