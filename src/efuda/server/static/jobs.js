/* Long jobs and how far they are, live; and starting one: tagging a folder that the collection knows. */
import { $, duration, h, icon, number, plural } from "./dom.js";
import { get, post, remove } from "./api.js";
import { panel } from "./panels.js";
import { complain, toast } from "./toasts.js";

const jobs = new Map();
const rows = new Map(); // of the open panel
let status = () => ({});
let list = null;

export function startJobs(currentStatus) {
  status = currentStatus;
  panel("jobs", "Tag a folder", build);
  load();
}

async function load() {
  try {
    for (const job of (await get("/api/jobs")).jobs) jobs.set(job.id, job);
    badge();
  } catch {
    // A server without jobs has none to show.
  }
}

/** A job started, went on or ended. */
export function jobChanged(job) {
  const before = jobs.get(job.id)?.state;
  jobs.set(job.id, job);
  badge();
  if (list) show(job);
  if (before === "running" && job.state === "done") toast(job.summary || "The job is done.");
  if (before === "running" && job.state === "failed") toast(job.summary || job.note || "The job failed.", { bad: true });
}

const running = () => [...jobs.values()].filter((job) => job.state === "running");
const share = ({ done, total }) => (total ? Math.min(1, done / total) : 0);

function badge() {
  const now = running();
  const button = $("jobsbutton");
  if (!button) return;
  button.classList.toggle("busy", now.length > 0);
  const text = now.length ? `${Math.round(100 * share(now[0]))} %` : "";
  button.querySelector(".text").textContent = text;
  button.setAttribute("aria-label", now.length ? `Tagging, ${text} done` : "Tag a folder");
}

async function build(body) {
  rows.clear();
  list = h("div", { class: "jobs" });
  body.replaceChildren(h("p", { class: "faint" }, "Looking for folders …"));
  try {
    const [{ folders }, found] = await Promise.all([get("/api/folders"), get("/api/jobs")]);
    for (const job of found.jobs) jobs.set(job.id, job);
    body.replaceChildren(starter(folders), list);
    for (const job of [...jobs.values()].sort((a, b) => (a.id < b.id ? -1 : 1))) show(job);
    if (!jobs.size) list.append(h("p", { class: "faint none" }, "No job has run since the server started."));
  } catch (error) {
    body.replaceChildren(h("p", { class: "bad" }, error.message));
  }
  return () => (list = null);
}

function starter(folders) {
  if (!status().tagger) return h("p", { class: "note" }, "The server runs without a tagger, so nothing can be tagged from here. Start it with one: ", h("code", {}, "efuda serve COLLECTION --model MODEL"));
  if (!folders.length) return h("p", { class: "note" }, "The collection knows no folder yet. Add one on the server: ", h("code", {}, "efuda collection add COLLECTION FOLDER --model MODEL"));
  const select = h("select", { id: "folder" }, folders.map((folder) => h("option", { value: folder.id }, `${folder.name} (${plural(folder.pictures, "picture")})`)));
  return h("form", { class: "starter", onsubmit: (event) => {
    event.preventDefault();
    start(select.value);
  } },
  h("label", { for: "folder" }, "Find and tag the new pictures in"), select,
  h("button", { type: "submit", class: "button strong" }, icon("model"), "Tag this folder"));
}

async function start(folder) {
  try {
    const job = await post("/api/jobs", { kind: "add", folder: Number(folder) });
    if (!jobs.has(job.id)) jobChanged(job);
  } catch (error) {
    complain(error);
  }
}

function show(job) {
  list.querySelector(".none")?.remove();
  const bar = h("progress", { max: 1, value: job.state === "running" && !job.total ? null : share(job), aria: { label: `Progress of ${job.note || "the job"}` } });
  const row = h("section", { class: "job", data: { state: job.state } },
    h("div", { class: "line" }, h("strong", {}, job.note || "Tagging"), h("span", { class: "state" }, stateOf(job))),
    bar,
    h("div", { class: "line faint" }, h("span", {}, detail(job)), job.state === "running" ? h("button", { type: "button", class: "button plain", onclick: () => cancel(job.id) }, "Stop") : null),
    job.failed?.length ? failures(job.failed) : null);
  const old = rows.get(job.id);
  const focused = old?.contains(document.activeElement);
  if (old) old.replaceWith(row);
  else list.prepend(row);
  if (focused) row.querySelector("button, summary")?.focus();
  rows.set(job.id, row);
}

const stateOf = (job) => ({ running: "running", done: "done", failed: "failed", cancelled: "stopped" })[job.state] ?? job.state;

function detail(job) {
  if (job.state !== "running") return job.summary || plural(job.done, "picture");
  const parts = [job.total ? `${number(job.done)} of ${number(job.total)}` : number(job.done)];
  if (job.rate) parts.push(`${job.rate < 10 ? job.rate.toFixed(1) : Math.round(job.rate)} pictures a second`);
  if (job.remaining_s) parts.push(`${duration(job.remaining_s)} left`);
  return parts.join(" · ");
}

function failures(failed) {
  return h("details", {}, h("summary", {}, `${plural(failed.length, "picture")} could not be read`), h("ul", {}, failed.slice(0, 100).map(({ name, reason }) => h("li", {}, h("b", {}, name), ` ${reason}`))));
}

async function cancel(id) {
  try {
    await remove(`/api/jobs/${id}`);
  } catch (error) {
    complain(error);
  }
}
