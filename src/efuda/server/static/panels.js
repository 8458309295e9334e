/* Panels over the page — the keys, settings, history, jobs, ratings — each a dialog that the URL names.

   panel("history", "History", async (body) => { … return cleanUp });  openPanel("history") */
import { h, iconButton } from "./dom.js";
import { address } from "./address.js";

const known = new Map();
let shown = null; // {name, dialog, tidy}

export function panel(name, title, build, { wide = false } = {}) {
  known.set(name, { title, build, wide });
}

export function openPanel(name) {
  if (address.now.panel === name) return;
  if (address.now.panel) address.replace({ panel: name });
  else address.go({ panel: name });
}

export const closePanel = () => address.back({ panel: "" });

/** Builds an open panel again, because what it shows has changed. */
export function refreshPanel(name) {
  if (shown?.name === name) fill(shown);
}

function fill(one) {
  one.tidy?.();
  const focused = one.body.contains(document.activeElement);
  const result = known.get(one.name).build(one.body);
  one.tidy = null;
  Promise.resolve(result).then((tidy) => {
    if (typeof tidy === "function") one.tidy = tidy;
    if (focused && !one.body.contains(document.activeElement)) one.dialog.querySelector("h2").focus();
  });
}

function show(name) {
  const { title, wide } = known.get(name);
  const body = h("div", { class: "body" });
  const head = h("h2", { id: "paneltitle", tabIndex: -1 }, title);
  const dialog = h("dialog", { class: wide ? "panel wide" : "panel", data: { name }, aria: { labelledby: "paneltitle" } },
    h("header", {}, head, iconButton("close", "Close", closePanel)), body, h("div", { class: "live unseen", role: "status" }));
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    closePanel();
  });
  dialog.addEventListener("click", (event) => event.target === dialog && closePanel());
  const before = document.activeElement;
  document.body.append(dialog);
  dialog.showModal();
  head.focus();
  shown = { name, dialog, body, tidy: null, before };
  fill(shown);
}

function hide() {
  const { dialog, tidy, before } = shown;
  tidy?.();
  dialog.close();
  dialog.remove();
  shown = null;
  if (before?.isConnected) before.focus({ preventScroll: true });
}

export function startPanels() {
  const follow = (now) => {
    if (shown && shown.name !== now.panel) hide();
    if (!shown && known.has(now.panel)) show(now.panel);
  };
  address.watch(follow);
  follow(address.now);
}
