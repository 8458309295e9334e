/* One picture: the picture itself, its tags and where they come from, why a tag is there, its facts, and similar ones. */
import { $, bytes, day, h, icon, iconButton, narrow, number, say, spoken, when } from "./dom.js";
import { address, link } from "./address.js";
import { explanationOf, get, isStale, originalOf, previewOf, thumbnailOf } from "./api.js";
import { combobox } from "./combobox.js";
import { edit } from "./edits.js";
import { suggestTags, tagsOf } from "./editbar.js";
import { ratingTerm } from "./query.js";
import { allowed } from "./ratings.js";
import { search } from "./searchbox.js";
import { selection } from "./selection.js";
import { settings } from "./settings.js";
import { ratingsOf, tagList } from "./tags.js";

const RATINGS = ["general", "sensitive", "questionable", "explicit"];
const SHOWN = new Set(["jpg", "jpeg", "png", "gif", "webp", "avif"]); // by every browser
const MOVING = new Set(["mp4", "webm"]);
const LARGE = 6_000_000; // pixels from which a preview is enough

/** The view; `near(id, step)` gives the picture before or after in the results, `status()` what the server can do. */
export class PictureView {
  constructor({ near, place, status }) {
    Object.assign(this, { near, place, status, id: null, picture: null, why: null, stop: null, uncovered: new Set() });
    this.root = $("view");
    addEventListener("efuda:edited", () => this.id !== null && this.reload());
    selection.watch(() => this.id !== null && this.markSelected());
    this.listenToSwipes();
  }

  get open() { return this.id !== null; }

  async show(id) {
    const fresh = this.id === null;
    this.id = id;
    this.picture = null;
    this.why = null;
    this.root.hidden = false;
    if (fresh) this.build();
    this.stop?.abort();
    this.stop = new AbortController();
    this.head();
    const { card } = this.place(id);
    this.stage.replaceChildren(card && allowed(card.rating) ? h("img", { class: "under", alt: "", src: thumbnailOf(card) }) : "");
    try {
      const picture = await get(`/api/pictures/${id}`, {}, this.stop.signal);
      if (this.id !== id) return;
      this.picture = picture;
      this.fill();
      this.similar(id);
      for (const step of [1, -1]) this.near(id, step).then((other) => other && SHOWN.has(other.filetype) && preload(other));
    } catch (error) {
      if (!isStale(error)) this.failed(error);
    }
  }

  /** After an edit: the facts again, the picture stays. */
  async reload() {
    try {
      const picture = await get(`/api/pictures/${this.id}`);
      if (picture.id !== this.id) return;
      this.picture = picture;
      this.details();
    } catch (error) {
      if (!isStale(error)) this.failed(error);
    }
  }

  hide() {
    this.stop?.abort();
    this.id = null;
    this.picture = null;
    this.root.hidden = true;
    this.root.replaceChildren();
  }

  close() { address.back({ id: null }); }

  failed(error) {
    this.stage.replaceChildren(h("div", { class: "veil" }, h("p", {}, error.message), h("button", { type: "button", class: "button", onclick: () => this.close() }, "Back to the pictures")));
    this.info.replaceChildren();
    say(error.message);
  }

  build() {
    this.stage = h("figure", { class: "stage" });
    this.info = h("div", { class: "info", tabIndex: -1, role: "region", aria: { label: "About this picture" } });
    this.title = h("h1", { tabIndex: -1 });
    this.count = h("span", { class: "faint count" });
    this.previous = iconButton("left", "Previous picture", () => this.step(-1));
    this.next = iconButton("right", "Next picture", () => this.step(1));
    this.select = iconButton("check", "Select", () => selection.toggle(this.id), { class: "quiet select", aria: { label: "Select", pressed: "false" } });
    this.original = h("a", { class: "quiet", target: "_blank", rel: "noopener", title: "Open the original", aria: { label: "Open the original" } }, icon("out"));
    this.root.replaceChildren(
      h("header", { class: "viewbar" }, iconButton("left", "Back to the pictures", () => this.close(), { class: "quiet back" }), this.title, this.count,
        h("div", { class: "steps" }, this.previous, this.next), this.select, this.original),
      h("main", { class: "viewbody", aria: { label: "Picture" } }, this.stage, this.info));
    this.title.focus({ preventScroll: true });
  }

  head() {
    const { index, total } = this.place(this.id);
    this.title.textContent = this.picture?.name ?? `Picture ${this.id}`;
    this.count.textContent = index < 0 ? "" : `${number(index + 1)} of ${number(total)}`;
    this.previous.disabled = index <= 0;
    this.next.disabled = index < 0 || index + 1 >= total;
    this.original.href = originalOf(this.id);
    document.title = `Picture ${this.id} · efuda`;
    this.markSelected();
  }

  markSelected() {
    this.select.setAttribute("aria-pressed", selection.has(this.id));
  }

