/* Short messages at the foot of the page: toast("Added hat to 3 pictures", {action: "Undo", run}). */
import { $, h, iconButton, say } from "./dom.js";

const STAYS = 9000; // ms; pointing at it or focusing it holds it
const MOST = 3;

export function toast(text, { action = "", run = null, bad = false } = {}) {
  let timer = 0;
  const close = () => {
    clearTimeout(timer);
    element.remove();
  };
  const start = () => (timer = setTimeout(close, STAYS));
  const act = () => {
    close();
    run();
  };
  const element = h("div", { class: bad ? "toast bad" : "toast", onpointerenter: () => clearTimeout(timer), onpointerleave: start, onfocusin: () => clearTimeout(timer), onfocusout: start },
    h("span", {}, text),
    action ? h("button", { type: "button", class: "action", onclick: act }, action) : null,
    iconButton("close", "Dismiss", close));
  const place = $("toasts");
  while (place.children.length >= MOST) place.firstElementChild.remove();
  place.append(element);
  start();
  say(text);
}

export const complain = (error) => toast(error.message, { bad: true });
