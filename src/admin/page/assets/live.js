// Keeps a page up to date: asks for it again from time to time, and replaces the parts marked with data-live that have
// changed. The server has escaped everything; nothing here makes markup of text.
"use strict";
(() => {
  const PERIOD = 2000;
  const LONGEST = 30000;
  const parts = [...document.querySelectorAll("[data-live]")];
  const connection = document.getElementById("connection");
  let wait = PERIOD;

  // A result is what its reader came for.
  document.querySelector("[data-focus]")?.focus();
  for (const log of document.querySelectorAll("[data-follow]")) log.scrollTop = log.scrollHeight;

  // A form that is on its way is not sent twice; it works again when the page comes back from the browser's memory.
  document.addEventListener("submit", (event) => {
    const button = event.target.querySelector("button[type=submit]");
    if (event.target.method === "post" && button) setTimeout(() => { button.disabled = true; });
  });
  addEventListener("pageshow", () => {
    for (const button of document.querySelectorAll("button:disabled")) button.disabled = false;
  });

  const say = (text) => {
    if (!connection || connection.textContent === text) return;
    connection.hidden = text === "";
    connection.textContent = text;
  };

  // What is being read or pressed stays as it is.
  const isInUse = (part) => {
    const selection = getSelection();
    return !selection.isCollapsed && selection.containsNode(part, true);
  };

  const replace = (part, fresh) => {
    if (part.innerHTML === fresh.innerHTML || isInUse(part)) return;
    const active = document.activeElement;
    const focused = part.contains(active) ? active.id : "";
    const wasLog = part.contains(active) && active.matches("[data-follow]");
    const old = part.querySelector("[data-follow]");
    const top = old && old.scrollTop + old.clientHeight < old.scrollHeight - 4 ? old.scrollTop : null;
    const open = [...part.querySelectorAll("details")].map((details) => details.open);
    part.replaceChildren(...document.adoptNode(fresh).childNodes);
    part.querySelectorAll("details").forEach((details, index) => { details.open = open[index] ?? details.open; });
    const log = part.querySelector("[data-follow]");
    if (log) log.scrollTop = top ?? log.scrollHeight;
    if (focused) document.getElementById(focused)?.focus();
    else if (wasLog) log?.focus();
  };

  const look = async () => {
    try {
      const response = await fetch(location.href, { cache: "no-store", credentials: "same-origin" });
      if (response.status === 401) return say("Signed out: reload the page to sign in.");
      if (!response.ok) throw new Error(String(response.status));
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      for (const part of parts) {
        const found = fresh.getElementById(part.id);
        if (found) replace(part, found);
      }
      wait = PERIOD;
      say("");
    } catch {
      wait = Math.min(wait * 2, LONGEST);
      say("Sidegate does not answer. What is shown may be old.");
    }
    later();
  };

  let timer = 0;
  const later = () => {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(look, wait);
  };
  if (parts.length > 0) {
    document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); else clearTimeout(timer); });
    later();
  }
})();
