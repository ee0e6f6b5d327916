// What every page has: a theme that can be switched, times that stay true, a login by link, and live updates that say
// whether they are live. Everything else works without it.
"use strict";

(() => {
  const root = document.documentElement;

  // ---- theme ----
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const announce = () => document.dispatchEvent(new Event("walhook:theme"));
  for (const button of document.querySelectorAll("[data-theme-toggle]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const now = root.dataset.theme || (dark.matches ? "dark" : "light");
      root.dataset.theme = now === "dark" ? "light" : "dark";
      try { localStorage.setItem("walhook-theme", root.dataset.theme); } catch {}
      announce();
    });
  }
  dark.addEventListener("change", announce);

  // ---- login by link: /login#token=… ----
  const form = document.querySelector("form[data-login]");
  const loginByLink = () => {
    if (!form || !location.hash.startsWith("#token=")) return;
    const given = location.hash.slice("#token=".length);
    history.replaceState(null, "", location.pathname + location.search);
    try { form.elements.token.value = decodeURIComponent(given); } catch { form.elements.token.value = given; }
    if (form.dataset.login === "alone") form.requestSubmit(); // else another site may have led here: a person decides
  };
  loginByLink();
  addEventListener("hashchange", loginByLink); // the link opened where the login page is open already

  // ---- questions before what cannot be undone, and boxes that check all others ----
  document.addEventListener("submit", (event) => {
    const question = event.submitter?.dataset.confirm || event.target.dataset.confirm;
    if (question && !confirm(question)) { event.preventDefault(); event.stopPropagation(); }
  }, true);
  document.addEventListener("change", (event) => {
    const all = event.target.closest?.("[data-check-all]");
    if (!all) return;
    for (const box of document.querySelectorAll(`input[type=checkbox][name="${CSS.escape(all.dataset.checkAll)}"]`)) box.checked = all.checked;
  });

  // ---- distances in time: in step with ago() of the server ----
  const coarse = (s) => s < 60 ? `${Math.floor(s)} s` : s < 3600 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} days`;
  const words = (s) => {
    const w = document.body.dataset;
    if (s < -60) return w.timeIn.replace("%s", coarse(-s));
    if (s < 0) return w.timeSoon;
    return s < 60 ? w.timeNow : w.timeAgo.replace("%s", coarse(s));
  };
  const refresh = () => {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const at = Date.parse(time.dateTime);
      if (at) time.textContent = words((Date.now() - at) / 1000);
    }
  };
  setInterval(refresh, 30000);

  // ---- live updates ----
  const badge = document.querySelector("[data-live]");
  const live = (on) => {
    if (!badge) return;
    badge.hidden = false;
    badge.classList.toggle("ok", on);
    badge.classList.toggle("idle", !on);
    const text = on ? badge.dataset.textLive : badge.dataset.textWaiting;
    if (badge.textContent !== text) badge.textContent = text;
  };
  document.addEventListener("htmx:sse:after:connection", () => live(true));
  document.addEventListener("htmx:sse:error", (event) => {
    live(false);
    if (event.detail?.status === 401) location.reload(); // logged out: the login comes back here
  });
  document.addEventListener("htmx:sse:close", () => live(false));
  document.addEventListener("stale", (event) => live(event.detail.data !== "true")); // connected, but there is no news to be had

  // htmx connects again when a stream has ended, but not when the first connection failed.
  const source = (event) => event.detail?.ctx?.sourceElement ?? event.target;
  const again = (event) => {
    const element = source(event);
    const status = event.detail?.ctx?.response?.status;
    if (status === 401) { location.reload(); return; }
    const url = element?.getAttribute?.("hx-sse:connect");
    if (!url || element.dataset.waiting) return;
    live(false);
    element.dataset.waiting = "1";
    setTimeout(() => {
      delete element.dataset.waiting;
      if (element.isConnected && !element._htmx?.sse) htmx.ajax("GET", url, {source: element});
    }, 5000);
  };
  document.addEventListener("htmx:response:error", again);
  document.addEventListener("htmx:error", again);
})();
