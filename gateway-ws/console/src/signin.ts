/** The first screen: a name, and nothing else. */

import { brand, fill, h } from "./dom.js";
import { reason } from "./notify.js";
import { developmentToken, NotDevelopmentError } from "./session.js";

const NAME = /^[A-Za-z0-9._:@|-][A-Za-z0-9._:@|~-]{0,63}$/;
const SUGGESTED = ["ann", "bob", "eve"];

/** Shows the screen until somebody has a token. */
export function signIn(root: HTMLElement, enter: (user: string, token: string) => void): void {
  const problem = h("p", { class: "problem", id: "problem", role: "alert" });
  const name = h("input", {
    ...{ id: "name", name: "name", type: "text", required: true, maxlength: 64, spellcheck: "false" },
    ...{ autocomplete: "username", autocapitalize: "none", "aria-describedby": "problem why" },
  });
  const go = h("button", { type: "submit", class: "button primary" }, "Enter");
  const submit = async (event: Event) => {
    event.preventDefault();
    const user = name.value.trim();
    if (!NAME.test(user)) {
      fill(problem, "A name has 1 to 64 letters, digits or . _ : @ | ~ -, without spaces.");
      name.focus();
      return;
    }
    go.disabled = true;
    try {
      enter(user, await developmentToken(user));
    } catch (error) {
      fill(problem, error instanceof NotDevelopmentError ? NOT_DEVELOPMENT : `That did not work: ${reason(error)}`);
      go.disabled = false;
    }
  };
  const suggest = (user: string) => {
    const press = () => {
      name.value = user;
      name.form?.requestSubmit();
    };
    return h("button", { type: "button", class: "chip", on: { click: press } }, user);
  };
  fill(
    root,
    h(
      "main",
      { class: "sign-in" },
      brand(),
      h("h1", {}, "Antiphon"),
      h("p", { class: "lead" }, "Pick a name and talk. Open a second window with another name to answer yourself."),
      h(
        "form",
        { on: { submit } },
        h("label", { for: "name" }, "Your name"),
        h("div", { class: "row" }, name, go),
        problem,
        h("p", { class: "suggested" }, "or go in as ", ...SUGGESTED.map(suggest)),
      ),
      h(
        "p",
        { class: "why", id: "why" },
        h("strong", {}, "Development mode. "),
        "There are no passwords: anybody on this machine can be any user. Deployments sign tokens for their users instead.",
      ),
    ),
  );
  name.focus();
}

const NOT_DEVELOPMENT =
  "This broker is not in development mode, so it gives no tokens by name. The console needs one that is.";
