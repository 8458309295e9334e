/* What the server tells while it happens: jobs that go on, and that the collection has changed. */

/** `job(job)` and `changed({revision, pictures})`; the browser connects again by itself. */
export function listen({ job, changed }) {
  const source = new EventSource("/api/events");
  source.addEventListener("job", (event) => job(JSON.parse(event.data)));
  source.addEventListener("revision", (event) => changed(JSON.parse(event.data)));
  addEventListener("pagehide", () => source.close());
  return source;
}
