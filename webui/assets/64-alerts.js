// Alerts: the inbox. One line for each kind, source and destination; 65-alert.js shows one of them.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el, SEVERITIES = ["critical", "high", "medium", "low"];
  const SHOUTED = new Set(["syn", "udp", "icmp", "dns", "ssh", "http", "ftp", "arp", "dhcp", "tcp", "ack", "fin", "sql", "pps", "c2", "tls", "ip", "id"]);
  let groups = [], selected = new Set(), current = "", muted = null, moved = new Map(), page = null;

  // port_scan -> "Port scan", syn_flood -> "SYN flood".
  const words = (name) => {
    const text = String(name || "").split("_").map((w) => SHOUTED.has(w) ? w.toUpperCase() : w).join(" ").replace("ssh bruteforce", "SSH brute force").replace("bruteforce", "brute force");
    return text.charAt(0).toUpperCase() + text.slice(1);
  };
  const severity = (name) => el("span", { class: "severity", "data-severity": name }, name);
  const plural = (n, one) => `${F.count(n)} ${one}${n === 1 ? "" : "s"}`;
  const key = (g) => `${g.kind}|${g.src_ip}|${g.dst_ip}`;
  const state = () => page.query.state || "open";
  const idsOf = (list) => list.flatMap((g) => g.ids);

  // --- what operators do ------------------------------------------------------------------------------------------
  async function attempt(act) {
    try { await act(); } catch (error) { P.toast(error.message, { level: "bad" }); return false; }
    P.feed.now();
    P.emit("alerts-changed");
    return true;
  }
  // Both can be taken back for as long as the message stands.
  async function mark(ids, done) {
    if (!ids.length || !P.may("operator")) return;
    const say = (word) => P.feed.post(`alerts/${word}`, { ids });
    const now = done ? "acknowledged" : "open", before = done ? "open" : "acknowledged";
    for (const id of ids) moved.set(id, { state: now, at: Date.now() });
    selected.clear();
    draw();
    if (!await attempt(() => say(done ? "ack" : "reopen"))) { for (const id of ids) moved.delete(id); draw(); return; }
    P.toast(`${done ? "Acknowledged" : "Reopened"} ${plural(ids.length, "alert")}`, { undo: () => {
      for (const id of ids) moved.set(id, { state: before, at: Date.now() });
      draw();
      attempt(() => say(done ? "reopen" : "ack"));
    } });
  }
  const about = (m) => [m.kind ? words(m.kind) : "Everything", m.src ? `from ${m.src}` : "", m.dst ? `to ${m.dst}` : ""].filter(Boolean).join(" ");
  async function mute(list, hours) {
    const done = [];
    const ok = await attempt(async () => { for (const m of list) { await P.feed.post("mutes", { ...m, hours }); done.push(m); } });
    if (ok) P.toast(`${list.length === 1 ? about(list[0]) : plural(list.length, "kind of alert")}: muted for ${hours} hours`, { undo: () => unmute(done) });
  }
  const unmute = (list) => attempt(async () => { for (const m of list) await P.feed.post("mutes/remove", m); });
  // Of one alert: how much of its like.
  function muteMenu(at, a) {
    const { kind, src_ip: src, dst_ip: dst } = a, item = (m) => ({ text: about(m), icon: "mute", act: () => mute([m], 24) });
    P.menu(at, [{ note: "No new alerts for 24 hours of" }, src && dst ? item({ kind, src, dst }) : null, src ? item({ kind, src }) : null, dst ? item({ kind, dst }) : null, item({ kind }), src ? item({ src }) : null], "Mute");
  }

  // --- the list ---------------------------------------------------------------------------------------------------
  function target() {
    const chosen = groups.filter((g) => selected.has(key(g)));
    return chosen.length ? chosen : groups.filter((g) => key(g) === current);
  }
  function tick(g) {
    const box = el("input", { type: "checkbox", "aria-label": `Select ${words(g.kind)} ${g.src_ip || ""} ${g.dst_ip || ""}` });
    box.checked = selected.has(key(g));
    box.addEventListener("change", () => { if (box.checked) selected.add(key(g)); else selected.delete(key(g)); bulk(); });
    return box;
  }
  const status = (g) => g.open === g.alerts ? "open" : g.open ? `${g.open} of ${g.alerts} open` : `by ${g.acknowledged_by || "–"}`;
  function kind(value, g) {
    const only = el("button", { type: "button", class: "value alerts-kind", title: "Only this kind", onclick: (e) => { e.stopPropagation(); P.url.set({ kind: value }); } }, words(value));
    return el("span", {}, only, g.active ? el("span", { class: "alerts-active", title: "It still goes on" }) : null, g.alerts > 1 ? el("span", { class: "alerts-times", title: `${g.alerts} alerts` }, `×${g.alerts}`) : null,
      g.notes ? el("span", { class: "alerts-noted", title: plural(g.notes, "note") }, P.icon("note"), String(g.notes)) : null);
  }
  function columns() {
    const narrow = window.innerWidth < 1280, may = P.may("operator");
    return [
      may ? { name: "tick", title: "", width: 40, format: (_, g) => tick(g) } : null,
      { name: "severity", title: "Severity", width: 92, sort: "severity", format: severity },
      { name: "kind", title: "Alert", width: narrow ? 138 : 176, sort: "kind", format: kind },
      { name: "src_ip", title: "Source", width: narrow ? 118 : 136, mono: true, field: "src", format: (v) => v || "" },
      { name: "dst_ip", title: "Destination", width: narrow ? 118 : 150, mono: true, field: "dst", format: (v, g) => v && g.dst_port && !narrow ? el("span", {}, P.cell("dst", v, v), ":", P.cell("port", g.dst_port, String(g.dst_port))) : v || "" },
      { name: "count", title: "Count", number: true, mono: true, width: 66, sort: "count", format: (v) => F.text(v) },
      { name: "last_seen", title: "First – last seen", mono: true, width: narrow ? 146 : 152, sort: "last_seen", format: (v, g) => seen(g) },
      state() === "open" ? null : { name: "status", title: "State", width: narrow ? 82 : 104, format: (_, g) => status(g) },
      { name: "why", title: "Why" },
    ].filter(Boolean);
  }
  const seen = (g) => el("span", { title: `${F.dateTime(g.first_seen)} – ${F.dateTime(g.last_seen)} ${F.zone(g.last_seen)}` }, `${F.clock(g.first_seen)}${F.clock(g.first_seen) === F.clock(g.last_seen) ? "" : "–" + F.clock(g.last_seen)}`);
  function show(g) { current = key(g); P.alert.open(g.incident_id, page, g); draw(); }
  function draw() {
    const box = P.byId("alerts-list");
    if (!page || !box || !P.may) return;
    const had = box.contains(document.activeElement) && document.activeElement.tagName === "TR", now = state();
    for (const [id, m] of moved) if (Date.now() - m.at > 8000) moved.delete(id);
    const shown = groups.filter((g) => now === "all" || !g.ids.every((id) => moved.has(id) && moved.get(id).state !== now));
    const [sort, other] = [page.query.sort || "severity", { open: "acknowledged", acknowledged: "open" }[now]];
    const range = P.url.absolute() ? "in this range" : `in the last ${P.url.range().split("@")[0]}`;
    P.table(box, {
      caption: "Alerts", rows: shown, columns: columns(), key, selected: current, onRow: show, sorted: { sort, desc: sort !== "kind" }, onSort: (s) => P.url.set({ sort: s === "severity" ? null : s }, true),
      empty: `No ${now === "all" ? "" : now + " "}${page.query.severity || ""}${page.query.severity ? " " : ""}alerts${page.query.kind ? ` of kind ${words(page.query.kind).toLowerCase()}` : ""} ${range}${P.url.filter() ? " match the filter" : ""}.`,
      actions: [
        page.query.severity || page.query.kind ? { text: "All severities and kinds", act: () => P.url.set({ severity: null, kind: null }) } : null,
        P.url.filter() ? { text: "Clear filter", act: () => P.url.setTerms([]) } : null, other ? { text: "Show all", act: () => P.url.set({ state: "all" }) } : null,
        P.url.live() && P.url.seconds() < 86400 ? { text: "Last 24 hours", act: () => P.url.setRange("24h") } : null,
      ],
    });
    if (had) { const again = box.querySelector("tr.selected"); if (again) again.focus(); }
    selected = new Set([...selected].filter((k) => shown.some((g) => key(g) === k)));
    bulk();
  }
  function bulk() {
    const box = P.byId("alerts-selected"), chosen = groups.filter((g) => selected.has(key(g))), ids = idsOf(chosen);
    box.hidden = !chosen.length;
    if (!chosen.length) { box.replaceChildren(); return; }
    const cut = chosen.some((g) => g.alerts > g.ids.length) ? " (the newest 100 of a line)" : "";
    box.replaceChildren(el("b", {}, `${plural(ids.length, "alert")} selected${cut}`),
      P.button("Acknowledge", () => mark(ids, true), { class: "button primary", title: "E" }), P.button("Reopen", () => mark(ids, false)),
      P.button("Mute 24 h", () => mute(chosen.map((g) => ({ kind: g.kind, src: g.src_ip, dst: g.dst_ip })), 24)), P.button("Clear", () => { selected.clear(); draw(); }, { class: "link" }));
  }
  function step(by) {
    const lines = [...document.querySelectorAll("#alerts-list tbody tr")], at = lines.findIndex((tr) => tr.classList.contains("selected"));
    const to = lines[Math.min(lines.length - 1, Math.max(0, at + by))];
    if (!to) return;
    for (const tr of lines) tr.classList.toggle("selected", tr === to);
    const shown = P.alert.shown();
    to.focus();
    current = key(visible()[lines.indexOf(to)]);
    if (shown) show(visible()[lines.indexOf(to)]);
  }
  const visible = () => groups.filter((g) => state() === "all" || !g.ids.every((id) => moved.has(id) && moved.get(id).state !== state()));

  // --- around it --------------------------------------------------------------------------------------------------
  function chips(a) {
    const chosen = page.query.severity || "";
    P.byId("alerts-severities").replaceChildren(...SEVERITIES.map((s) => el("button", { type: "button", class: "alerts-chip", "aria-pressed": String(s === chosen), onclick: () => P.url.set({ severity: s === chosen ? null : s }) }, severity(s), el("b", {}, F.text(a.severities[s])))));
    const list = a.kinds.kind.map((k, i) => [k, `${words(k)} (${a.kinds.count[i]})`]);
    if (page.query.kind && !a.kinds.kind.includes(page.query.kind)) list.unshift([page.query.kind, `${words(page.query.kind)} (0)`]);
    const box = P.byId("alerts-kinds"), told = JSON.stringify([list, page.query.kind]);
    if (box.dataset.told !== told) {
      box.dataset.told = told;
      const pick = el("select", { class: "field", "aria-label": "Kind", onchange: () => P.url.set({ kind: pick.value || null }) }, el("option", { value: "" }, "All kinds"), list.map(([k, text]) => el("option", { value: k }, text)));
      pick.value = page.query.kind || "";
      box.replaceChildren(pick);
    }
    for (const [name, n] of [["open", a.states.open], ["acknowledged", a.states.acknowledged], ["all", a.states.open + a.states.acknowledged]]) {
      const b = document.querySelector(`[data-tabs="alerts-state"] [data-tab="${name}"]`);
      b.textContent = `${name.charAt(0).toUpperCase()}${name.slice(1)} ${F.text(n)}`;
    }
    P.setText("alerts-count", `${plural(a.total, "alert")} in ${groups.length === 500 ? "more than " : ""}${plural(groups.length, "line")} · J K move, Enter opens${P.may("operator") ? ", E acknowledges" : ""}`);
    P.setText("alerts-note", `${plural(a.total, "alert")}${a.total ? " · drag to zoom" : ""}`);
  }
  function timeline(a) {
    const { start_s, step_s, ...found } = a.timeline, series = {};
    for (const s of [...SEVERITIES].reverse()) if (found[s]) series[s] = found[s];
    const sums = Object.values(series).reduce((t, v) => v.map((x, i) => x + (t[i] || 0)), []), top = Math.max(1, ...sums);
    if (!Object.keys(series).length) series.low = Array.from({ length: 2 }, () => 0);
    P.chart.timeline("alerts-timeline", { start_s, step_s, series }, {
      unit: "", label: "Alerts that began", max: top < 4 ? Math.max(2, top) : Math.ceil(top * 1.08), tickformat: "d", colours: Object.fromEntries(SEVERITIES.map((s) => [s, P.chart.severity(s)])), empty: "No alerts began in this range.",
    });
  }
  function mutes() {
    const b = P.byId("alerts-muted"), rows = P.rows(muted.rows);
    b.replaceChildren(P.icon("mute"), rows.length ? `Muted ${rows.length}` : "Muted");
    return rows;
  }
  function showMutes() {
    const view = P.drawer("What is muted", el("div", { class: "muted" }, "…")), rows = mutes();
    const list = el("div", {});
    view.body.replaceChildren(el("p", { class: "muted" }, "Findings of these make no new alerts; they are counted as suppressed."), list);
    P.table(list, { rows, empty: "Nothing is muted.", actions: [], columns: [
      { name: "kind", title: "Alert", format: (v) => v ? words(v) : "Everything" },
      { name: "src_ip", title: "From", mono: true, format: (v) => v || "anyone" }, { name: "dst_ip", title: "To", mono: true, format: (v) => v || "anyone" },
      { name: "muted_until", title: "Until", width: 96, mono: true, format: (v) => v ? F.when(v) : "taken back" }, { name: "muted_by", title: "By", width: 70 },
      P.may("operator") ? { name: "end", title: "", width: 76, format: (_, m) => P.button("Unmute", () => { view.close(); unmute([{ kind: m.kind, src: m.src_ip, dst: m.dst_ip }]); }, { class: "link" }) } : null,
    ].filter(Boolean) });
  }
  function create() {
    const term = (name) => (P.url.terms().map((t) => /^(\w+)=([^,]+)$/.exec(t)).find((f) => f && name.includes(f[1])) || [])[2] || "";
    const field = (id, node) => [el("label", { for: id }, { "alerts-new-kind": "What it is", "alerts-new-severity": "Severity", "alerts-new-src": "Source", "alerts-new-dst": "Destination", "alerts-new-why": "Why" }[id]), node];
    const kindBox = el("input", { id: "alerts-new-kind", list: "alerts-new-kinds", maxlength: 64, placeholder: "phishing", autocomplete: "off" }), list = el("datalist", { id: "alerts-new-kinds" }, [...new Set(groups.map((g) => g.kind))].map((k) => el("option", { value: k })));
    const grade = el("select", { id: "alerts-new-severity" }, SEVERITIES.map((s) => el("option", { value: s }, s))), src = el("input", { id: "alerts-new-src", placeholder: "10.0.0.7, or nothing", value: term(["src", "host"]) }), dst = el("input", { id: "alerts-new-dst", placeholder: "or nothing", value: term(["dst"]) });
    const why = el("textarea", { id: "alerts-new-why", rows: 3, maxlength: 1000, placeholder: "One sentence: what happened" }), problem = el("p", { class: "problem", role: "alert" });
    grade.value = "medium";
    P.modal("New alert", [el("div", { class: "fields" }, field("alerts-new-kind", kindBox), field("alerts-new-severity", grade), field("alerts-new-src", src), field("alerts-new-dst", dst), field("alerts-new-why", why)), list, problem], [{ text: "Cancel" }, { text: "Create", primary: true, act: async () => {
      if (!kindBox.value.trim() || !why.value.trim()) { problem.textContent = "Say what it is, and in a sentence what happened."; return false; }
      try { await P.feed.post("alerts", { kind: kindBox.value.trim().replace(/\s+/g, "_"), severity: grade.value, why: why.value, src: src.value.trim(), dst: dst.value.trim() }); } catch (error) { problem.textContent = error.message; return false; }
      P.toast("Alert created");
      P.feed.now();
      return true;
    } }]);
    kindBox.focus();
  }

  P.alerts = { words, severity, plural, mark, muteMenu };
  P.page("alerts", {
    params: (question, at) => question === "alerts" ? { state: at.query.state || "open", severity: at.query.severity, kind: at.query.kind, sort: at.query.sort, limit: 0 } : {},
    mount(at) {
      page = at; groups = []; selected = new Set(); current = ""; moved = new Map(); muted = null;
      P.loading("alerts-list", 8);
      P.setTab("alerts-state", state());
      P.onTab("alerts-state", (value) => P.url.set({ state: value === "open" ? null : value }));
      P.byId("alerts-muted").addEventListener("click", () => muted && showMutes());
      if (P.byId("alerts-new")) P.byId("alerts-new").addEventListener("click", create);
      P.onKey("j", () => step(1)); P.onKey("k", () => step(-1));
      P.onKey("e", () => { const ids = idsOf(target()); mark(ids.length ? ids : [P.alert.shown()].filter(Boolean), true); });
      P.onKey("x", () => { for (const g of groups) if (key(g) === current) { if (selected.has(current)) selected.delete(current); else selected.add(current); } draw(); });
    },
    paint(answers, at) {
      muted = answers.mutes; mutes();
      P.setTab("alerts-state", state());
      groups = P.rows(answers.alerts.groups);
      chips(answers.alerts); timeline(answers.alerts); draw();
      const wanted = at.query.alert || at.rest;
      if (wanted && P.alert.shown() !== wanted) P.alert.open(decodeURIComponent(wanted), at);
      else if (wanted && at.fresh.has("alerts")) P.alert.refresh();
    },
    unmount() { page = null; },
  });
})();
