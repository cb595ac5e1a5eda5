// The frame: capture state and drops, open alerts, theme, who is signed in, and the keys.
(function () {
  "use strict";
  const P = window.packetlake, el = P.el, F = P.format;
  let before = "";

  // --- capture state, from the question `state` --------------------------------------------------------------------
  function drawState(s) {
    const box = P.byId("shell-capture");
    if (!box || !s) return;
    const c = s.capture, d = s.minute || {}, sources = c.sources || [], names = sources.length > 3 ? `${sources.length} sources` : sources.map((n) => n.split("/").pop()).join(", ");
    let line = "No capture yet", detail = "Start one with engine run", level = "";
    if (c.state === "live") {
      const lost = d.lost || 0, pct = d.pct || 0;
      line = `Capturing on ${names}`;
      const busy = c.fill >= 50 ? `${c.fill} % of the batches in use` : c.pps === null ? "idle" : `${F.text(c.pps)} pps · ${F.bits(c.bps)}`;
      detail = lost ? `${F.text(lost, "")} dropped in the last minute (${pct < 0.01 ? "<0.01" : pct.toFixed(2)} %)` : `0 drops · ${busy}`;
      level = lost === 0 ? (c.fill >= 50 ? "warn" : "ok") : pct > 1 ? "bad" : "warn";
    } else if (c.state === "stopped") {
      line = "Capture stopped";
      detail = [names, c.age_s === null || c.age_s === undefined ? "" : F.ago(c.age_s)].filter(Boolean).join(" · ");
    }
    const [a, b] = [box.querySelector(".capture-line .label"), box.querySelector(".capture-detail")];
    if (a.textContent !== line) a.textContent = line;
    if (b.textContent !== detail) b.textContent = detail;
    box.dataset.level = level;
    box.dataset.lost = F.text(d.lost || 0);  // what is left of it in the narrow bar
    box.title = `${line}. ${detail}. Drops: of the last minute.\n${sources.slice(0, 20).join("\n")}`;
    const badge = P.byId("shell-alerts"), open = Object.values(s.alerts || {}).reduce((x, y) => x + y, 0);
    if (badge) { badge.hidden = !open; P.setText(badge, open > 999 ? "999+" : String(open)); badge.setAttribute("aria-label", `${open} open`); }
    const mark = (level === "bad" ? "! " : "");
    if (!document.title.startsWith(mark) || (before && !mark)) document.title = mark + document.title.replace(/^! /, "");
    before = mark;
  }
  P.on("state", drawState);

  // --- theme and person ---------------------------------------------------------------------------------------------
  function flip() {
    const root = document.documentElement;
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    P.remember("theme", root.dataset.theme);
    setTimeout(() => P.emit("repaint"));
  }
  function person(at) {
    P.menu(at, [
      { note: `${at.dataset.user || "Not signed in"} · ${at.dataset.role}` }, "-",
      { text: "Keys", icon: "keyboard", act: help },
      { text: P.recall("keys", "on") === "on" ? "Switch keys off" : "Switch keys on", icon: "keyboard", act: () => { P.remember("keys", P.recall("keys", "on") === "on" ? "off" : "on"); P.toast(`Keys are ${P.recall("keys", "on")}`, { seconds: 2 }); } },
      { text: "Sign out", icon: "log-out", act: () => { P.feed.stop(); const f = el("form", { method: "post", action: "/logout" }); document.body.append(f); f.submit(); } },
    ], "You");
  }
  document.addEventListener("click", (event) => {
    const b = event.target.closest("button");
    if (b && b.id === "shell-theme") flip();
    if (b && b.id === "shell-user") person(b);
  });

  // --- keys ---------------------------------------------------------------------------------------------------------
  const KEYS = [["/", "Filter"], ["L", "Live or paused"], ["T", "Time range"], ["Z", "Zoom out"], ["Esc", "Previous range, or close"], ["J K", "Next, previous row"], ["E", "Acknowledge (Alerts)"], ["?", "This help"]];
  const own = {};
  // A page's own key: onKey("e", () => ...); it holds while the page is there.
  P.onKey = (key, act) => { own[key] = act; };
  P.on("leave", () => { for (const k of Object.keys(own)) delete own[k]; });
  const pages = () => [...document.querySelectorAll("[data-nav]")].filter((a) => a.dataset.key);
  function help() {
    const line = ([key, text]) => el("div", { class: "key-line" }, el("span", {}, key.split(" ").map((k) => el("kbd", {}, k))), el("span", {}, text));
    P.modal("Keys", el("div", { class: "keys" }, [...KEYS, ...pages().map((a) => [`G ${a.dataset.key.toUpperCase()}`, a.title])].map(line)), [{ text: "Close", primary: true }]);
  }
  let leader = 0;
  document.addEventListener("keydown", (e) => {
    const typing = e.target.closest && e.target.closest("input, textarea, select, [contenteditable], .ace_editor");
    if (typing || e.ctrlKey || e.metaKey || e.altKey || P.recall("keys", "on") !== "on" || document.querySelector("dialog.modal[open], .menu")) return;
    const key = e.key.length === 1 ? e.key.toLowerCase() : e.key, done = (f) => { e.preventDefault(); f(); };
    if (Date.now() - leader < 1500) {
      leader = 0;
      const link = pages().find((a) => a.dataset.key === key);
      if (link) { done(() => link.click()); return; }
    }
    if (own[key]) done(() => own[key](e));
    else if (key === "g") leader = Date.now();
    else if (key === "/") done(() => P.byId("shell-filter-text").focus());
    else if (key === "l") done(() => P.url.toggleLive());
    else if (key === "t") done(() => P.pickRange());
    else if (key === "z") done(() => P.url.zoomOut());
    else if (key === "?") done(help);
    else if (key === "Escape" && !document.querySelector("dialog[open]")) done(() => P.url.back());
  });

  // React builds the frame once, after the scripts have run.
  const seen = new MutationObserver(() => {
    const you = P.byId("shell-user");
    if (!you) return;
    seen.disconnect();
    P.role = you.dataset.role;
    P.user = you.dataset.user;
    P.may = (role) => ["viewer", "operator", "admin"].indexOf(P.role) >= ["viewer", "operator", "admin"].indexOf(role);
    P.emit("frame");
  });
  seen.observe(document.documentElement, { childList: true, subtree: true });
})();
