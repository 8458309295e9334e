/* A field that completes what is typed (the WAI-ARIA combobox with a list): arrows choose, Enter takes, Escape closes.

   combobox({input, list, suggest: async (text, at, signal) => ({start, end, suggestions}), submit: (text) => …}) */
import { h, later, plural, say, shortNumber, spoken } from "./dom.js";
import { isStale } from "./api.js";

const WAIT = 60; // ms of not typing

export function combobox({ input, list, suggest, submit, spaceAfter = true }) {
  let completion = { start: 0, end: 0, suggestions: [] };
  let chosen = -1;
  let stop = null;
  let stale = false;

  for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list.id, autocomplete: "off", autocapitalize: "none", spellcheck: "false", enterkeyhint: "search" })) input.setAttribute(name, value);
  list.setAttribute("role", "listbox");
  list.hidden = true;

  const ask = later(WAIT, async () => {
    stop?.abort();
    stop = new AbortController();
    try {
      show(await suggest(input.value, input.selectionStart ?? input.value.length, stop.signal));
    } catch (error) {
      if (!isStale(error)) close(); // what is wrong with the search is said when it is sent
    }
  });

  function show(found) {
    if (document.activeElement !== input) return close();
    completion = found;
    stale = false;
    chosen = -1;
    list.replaceChildren(...found.suggestions.map(option));
    mark();
    open(found.suggestions.length > 0);
    if (found.suggestions.length) say(plural(found.suggestions.length, "suggestion"));
    return undefined;
  }

  function option(suggestion, number) {
    const { label, category, count, antecedent } = suggestion;
    const name = h("span", { class: "name" }, antecedent ? h("span", { class: "alias" }, `${spoken(antecedent)} → `) : null, label);
    return h("div", { id: `${list.id}-${number}`, class: "option", role: "option", data: { category: category ?? "word" }, aria: { selected: "false" },
      onmousedown: (event) => event.preventDefault(), onclick: () => take(number) },
    name, category && category !== "general" ? h("span", { class: "kind" }, category) : null,
    count === null || count === undefined ? null : h("span", { class: "count" }, shortNumber(count)));
  }

  function open(wanted) {
    list.hidden = !wanted;
    input.setAttribute("aria-expanded", String(wanted));
    if (!wanted) input.removeAttribute("aria-activedescendant");
  }

  function close() {
    ask.cancel();
    stop?.abort();
    open(false);
  }

  function mark() {
    [...list.children].forEach((element, number) => element.setAttribute("aria-selected", String(number === chosen)));
    if (chosen < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", list.children[chosen].id);
    list.children[chosen].scrollIntoView({ block: "nearest" });
    return undefined;
  }

  function take(number) {
    if (stale) return;
    const { value } = completion.suggestions[number];
    const rest = input.value.slice(completion.end).trimStart();
    const space = spaceAfter && !value.endsWith(":") ? " " : "";
    input.value = input.value.slice(0, completion.start) + value + (space || (rest ? " " : "")) + rest;
    const at = completion.start + value.length + space.length;
    input.setSelectionRange(at, at);
    close();
    if (value.endsWith(":")) ask();
    input.dispatchEvent(new Event("completed"));
  }

  input.addEventListener("input", () => {
    stale = true; // what is listed belongs to the text before
    chosen = -1;
    mark();
    ask();
  });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    const count = list.hidden ? 0 : completion.suggestions.length;
    if (event.isComposing) return;
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !event.altKey) {
      event.preventDefault();
      if (!count) return ask();
      const step = event.key === "ArrowDown" ? 1 : -1;
      chosen = chosen < 0 && step < 0 ? count - 1 : (chosen + step + count + 1) % (count + 1);
      if (chosen === count) chosen = -1;
      mark();
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (count && chosen >= 0) return take(chosen);
      close();
      submit(input.value, event);
    } else if (event.key === "Escape" && count) {
      event.preventDefault();
      event.stopPropagation();
      close();
    } else if (event.key === "Tab" && count && chosen >= 0) {
      event.preventDefault();
      take(chosen);
    }
    return undefined;
  });
  return { close, ask };
}
