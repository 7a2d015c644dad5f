// The REST API with the browser's session.
import { askWho } from "./dialog.js";

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || "The desk did not answer.");
    this.status = status;
    this.code = body.code || "";
    this.errors = body.errors || [];
  }
}

const cookie = (name) => document.cookie.split("; ").find((c) => c.startsWith(name + "="))?.slice(name.length + 1) ?? "";

async function call(method, path, body, headers = {}) {
  let answer;
  try {
    answer = await fetch("/api/v1/" + path, {
      method,
      credentials: "same-origin",
      headers: { Accept: "application/json", ...(method === "GET" ? {} : { "Content-Type": "application/json", "X-CSRFToken": cookie("csrftoken") }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Problem(0, { code: "unreachable", detail: "The desk can't be reached. Try again: the same order is never placed twice." });
  }
  if (answer.status === 401) { location.href = "/login/?next=" + encodeURIComponent(location.pathname); }
  const text = await answer.text();
  let value = {};
  try { value = text ? JSON.parse(text) : {}; } catch { value = { detail: "The answer can't be read." }; }
  if (!answer.ok && value.code === "confirm_identity" && await proved()) return call(method, path, body, headers);
  if (!answer.ok) throw new Problem(answer.status, value);
  return value;
}

/** Ask who sits there once more, for what is dangerous; tell whether the desk believed it. */
async function proved() {
  for (let fault = ""; ;) {
    const given = await askWho(fault);
    if (!given) return false;
    const answer = await fetch("/confirm/", {
      method: "POST", credentials: "same-origin", headers: { "X-CSRFToken": cookie("csrftoken") }, body: new URLSearchParams(given),
    });
    if (answer.ok) return true;
    const told = await answer.json().catch(() => ({}));
    if (told.code !== "wrong_password") throw new Problem(answer.status, told);
    fault = told.detail;
  }
}

export const get = (path, parameters = {}) => {
  const query = new URLSearchParams(parameters).toString();
  return call("GET", path + (query ? "?" + query : ""));
};
export const post = (path, body, headers) => call("POST", path, body, headers);

export function toast(text, tone = "") {
  const made = document.createElement("div");
  made.className = "toast";
  made.dataset.tone = tone;
  made.textContent = text;
  document.getElementById("toasts").append(made);
  setTimeout(() => made.remove(), tone === "bad" ? 9000 : 5000);
}
