// Ties it together: the callback that Dash calls with each snapshot, the controls, and the watch over staleness.
(function () {
  "use strict";
  const P = window.packetlake, el = P.el;
  const STALE_MS = 5000;
  let snap = null, arrived = Date.now(), paused = false, asked = { range_s: 300, newest: false }, askedSession = 0;

  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const repaint = () => set("painted", { data: Date.now() });
  const rangeText = () => ({ 300: "5 min", 900: "15 min", 3600: "hour" })[asked.range_s];

  function drawCapture() {
    const c = snap.capture, box = P.byId("capture-state").closest(".capture");
    const names = c.sources.length > 3 ? `${c.sources.length} interfaces` : c.sources.join(", ");
    if (c.state === "live") {
      P.setText("capture-state", `Capturing on ${names}`);
      const d = c.minute;
      P.setText("capture-detail", d.lost ? `${P.text(d.lost, "")} dropped in the last minute (${d.pct < 0.01 ? "<0.01" : d.pct.toFixed(2)} %)` : "0 drops in the last minute");
      box.dataset.level = P.lossLevel(d) || "ok";
    } else if (c.state === "stopped") {
      P.setText("capture-state", "Capture stopped");
      P.setText("capture-detail", `${names} · ${P.ago(c.age_s)}`);
      box.dataset.level = "";
    } else {
      P.setText("capture-state", "No capture yet");
      P.setText("capture-detail", "Start one with engine run");
      box.dataset.level = "";
    }
    box.title = `${P.byId("capture-state").textContent}. ${P.byId("capture-detail").textContent}`;
  }

  function drawEmpty() {
    const node = P.byId("timeline-empty");
    node.hidden = snap.kpi.packets > 0;
    if (node.hidden) return;
    const parts = [];
    if (snap.loaded < 1) parts.push("Reading the lake …");
    else if (snap.last_packet === null) parts.push("No packets on this lake yet.", el("span", {}, "Capture some with ", el("code", {}, "sudo engine run --iface eth0")));
    else {
      const last = snap.last_packet * 1000;
      parts.push(`No packets in the last ${rangeText()} on this lake. The newest is from ${P.day(last)} ${P.clock(last)} ${P.zone()}.`,
        el("button", { type: "button", class: "link", onclick: () => ask({ newest: true }) }, "Show the newest packets"));
    }
    const key = parts.map((p) => p.textContent || p).join();
    if (node.dataset.key !== key) { node.dataset.key = key; node.replaceChildren(...parts.map((p) => typeof p === "string" ? el("span", {}, p) : p)); }
  }

  function drawFrame() {
    const end = snap.end * 1000, start = snap.start * 1000, long = P.day(start) !== P.day(Date.now());
    const loading = snap.loaded < 1 ? ` · reading ${Math.round(snap.loaded * 100)} %` : "";
    P.setText("window", `${long ? P.day(start) + " " : ""}${P.clock(start)} – ${P.clock(end)} ${P.zone()}${snap.newest ? " · newest packets of the lake" : ""}${loading}`);
    P.setText("zone", P.state.utc ? "UTC" : "Local");
    P.setText("live-label", paused ? "Paused" : "Live");
    const legend = P.byId("timeline-legend");
    if (!legend.childElementCount) legend.append(...P.CLASSES.map(([name, c]) => el("span", { class: "key" }, el("span", { class: "swatch", style: { "--c": `var(${c})` } }), name)));
    const totals = P.totals(snap.timeline), peak = Math.max(0, ...totals), at = totals.indexOf(peak);
    const when = peak > 0 ? `, peak ${P.text(peak, "")} at ${P.clock((snap.timeline.start + at * snap.timeline.step) * 1000)}` : "";
    const graph = P.byId("timeline");
    graph.setAttribute("role", "img");
    graph.setAttribute("aria-label", `Packets per second by protocol, ${P.text(snap.kpi.pps, "")} now${when}`);
  }

  // A card that cannot be drawn says so itself; the others go on.
  function card(id, draw) {
    try { draw(snap); } catch (error) {
      P.byId(id).replaceChildren(el("div", { class: "empty" }, "This card could not be drawn."));
      window.console.error(error);
    }
  }

  function paint(data) {
    if (!data) return window.dash_clientside.no_update;
    if (data.error) { banner(data.error); return window.dash_clientside.no_update; }
    if (data !== snap) arrived = Date.now();  // and not when the same one is painted again
    snap = data;
    drawFrame(); drawCapture(); drawEmpty();
    P.drawKpis(snap);
    card("mix", P.drawMix); card("talkers", P.drawTalkers); card("countries", P.drawCountries);
    const held = P.byId("recent").matches(":hover") && P.byId("recent").querySelector("table");
    if (!held) card("recent", P.drawRecent);
    else P.setText("recent-note", "held while you point at it");
    banner(snap.unreadable.length ? `A segment cannot be read and is left out: ${snap.unreadable[0][1]}` : "");
    return P.timelineFigure(snap);
  }
  window.dash_clientside = Object.assign({}, window.dash_clientside, { overview: { paint } });

  function banner(text) {
    const node = P.byId("banner");
    if (!node) return;
    if (node.textContent !== text) node.textContent = text;
    node.hidden = !text;
  }

  function ticking() { set("tick", { max_intervals: paused || document.hidden ? 0 : -1 }); }
  function ask(change) { asked = Object.assign({}, asked, change); set("range", { data: asked }); }
  function press(button) {
    for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
  }
  function remember(name, value) { try { localStorage.setItem(name, value); } catch (e) { /* storage is off */ } }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { group, value } = button.dataset;
    if (group) press(button);
    if (group === "range") ask({ range_s: Number(value), newest: false });
    else if (group === "mix") { P.view.mix = value; if (snap) card("mix", P.drawMix); }
    else if (group === "talkers") { P.view.talkers = value; if (snap) { P.byId("talkers").scrollTop = 0; card("talkers", P.drawTalkers); } }
    else if (button.id === "live") {
      paused = !paused;
      button.setAttribute("aria-pressed", String(!paused));
      arrived = Date.now();
      ticking(); repaint();
      if (!paused && asked.newest) ask({ newest: false });
    } else if (button.id === "zone") {
      P.state.utc = !P.state.utc;
      remember("packetlake-zone", P.state.utc ? "utc" : "local");
      repaint();
    } else if (button.id === "theme") {
      const root = document.documentElement;
      root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
      remember("packetlake-theme", root.dataset.theme);
      repaint();
    }
  });
  // Before the first snapshot Dash has no properties to set yet: the page may be hidden or closed while it loads.
  document.addEventListener("visibilitychange", () => { arrived = Date.now(); if (snap) ticking(); });

  setInterval(() => {
    if (!snap || paused || document.hidden || Date.now() - arrived < STALE_MS) return;
    banner(`Last update ${Math.round((Date.now() - arrived) / 1000)} s ago — reconnecting`);
    if (Date.now() - askedSession < 10000) return;
    askedSession = Date.now();
    // When the session has ended, the page that says how to sign in is the better thing to show.
    fetch("/", { method: "HEAD" }).then((r) => { if (r.status === 401) location.reload(); }, () => undefined);
  }, 1000);
})();
