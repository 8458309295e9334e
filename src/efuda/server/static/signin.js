/* The page that asks for the password, where the server wants one. */
import { $, h } from "./dom.js";
import { post, remove } from "./api.js";

/** Covers the page until the password is right; then `done()`. */
export function signIn(done) {
  if ($("signin")) return;
  const field = h("input", { id: "password", type: "password", name: "password", autocomplete: "current-password", required: true });
  const problem = h("p", { class: "bad", id: "wrong", role: "alert" });
  const button = h("button", { type: "submit", class: "button strong" }, "Sign in");
  const page = h("main", { id: "signin", aria: { label: "Sign in" } },
    h("form", { onsubmit: submit }, document.querySelector(".card").cloneNode(true), h("h1", {}, "efuda"),
      h("p", { class: "faint" }, "This collection asks for its password."),
      h("input", { type: "text", name: "username", autocomplete: "username", value: "efuda", hidden: true }),
      h("label", { for: "password" }, "Password"), field, problem, button));

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    try {
      await post("/api/session", { password: field.value });
      page.remove();
      $("gallery").hidden = false;
      done();
    } catch (error) {
      problem.textContent = error.message;
      field.setAttribute("aria-invalid", "true");
      field.setAttribute("aria-describedby", "wrong");
      field.select();
    }
    button.disabled = false;
  }

  $("gallery").hidden = true;
  $("view").hidden = true;
  document.title = "Sign in · efuda";
  document.body.append(page);
  field.focus();
}

export async function signOut() {
  await remove("/api/session");
  location.assign("/");
}
