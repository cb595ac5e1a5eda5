// Pages: `packetlake.page(name, {params, mount, paint, unmount})`. Dash puts a page's elements into the document; this
// sees them come, mounts the page's script, and hands it the answers of its feeds.
(function () {
  "use strict";
  const P = window.packetlake, scripts = {};
  let current = null;

  P.page = (name, script) => { scripts[name] = script; };

  function leave() {
    P.emit("leave");
    if (current && current.script.unmount) current.script.unmount(current);
    current = null;
  }
  function enter(root) {
    const told = JSON.parse(root.dataset.page), script = scripts[told.name] || {};
    current = {
      ...told, root, script, painted: false,
      get query() { return P.url.query(); },
      get feeds() { return script.feeds ? script.feeds(current) : told.feeds; },  // those of the tab that is shown
      params: (q) => script.params ? script.params(q, current) || {} : {},
    };
    document.title = told.title + " · PacketLake";
    for (const link of document.querySelectorAll("[data-nav]")) {
      if (link.dataset.nav === told.name) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
    }
    document.body.classList.toggle("unranged", !told.ranged);
    guard(() => script.mount && script.mount(current));
    P.feed.use(current);
  }
  // A page that fails says so on the page; the frame goes on.
  function guard(f) {
    try { f(); } catch (error) { P.banner("This page could not be drawn. Reload, or look at another.", "error"); window.console.error(error); }
  }
  function paint(given) {
    if (!current) return;
    const page = current, errors = Object.entries(given.errors).filter(([q]) => q !== "state");
    const refused = errors.find(([, e]) => e instanceof P.feed.Refusal);
    P.banner(refused ? refused[1].message : "", "error", refused ? P.feed.now : null);
    if (refused && page.script.failed) guard(() => page.script.failed(refused[0], refused[1], page));
    if (!page.feeds.length || !page.feeds.every((q) => q in given.answers)) return;
    if (page.painted && !page.feeds.some((q) => given.fresh.has(q))) return;
    if (page.painted && Date.now() - pressed < 1000) { later(page, given); return; }
    page.painted = true;
    page.fresh = given.fresh;
    if (page.script.paint) guard(() => page.script.paint(given.answers, page));
    page.root.dataset.painted = "true";
  }
  // Between press and release nothing moves: a value painted anew under the pointer would lose its click.
  let pressed = 0, waiting = null;
  function later(page, given) {
    if (waiting && waiting.page === page) { for (const q of given.fresh) waiting.given.fresh.add(q); return; }
    waiting = { page, given };
    setTimeout(flush, 1000);
  }
  function flush() {
    const held = waiting;
    waiting = null;
    if (held && held.page === current) paint(held.given);
  }
  document.addEventListener("pointerdown", () => { pressed = Date.now(); }, true);
  document.addEventListener("pointerup", () => { pressed = 0; setTimeout(flush); }, true);
  // Paint what is there once more: the zone or the theme has changed.
  function repaint() {
    if (!current || !current.painted) return;
    current.fresh = new Set(current.feeds);
    guard(() => current.script.paint && current.script.paint(P.feed.answers, current));
  }

  P.banner = function (text, kind, retry) {
    const node = document.querySelector("[data-banner]");
    if (!node) return;
    if (node.dataset.text === text) return;
    node.dataset.text = text;
    node.dataset.kind = kind || "";
    node.hidden = !text;
    node.replaceChildren(text, retry && text ? P.button("Retry", retry, { class: "link" }) : "");
  };
  P.on("answers", paint);
  P.on("repaint", repaint);
  P.on("stale", (seconds) => { if (seconds) P.banner(`Last update ${seconds} s ago — reconnecting`, "stale"); });
  P.current = () => current;

  const onTabs = {};
  P.onTab = (name, f) => { onTabs[name] = f; };
  P.tab = (name) => { const b = document.querySelector(`[data-tabs="${name}"] [aria-pressed="true"]`); return b ? b.dataset.tab : ""; };
  P.setTab = (name, value) => {
    for (const b of document.querySelectorAll(`[data-tabs="${name}"] button`)) b.setAttribute("aria-pressed", String(b.dataset.tab === value));
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-tab]");
    if (!button) return;
    const name = button.parentElement.dataset.tabs;
    P.setTab(name, button.dataset.tab);
    if (onTabs[name]) onTabs[name](button.dataset.tab);
  });

  // React puts the page in and takes it out; what is painted inside is ours.
  new MutationObserver(() => {
    const root = document.querySelector("[data-page]");
    if (root === (current && current.root)) return;
    leave();
    if (root) enter(root);
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
