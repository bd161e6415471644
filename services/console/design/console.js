// What makes the pages handier; each of them works without it.
"use strict";
{
  const POLL_MS = 15000, SLOWEST_POLL_MS = 300000, SHARE_OF_TIME = 20, SHOWN_MS = 2000;

  // Copy buttons ------------------------------------------------------------------------------

  const announcer = document.createElement("p");
  announcer.className = "hidden";
  announcer.setAttribute("role", "status");
  document.querySelector("main")?.append(announcer);

  const announce = text => {
    announcer.textContent = "";
    setTimeout(() => { announcer.textContent = text; }, 50); // so that a repeat is read again
  };

  const addCopyButton = (place, source) => {
    const what = place.dataset.copy, button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    const word = document.createTextNode("Copy"), rest = document.createElement("span");
    rest.className = "hidden";
    rest.textContent = ` ${what}`;
    button.append(word, rest);
    button.addEventListener("click", async () => {
      let copied = true;
      try {
        await navigator.clipboard.writeText(source.textContent.trim());
      } catch {
        copied = false;
        getSelection().selectAllChildren(source);
      }
      word.data = copied ? "Copied" : "Selected";
      announce(copied ? `Copied ${what}.` : `Copying failed; ${what} is selected.`);
      setTimeout(() => { word.data = "Copy"; }, SHOWN_MS);
    });
    place.append(button);
  };

  if (navigator.clipboard) { // only over HTTPS and on this machine
    for (const place of document.querySelectorAll("[data-copy]")) {
      addCopyButton(place, place.querySelector("code, span") ?? place);
    }
  }

  // Figures that stay fresh: the page is fetched again, and the parts named `data-live` replaced --

  const live = () => [...document.querySelectorAll("[data-live]")];
  let timer, failures = 0, fetching = null, next = 0;

  const isInUse = part => {
    const chosen = getSelection();
    return part.contains(document.activeElement)
      || (chosen !== null && !chosen.isCollapsed && chosen.containsNode(part, true));
  };

  const account = page => page.querySelector(".menu .who")?.textContent;

  const replace = fresh => {
    if (account(fresh) !== account(document)) { // switched in another tab
      stop();
      return;
    }
    for (const part of live()) {
      const other = fresh.querySelector(`[data-live="${CSS.escape(part.dataset.live)}"]`);
      if (other && other.innerHTML !== part.innerHTML && !isInUse(part)) {
        part.replaceChildren(...document.importNode(other, true).childNodes);
      }
    }
  };

  const plan = wait => {
    clearTimeout(timer);
    next = Date.now() + wait;
    if (!document.hidden) timer = setTimeout(refresh, wait);
  };

  const stop = () => {
    clearTimeout(timer);
    next = Infinity;
    fetching?.abort();
  };

  const refresh = async () => {
    const began = Date.now();
    fetching = new AbortController();
    try {
      const answer = await fetch(location.href, {
        headers: {"X-Refresh": "1"}, redirect: "manual", cache: "no-store", signal: fetching.signal,
      });
      if (answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 403) {
        stop(); // the session has ended
        return;
      }
      if (!answer.ok) throw new Error(answer.statusText);
      const text = await answer.text();
      if (next !== Infinity) replace(new DOMParser().parseFromString(text, "text/html"));
      failures = 0;
    } catch {
      failures += 1;
    } finally {
      fetching = null;
    }
    if (next === Infinity) return;
    const pause = Math.max(POLL_MS * 2 ** failures, SHARE_OF_TIME * (Date.now() - began));
    plan(Math.min(pause, SLOWEST_POLL_MS));
  };

  if (live().length) {
    plan(POLL_MS);
    document.addEventListener("visibilitychange", () => {
      clearTimeout(timer);
      if (!document.hidden && !fetching && next !== Infinity) plan(Math.max(next - Date.now(), 0));
    });
    document.addEventListener("submit", stop); // the next page must find what the form left for it
    addEventListener("pagehide", stop);
    addEventListener("pageshow", event => { if (event.persisted) plan(0); });
  }
}
