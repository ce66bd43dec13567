// What the page does beyond being a page: it looks again when nuncio says that something has changed, and while a
// search is typed. The server renders everything, also for those without JavaScript.
"use strict";
(() => {
  const live = document.getElementById("live");
  const box = document.getElementById("q");
  let title = document.title, stream = null, asked = 0, shown = 0, timer = 0;

  // morph makes old look like now with the fewest changes, so that focus, selection, scrolling and open details stay.
  function morph(old, now) {
    for (const a of now.attributes) if (old.getAttribute(a.name) !== a.value) old.setAttribute(a.name, a.value);
    for (const a of [...old.attributes]) {
      if (!now.hasAttribute(a.name) && !(a.name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(a.name);
    }
    const keyed = new Map();
    for (const c of old.children) if (c.dataset.key) keyed.set(c.dataset.key, c);
    let at = old.firstChild;
    for (const n of now.childNodes) {
      const key = n.nodeType === 1 ? n.dataset.key : undefined;
      let twin = null;
      if (key) twin = keyed.get(key) || null;
      else if (at && at.nodeName === n.nodeName && !(at.dataset && at.dataset.key)) twin = at;
      if (!twin) {
        const fresh = document.importNode(n, true);
        if (key) fresh.classList.add("fresh");
        old.insertBefore(fresh, at);
        continue;
      }
      if (twin === at) at = at.nextSibling;
      else old.insertBefore(twin, at);
      if (twin.nodeType === 1) morph(twin, n);
      else if (twin.nodeValue !== n.nodeValue) twin.nodeValue = n.nodeValue;
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  // look fetches this page again. An answer that comes after a newer one is dropped.
  async function look() {
    const mine = ++asked;
    let doc;
    try {
      const answer = await fetch(location.pathname + location.search, { cache: "no-store" });
      doc = new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch {
      return; // the stream tells that nuncio does not answer
    }
    if (mine < shown) return;
    shown = mine;
    for (const part of document.querySelectorAll("[data-live]")) {
      const now = doc.getElementById(part.id);
      // A choice that somebody is making must not change under their hands.
      if (now && !(part.contains(document.activeElement) && document.activeElement.nodeName === "SELECT")) morph(part, now);
    }
    title = doc.title || title;
    document.title = title;
  }

  function say(word, good) {
    live.hidden = false;
    live.classList.toggle("off", !good);
    live.querySelector(".word").textContent = word;
  }

  function open() {
    if (stream || document.hidden) return;
    stream = new EventSource("/v1/events");
    stream.onopen = () => say("live", true);
    stream.onmessage = look;
    stream.onerror = () => {
      say("no answer", false);
      document.title = "no answer · nuncio";
      if (stream && stream.readyState === EventSource.CLOSED) {
        stream = null;
        setTimeout(open, 3000);
      }
    };
  }

  // A hidden page asks for nothing, so HAProxy is not asked either.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return open();
    if (stream) stream.close();
    stream = null;
  });

  if (box) {
    const form = document.getElementById("search");
    const search = () => {
      const q = box.value.trim();
      history.replaceState(null, "", q ? "/?" + new URLSearchParams({ q }) : "/");
      look();
    };
    form.classList.add("typed");
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      search();
    });
    box.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(search, 120);
    });
    document.addEventListener("keydown", (e) => {
      if (e.key !== "/" || e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.nodeName)) return;
      e.preventDefault();
      box.focus();
    });
  }

  // The ages go on while nothing changes; the words are those of the server.
  function ago(then) {
    const s = (Date.now() - then) / 1000;
    if (s < 2) return "just now";
    if (s < 120) return Math.floor(s) + " s ago";
    if (s < 7200) return Math.floor(s / 60) + " min ago";
    if (s < 172800) return Math.floor(s / 3600) + " h ago";
    return Math.floor(s / 86400) + " days ago";
  }
  setInterval(() => {
    for (const t of document.querySelectorAll("time[data-ago]")) {
      const text = ago(Date.parse(t.dateTime));
      if (t.textContent !== text) t.textContent = text;
    }
  }, 1000);
  addEventListener("pagehide", () => stream && stream.close());
  open();
})();
