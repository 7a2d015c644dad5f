// Questions before something happens: what it is, in numbers, and Enter or Escape for the answer.
import { element } from "./format.js";

/**
 * Ask, and return null for no, else { reason, again }.
 * facts: [[name, value, class?]] · type: a word to be typed first · reason: ask for one · once: offer not to ask again.
 */
export function ask({ title, facts = [], text = "", yes = "Yes", no = "No, back", danger = false, type = "", reason = false, once = false }) {
  const go = element("button", { class: danger ? "danger solid" : "primary", value: "yes" }, yes);
  const word = type && element("input", { name: "word", autocomplete: "off", spellcheck: "false", "aria-label": `Type ${type}` });
  const why = reason && element("input", { name: "reason", autocomplete: "off", maxlength: 200, required: true });
  const again = once && element("input", { type: "checkbox", name: "again" });
  const form = element("form", { method: "dialog", class: "card" },
    element("h2", {}, title),
    text && element("p", { class: "wide" }, text),
    facts.length ? element("dl", { class: "facts wide" }, ...facts.flatMap(([name, value, style]) => [element("dt", {}, name), element("dd", { class: style || null }, value)])) : null,
    why && element("label", { class: "wide" }, "Reason ", why),
    word && element("label", { class: "wide" }, element("span", {}, "Type ", element("b", {}, type), " to go on"), word),
    element("div", { class: "wide actions" },
      again && element("label", { class: "inline" }, again, "don't ask again"),
      again && element("span", { class: "spring" }),
      element("button", { type: "button", onclick: () => dialog.close("no") }, no), go),
  );
  const dialog = element("dialog", { class: "ask" }, form);
  if (word) {
    go.disabled = true;
    word.addEventListener("input", () => { go.disabled = word.value.trim() !== type; });
  }
  document.body.append(dialog);
  dialog.returnValue = "no";
  dialog.showModal();
  (why || word || go).focus();
  return new Promise((done) => dialog.addEventListener("close", () => {
    dialog.remove();
    done(dialog.returnValue === "yes" ? { reason: why ? why.value.trim() : "", again: Boolean(again && again.checked) } : null);
  }));
}

/** Ask who sits there, and return null for no, else { password, code }. fault: why the answer before was not believed. */
export function askWho(fault = "") {
  const password = element("input", { type: "password", name: "password", autocomplete: "current-password", required: true });
  const code = element("input", { name: "code", autocomplete: "one-time-code", maxlength: 16 });
  const dialog = element("dialog", { class: "ask" }, element("form", { method: "dialog", class: "card" },
    element("h2", {}, "Is it you?"),
    element("p", { class: "wide" }, "This needs your password once more."),
    fault && element("p", { class: "wide fault", role: "alert" }, fault),
    element("label", { class: "wide" }, "Password ", password),
    element("label", { class: "wide" }, "Code of your device, or a recovery code ", code),
    element("div", { class: "wide actions" },
      element("button", { type: "button", onclick: () => dialog.close("no") }, "No, back"),
      element("button", { class: "primary", value: "yes" }, "Go on")),
  ));
  document.body.append(dialog);
  dialog.returnValue = "no";
  dialog.showModal();
  password.focus();
  return new Promise((done) => dialog.addEventListener("close", () => {
    dialog.remove();
    done(dialog.returnValue === "yes" ? { password: password.value, code: code.value } : null);
  }));
}

/** Show something to read; Escape or Enter closes it. */
export function tell(title, ...content) {
  const dialog = element("dialog", { class: "ask" }, element("form", { method: "dialog", class: "card" }, element("h2", {}, title),
    element("div", { class: "wide" }, ...content), element("div", { class: "wide actions" }, element("button", { class: "primary", value: "yes" }, "Close"))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