  async step(by) {
    const other = await this.near(this.id, by);
    if (!other) return;
    const focused = this.root.contains(document.activeElement) ? document.activeElement : null;
    address.replace({ id: other.id });
    say(`Picture ${other.id}`);
    if (focused?.disabled || !focused?.isConnected) this.title.focus({ preventScroll: true });
  }

  fill() {
    const { picture } = this;
    this.title.textContent = picture.name;
    if (allowed(picture.rating) || this.uncovered.has(picture.id)) this.paint();
    else this.cover();
    this.info.replaceChildren(this.aboutTags = h("div", { class: "about" }), this.alike = h("section", { class: "alike" }), this.facts = h("section", { class: "facts" }));
    this.details();
    const most = picture.tags.slice(0, 8).map((tag) => spoken(tag.name)).join(", ");
    say(`${picture.name}. ${most || "No tags"}`);
  }

  cover() {
    const words = this.picture.rating ? `It is rated ${this.picture.rating}` : "It is not rated";
    this.stage.replaceChildren(h("div", { class: "veil" }, icon("eye"), h("p", {}, `${words}, which you have chosen not to see.`),
      h("button", { type: "button", class: "button", onclick: () => {
        this.uncovered.add(this.id);
        this.paint();
        this.title.focus();
      } }, "Show it this once")));
  }

  paint() {
    const { picture } = this;
    const tags = picture.tags.slice(0, 12).map((tag) => spoken(tag.name)).join(", ");
    if (MOVING.has(picture.filetype)) {
      this.stage.replaceChildren(h("video", { controls: true, loop: true, src: originalOf(picture.id), poster: thumbnailOf(picture) }));
      return;
    }
    const image = h("img", { class: "full", alt: tags || `Picture ${picture.id}`, decoding: "async", onload: () => image.classList.add("here"), onclick: () => this.zoom(),
      onerror: () => !image.dataset.again && ((image.dataset.again = "yes"), (image.src = previewOf(picture))) });
    image.src = sourceOf(picture);
    this.frame = h("div", { class: "frame" }, h("img", { class: "under", alt: "", src: thumbnailOf(picture) }), image);
    this.frame.style.setProperty("--w", picture.width);
    this.frame.style.setProperty("--h", picture.height);
    this.stage.replaceChildren(this.frame);
  }

  /** As large as it is, or as large as fits. */
  zoom() {
    const image = this.frame?.querySelector(".full");
    if (!image || !this.picture) return;
    const actual = this.stage.classList.toggle("actual");
    if (actual && SHOWN.has(this.picture.filetype)) image.src = originalOf(this.id);
    say(actual ? "Actual size" : "Fitted");
  }

  // ── tags and facts ────────────────────────────────────────────────────────────────────────────────────────────────

  details() {
    const focused = this.aboutTags.contains(document.activeElement) ? document.activeElement : null;
    const typed = $("addtag")?.value ?? "";
    const act = {
      search,
      why: this.status().tagger ? (name) => this.explain(name) : null,
      confirm: (name) => this.change({ add: [name] }),
      refuse: (name) => this.change({ remove: [name] }),
      allow: (name) => this.change({ forget: [name] }),
    };
    const row = focused?.closest("li");
    const neighbour = (row?.nextElementSibling ?? row?.previousElementSibling)?.dataset.tag;
    this.aboutTags.replaceChildren(this.rating(), this.adder(typed), tagList(this.picture, act));
    this.showFacts();
    if (this.why) this.markWhy();
    if (!focused) return;
    if (focused.id) $(focused.id)?.focus();
    else this.rowOf(row?.dataset.tag, neighbour)?.focus();
  }

  rowOf(...names) {
    const links = [...this.aboutTags.querySelectorAll("a.tag")];
    for (const name of names) {
      const found = links.find((one) => one.parentElement.dataset.tag === name);
      if (found) return found;
    }
    return $("addtag");
  }

  change(what) { return edit({ pictures: [this.id] }, what); }

  rating() {
    const { rating } = this.picture;
    const one = (name) => h("label", { class: "seg" }, h("input", { type: "radio", name: "rating", id: `rate-${name}`, value: name, checked: rating === name, onchange: () => this.change({ rating: name }) }), h("span", {}, name));
    return h("fieldset", { class: "segments rate", title: ratingsOf(this.picture) }, h("legend", { class: "unseen" }, "Rating"), RATINGS.map(one));
  }

  adder(typed) {
    const input = h("input", { id: "addtag", type: "text", value: typed, aria: { label: "Add tags" }, placeholder: "Add a tag" });
    const list = h("div", { id: "addsuggestions", class: "options", aria: { label: "Suggested tags" } });
    const submit = async (text) => {
      const words = tagsOf(text);
      if (!words.length) return;
      const add = words.filter((word) => !word.startsWith("-"));
      const remove = words.filter((word) => word.startsWith("-")).map((word) => word.slice(1));
      input.value = "";
      if (!(await this.change({ add, remove }))) input.value = text;
    };
    const form = h("form", { class: "field", onsubmit: (event) => event.preventDefault() }, h("span", { class: "glass", aria: { hidden: "true" } }, icon("plus")), input, list);
    combobox({ input, list, suggest: suggestTags, submit });
    return form;
  }

