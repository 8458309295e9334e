/* The URL holds the state: what is searched, which picture is open, which view and panel, and how far one scrolled.

   address.now        {q: "hat", id: 12, view: "", kind: "", panel: "", at: 0}
   address.go({id: 3})             a step that "back" undoes
   address.replace({at: 400})      none */

const EMPTY = { q: "", id: null, view: "", kind: "", panel: "", at: 0 };
const LATE = 1000; // ms after which a step back is not waited for any longer
const watchers = new Set();
const waiting = []; // moves asked for during a step back
let leaving = 0; // the timer of a step back that is under way
let now = read();

function read() {
  const params = new URLSearchParams(location.search);
  const whole = (name) => (/^\d{1,15}$/.test(params.get(name) ?? "") ? Number(params.get(name)) : null);
  return {
    q: params.get("q") ?? "",
    id: whole("id"),
    view: params.get("view") ?? "",
    kind: params.get("kind") ?? "",
    panel: params.get("panel") ?? "",
    at: whole("at") ?? 0,
  };
}

export function link(changes) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...now, panel: "", ...changes })) {
    if (value !== EMPTY[name] && value !== null && value !== "") params.set(name, value);
  }
  const text = params.toString();
  return text ? `/?${text}` : "/";
}

function tell(before) {
  for (const fn of watchers) fn(now, before);
}

function move(changes, how) {
  if (leaving) return waiting.push([changes, how]); // a step back is under way: one thing after the other
  const before = now;
  const url = link(changes);
  now = { ...now, panel: "", ...changes };
  if (how === "pushState") history.pushState({ depth: (history.state?.depth ?? 0) + 1 }, "", url);
  else history.replaceState(history.state, "", url);
  return tell(before);
}

addEventListener("popstate", () => {
  const before = now;
  now = read();
  tell(before);
  arrived();
});

function arrived() {
  clearTimeout(leaving);
  leaving = 0;
  for (const [changes, how] of waiting.splice(0)) move(changes, how);
}

export const address = {
  get now() { return now; },
  go: (changes) => move(changes, "pushState"),
  replace: (changes) => move({ panel: now.panel, ...changes }, "replaceState"),
  /** One step back if the page was reached from here, otherwise a step on to `changes`. */
  back(changes) {
    if (leaving) return;
    if ((history.state?.depth ?? 0) > 0) {
      leaving = setTimeout(arrived, LATE);
      history.back();
    } else move(changes, "replaceState");
  },
  watch: (fn) => watchers.add(fn),
};
