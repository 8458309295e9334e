/* Changing tags and ratings, and taking it back: edit({pictures: [1, 2]}, {add: ["hat"]}); undo(); redo().

   Whatever changes, "efuda:edited" is sent with the operation, so that what is on screen can be looked up again. */
import { plural, spoken } from "./dom.js";
import { post } from "./api.js";
import { complain, toast } from "./toasts.js";

export async function edit(target, change) {
  const operation = await ask("/api/edits", { ...target, ...change });
  if (operation) tell(operation, `${sentence(change)}: ${plural(operation.changed, "picture")}`);
  return operation;
}

export async function merge(keep, drop) {
  const operation = await ask("/api/duplicates/merge", { keep, drop });
  if (operation) tell(operation, `Merged ${plural(drop.length, "duplicate")} into one`);
  return operation;
}

export async function undo(id = null) {
  const operation = await ask("/api/undo", id === null ? {} : { operation: id });
  if (operation) toast(`Undone: ${operation.summary}${skipped(operation)}`, { action: "Redo", run: redo });
  return operation;
}

export async function redo() {
  const operation = await ask("/api/redo");
  if (operation) toast(`Done again: ${operation.summary}${skipped(operation)}`, { action: "Undo", run: () => undo() });
  return operation;
}

async function ask(path, body = {}) {
  try {
    const operation = await post(path, body);
    dispatchEvent(new CustomEvent("efuda:edited", { detail: operation }));
    return operation;
  } catch (error) {
    complain(error);
    return null;
  }
}

function tell(operation, text) {
  if (operation.changed) toast(text + skipped(operation), { action: "Undo", run: () => undo(operation.id) });
  else toast("Nothing to change: it was so already.");
}

const skipped = (operation) => (operation.skipped ? ` (${plural(operation.skipped, "picture")} left as changed since)` : "");

function sentence({ add = [], remove = [], forget = [], rating = null }) {
  const parts = [];
  const list = (tags) => tags.map(spoken).join(", ");
  if (add.length) parts.push(`Added ${list(add)}`);
  if (remove.length) parts.push(`Removed ${list(remove)}`);
  if (forget.length) parts.push(`Left ${list(forget)} to the model`);
  if (rating) parts.push(`Rated ${rating}`);
  return parts.join(", ");
}