  async explain(name) {
    const again = this.why === name;
    this.why = again ? null : name;
    this.stage.querySelector(".heat")?.remove();
    this.stage.querySelector("figcaption")?.remove();
    this.markWhy();
    if (again || !this.picture || !this.frame?.isConnected) return;
    const caption = h("figcaption", {}, h("span", {}, `Looking for what made it ${spoken(name)} …`), iconButton("close", "Hide the heat map", () => this.explain(name)));
    const heat = h("img", { class: "heat", alt: `Where ${spoken(name)} was seen`, onload: () => {
      caption.firstChild.textContent = `Why ${spoken(name)}: the warmer, the more it counted`;
      heat.classList.add("here");
      say(caption.firstChild.textContent);
    }, onerror: () => {
      caption.firstChild.textContent = `The server cannot explain ${spoken(name)} now.`;
      say(caption.firstChild.textContent);
    } });
    heat.src = explanationOf(this.picture, name, this.status().tagger);
    this.frame.append(heat);
    this.stage.append(caption);
  }

  markWhy() {
    for (const button of this.aboutTags.querySelectorAll(".why")) button.setAttribute("aria-pressed", String(button.closest("li").dataset.tag === this.why));
  }

  async similar(id) {
    this.alike.replaceChildren(h("h2", {}, "Similar"), h("p", { class: "faint" }, "Looking …"));
    try {
      const found = await get(`/api/pictures/${id}/similar`, { limit: 12, q: ratingTerm(settings.ratings) }, this.stop.signal);
      if (this.id !== id) return;
      const tiles = found.pictures.map((picture) => {
        const percent = `${Math.round(100 * picture.similarity)} %`;
        return h("li", {}, h("a", { href: link({ id: picture.id }), title: `${percent} similar`, aria: { label: `Picture ${picture.id}, ${percent} similar` }, onclick: (event) => {
          event.preventDefault();
          address.go({ id: picture.id });
          this.title.focus({ preventScroll: true });
        } }, h("img", { alt: "", loading: "lazy", decoding: "async", src: thumbnailOf(picture) })));
      });
      this.alike.replaceChildren(h("h2", {}, "Similar"), tiles.length ? h("ul", { class: "tiles" }, tiles) : h("p", { class: "faint" }, "None is known. Similar pictures are found once a model has looked at them."),
        tiles.length ? h("button", { type: "button", class: "button plain", onclick: () => search(`like:${id}`) }, "Show all like this") : "");
    } catch (error) {
      if (!isStale(error)) this.alike.replaceChildren(h("h2", {}, "Similar"), h("p", { class: "faint" }, error.message));
    }
  }

  showFacts() {
    const p = this.picture;
    const facts = [
      ["Size", `${number(p.width)} × ${number(p.height)}, ${bytes(p.bytes)}`],
      ["Type", p.filetype.toUpperCase()],
      ["Name", p.name],
      ["Folder", p.folder],
      ["Date", p.date && day(p.date)],
      ["Added", when(p.added)],
      ["Missing", p.missing && `since ${when(p.missing)}`],
      ["Source", p.source && sourceLink(p.source)],
      ["Parent", p.parent && this.jump(p.parent)],
      ["Children", p.children?.length ? p.children.map((id) => this.jump(id)) : null],
      ["Model", p.model],
      ["MD5", p.md5 && h("code", {}, p.md5)],
    ].filter(([, value]) => value);
    this.facts.replaceChildren(h("h2", {}, "Details"), h("dl", {}, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
  }

  jump(id) {
    return h("a", { href: link({ id }), onclick: (event) => (event.preventDefault(), address.go({ id })) }, `${id} `);
  }

  /** To the left is on, to the right is back, as in a phone's own gallery. */
  listenToSwipes() {
    let start = null;
    this.root.addEventListener("touchstart", (event) => {
      start = event.touches.length === 1 && event.target.closest(".stage:not(.actual)") ? event.touches[0] : null;
    }, { passive: true });
    this.root.addEventListener("touchend", (event) => {
      const end = event.changedTouches[0];
      if (!start || Math.abs(end.clientX - start.clientX) < 60 || Math.abs(end.clientY - start.clientY) > 60) return;
      this.step(end.clientX < start.clientX ? 1 : -1);
    }, { passive: true });
  }
}

function sourceOf(picture) {
  const small = narrow.matches && picture.filetype !== "gif";
  const heavy = picture.width * picture.height > LARGE;
  return SHOWN.has(picture.filetype) && !small && !heavy ? originalOf(picture.id) : previewOf(picture);
}

function preload(picture) {
  new Image().src = sourceOf(picture);
}

/** A link only where it leads to a page: a source is text from who knows where. */
function sourceLink(text) {
  const safe = /^https?:\/\//i.test(text);
  return safe ? h("a", { href: text, rel: "noopener noreferrer", target: "_blank" }, text.replace(/^https?:\/\//i, "")) : text;
}
