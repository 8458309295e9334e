/* The server's API: get("/api/search", {q}), post("/api/edits", {…}). What goes wrong is one kind of error, Failure. */

const PATIENCE = 3; // tries where the server says "later"

export class Failure extends Error {
  /** kind: the server's word ("query", "not_found", …), or "offline" where it does not answer. */
  constructor(kind, message, status = 0, more = {}) {
    super(message);
    Object.assign(this, { kind, status, position: more.position ?? null, suggestions: more.suggestions ?? [], query: more.query ?? "" });
  }
}

export const isStale = (error) => error.name === "AbortError";

export function get(path, params = {}, signal = undefined) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) if (value !== null && value !== undefined) search.set(name, value);
  const text = search.toString();
  return ask(text ? `${path}?${text}` : path, { signal }, PATIENCE);
}

export const post = (path, body = {}) => send("POST", path, body);
export const remove = (path) => send("DELETE", path);

function send(method, path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  return ask(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) }, 1);
}

async function ask(url, options, tries) {
  let answer;
  try {
    answer = await fetch(url, { credentials: "same-origin", ...options });
  } catch (error) {
    if (isStale(error)) throw error;
    throw new Failure("offline", "The server does not answer. Is “efuda serve” still running?");
  }
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  if ((answer.status === 429 || answer.status === 503) && tries > 1) {
    await new Promise((done) => setTimeout(done, 1000 * Math.min(3, Number(answer.headers.get("Retry-After")) || 1)));
    return ask(url, options, tries - 1);
  }
  throw await failure(answer);
}

async function failure(answer) {
  let body = {};
  try {
    body = await answer.json();
  } catch {
    // Not ours: a proxy's page, say.
  }
  if (answer.status === 401 && !answer.url.endsWith("/api/session")) dispatchEvent(new Event("efuda:signin"));
  return new Failure(body.error ?? "server", body.message ?? `The server answered ${answer.status}.`, answer.status, body);
}

/** Completions of a text at a cursor. The server counts characters, JavaScript halves of some: 𝄞 is one there, two here. */
export async function complete(text, at, limit, signal) {
  const found = await get("/api/complete", { q: text, at: [...text.slice(0, at)].length, limit }, signal);
  return { ...found, start: unitsOf(text, found.start), end: unitsOf(text, found.end) };
}

/** Where in a JavaScript string its `count`-th character begins. */
export const unitsOf = (text, count) => [...text].slice(0, count).join("").length;

const stamp = (id) => `/api/pictures/${id}`;
// Browsers keep these for ever, so their addresses change with the content.
const versionOf = ({ version, bytes }) => version ?? bytes.toString(16);
export const thumbnailOf = (picture) => `${stamp(picture.id)}/thumbnail?v=${versionOf(picture)}`;
export const previewOf = (picture) => `${stamp(picture.id)}/preview?v=${versionOf(picture)}`;
export const originalOf = (id) => `${stamp(id)}/original`;
export const explanationOf = (picture, tag, tagger) => `${stamp(picture.id)}/explain?tag=${encodeURIComponent(tag)}&v=${versionOf(picture)}-${encodeURIComponent(tagger)}`;
