// Packets: the list, newest first or oldest first, its chart, and the inspector of the chosen one.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el, BLOCK = 200;
  let list = null, inspector = null, counted = null, counting = null, countedAt = 0, countMs = 0, asking = null, chosen = null, zone = null, named = false;
  let released = null;  // the view in which Escape let go: there none is chosen by itself

  const descending = () => P.url.query().order !== "asc";
  const payload = () => P.recall("payload", "off") === "on" && P.may("operator");
  const order = () => ({ order: descending() ? "desc" : "asc", payload: payload() ? "true" : "" });

  // --- the list -----------------------------------------------------------------------------------------------------
  const swatch = (name, ...inside) => el("span", { class: "key" }, el("span", { class: "swatch", style: { "--c": `var(${P.chart.colourName(name)})` } }), inside);
  const printable = (hex) => hex ? hex.match(/../g).map((h) => { const b = parseInt(h, 16); return b >= 32 && b < 127 ? String.fromCharCode(b) : "·"; }).join("") : "–";
  function protocol(row) {
    const app = row.app && row.app.toUpperCase();
    return swatch(row.app || row.proto || "other", app ? P.cell("app", row.app, app) : /^[A-Z][A-Za-z0-9-]*$/.test(row.proto) ? P.cell("proto", row.proto.toLowerCase(), row.proto) : row.proto);
  }
  function columns() {
    const wide = P.url.seconds() > 86400 || P.url.range() === "all", small = window.innerWidth < 1280;
    const time = (us) => wide ? `${F.day(us).slice(5)} ${F.clockUs(us)}` : F.clockUs(us);
    return [
      { name: "frame", title: "No.", number: true, mono: true, width: small ? 82 : 92 },
      { name: "ts", title: "Time", mono: true, width: wide ? 172 : 126, sort: "time", format: time },
      { name: "src", title: "Source", mono: true, width: "minmax(118px, 1.1fr)", field: "src", format: (v, r) => address("src", v, r) },
      { name: "sport", title: "Port", number: true, mono: true, width: 64, field: "sport" },
      { name: "dst", title: "Destination", mono: true, width: "minmax(118px, 1.1fr)", field: "dst", format: (v, r) => address("dst", v, r) },
      { name: "dport", title: "Port", number: true, mono: true, width: 64, field: "dport" },
      { name: "proto", title: "Protocol", width: small ? 92 : 104, format: (v, r) => protocol(r) },
      { name: "len", title: "Length", number: true, mono: true, width: 68 },
      { name: "info", title: "Info", mono: true, width: payload() ? "minmax(90px, 1fr)" : "minmax(120px, 2fr)", format: (v) => el("span", { class: "muted" }, v || "") },
      ...(payload() ? [{ name: "payload", title: "Payload", mono: true, width: small ? "minmax(120px, 1fr)" : "minmax(244px, 1fr)", format: printable }] : []),
    ];
  }
  // Frames without IP have the stations' addresses there, which no filter knows.
  const address = (field, value, row) => row.proto !== "ARP" && /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(value || "") ? el("span", {}, value) : P.cell(field, value, undefined, { title: `${value} (click: only this, Alt-click: without it)` });

  function build() {
    if (list) list.grid.destroy();
    list = P.movingGrid("packets-grid", {
      question: "packets", resume: "packets-resume", params: order,
      block: (offset, limit) => ({ row: offset, limit }),
      grid: {
        columns: columns(), label: "Packets", block: BLOCK, empty: "No packets here.", sorted: { sort: "time", desc: descending() },
        onSort: () => P.url.set({ order: descending() ? "asc" : null }),
        rowClass: (r) => r.severity ? `alerted alerted-${r.severity}` : "",
        onOpen: () => inspector.focus(),
      },
      // The newest row of a moving range is where it ends: what comes later would move the others.
      first: (answer, rows) => ({
        end: answer.range.live && descending() && rows.length ? rows[0].ts + 1 : answer.range.end,
        total: answer.total !== undefined ? answer.total : answer.next === null ? rows.length : Math.max(1, rows.length),
      }),
      newer: (rows, view) => { const n = descending() ? rows.filter((r) => r.ts >= view.end).length : 0; return n === BLOCK ? `${n}+` : n; },
      onSelect: inspect,
      changed: (view, answer, same) => {
        if (!same) { counted = null; if (!named) select(null); named = false; }
        note();
        count(same);
        if (!P.url.live() && !chosen && list.grid.total && view.key !== released) list.grid.select(0);
      },
    });
  }

  // --- how many, and when -------------------------------------------------------------------------------------------
  // A moving range is counted again as often as its counting allows.
  function count(same) {
    const now = performance.now(), view = list.view;
    if (same && (asking || now - countedAt < Math.max(2000, countMs * 10))) return;
    if (asking) asking.abort();
    const control = asking = new AbortController();
    counting = view.key;
    P.feed.ask("packet_count", { range: view.range, filter: view.filter }, { signal: control.signal }).then((a) => {
      if (asking !== control) return;
      countMs = performance.now() - now; countedAt = performance.now();
      if (!list || !list.view || list.view.key !== counting) return;
      counted = a;
      if (view.filter && list.view.range === view.range) {
        list.grid.setTotal(a.count);
        if (view.rows < Math.min(BLOCK, a.count)) list.grid.reload(true);  // a search that gave up early
      }
      paintCount();
    }, (error) => { if (error.name !== "AbortError" && asking === control) P.setText("packets-note", error.message); })
      .finally(() => { if (asking === control) asking = null; });
  }
  function paintCount() {
    if (!counted) return;
    const t = counted.timeline, series = Object.fromEntries(Object.entries(t.series).map(([k, v]) => [k, v.map((n) => n / t.step_s)]));
    P.chart.timeline("packets-timeline", { start_s: t.start_s, step_s: t.step_s, series }, { unit: " packets/s", label: "Packets per second that are listed", empty: "No packets here." });
    P.chart.legend("packets-legend", Object.keys(series));
    note();
  }
  function note() {
    if (!list || !list.view) return;
    const all = P.url.filter() ? counted ? `${F.count(counted.count)} of ${F.count(counted.all)} packets` : "Counting …" : `${F.count(list.grid.total)} packets`;
    P.setText("packets-note", [all, P.took("packets")].filter(Boolean).join(" · "));
  }

  // --- the chosen one -----------------------------------------------------------------------------------------------
  let underway = null;
  function select(row) {
    chosen = row;
    if (!row && underway) { underway.abort(); underway = null; }
    remember();
    for (const id of ["follow", "flow", "hex", "python", "download"]) { const b = P.byId(`packets-${id}`); if (b) b.disabled = true; }
    if (!row) inspector.clear(P.url.live() ? "Choose a packet to stop and look at it: click, or J and K." : "Choose a packet: click, or J and K.");
  }
  // The address names it, without a step of history for each.
  function remember() {
    const params = new URLSearchParams(location.search), now = params.get("packet");
    const text = chosen ? [chosen.ts, chosen.frame, chosen.sensor, chosen.source].join(":") : null;
    if (text === now || (!text && !now)) return;
    if (text) params.set("packet", text); else params.delete("packet");
    history.replaceState(history.state, "", location.pathname + (params.toString() ? "?" + params : ""));
  }
  async function inspect(row) {
    select(row);
    if (underway) underway.abort();
    const control = underway = new AbortController();
    try {
      const a = await P.feed.ask("packet", { sensor: row.sensor, source: row.source, frame: row.frame, ts: row.ts, range: `${row.ts},${row.ts + 1}`, filter: "" }, { signal: control.signal });
      if (underway !== control) return;
      inspector.show(a);
      const enable = (id, on) => { const b = P.byId(`packets-${id}`); if (b) b.disabled = !on; };
      for (const id of ["hex", "python", "download"]) enable(id, Boolean(a.bytes));
      for (const id of ["follow", "flow"]) enable(id, Boolean(a.row.flow_id));
    } catch (error) { if (error.name !== "AbortError" && underway === control) inspector.failed(error, () => inspect(row)); }
  }
  function fromAddress() {
    const found = /^(-?\d+):(\d+):([^:]*):(.*)$/.exec(P.url.query().packet || "");
    if (!found) return;
    named = true;
    inspect({ ts: Number(found[1]), frame: Number(found[2]), sensor: found[3], source: found[4] });
  }
  P.on("took", (question) => { if (question === "packets") note(); });
  const onClick = (id, act) => { const b = P.byId(id); if (b) b.addEventListener("click", act); };
  const pressed = () => { const b = P.byId("packets-payload"); if (b) b.setAttribute("aria-pressed", String(payload())); };

  P.page("packets", {
    params: () => Object.assign(P.url.filter() ? {} : { row: 0 }, { limit: BLOCK }, order()),
    mount() {
      counted = null; chosen = null; asking = null; named = false; released = null; zone = P.url.zone();
      inspector = P.inspector({ layers: "packets-layers", bytes: "packets-bytes" });
      P.loading("packets-grid", 12);
      const flow = () => String(inspector.answer.row.flow_id);
      onClick("packets-follow", () => P.url.add("flow", flow()));
      onClick("packets-flow", () => P.url.go("/flows", { flow: flow(), filter: `flow=${flow()}` }));
      onClick("packets-hex", () => P.copy(P.inspector.hex(inspector.chosen())));
      onClick("packets-python", () => P.copy(P.inspector.python(inspector.chosen())));
      onClick("packets-download", () => location.assign(P.feed.address("pcap", { range: `${chosen.ts},${chosen.ts + 1}`, source: chosen.source, frame: chosen.frame, filter: `sensor=${chosen.sensor}` })));
      onClick("packets-pcap", () => P.exportPcap(list && list.view ? { range: list.view.range } : {}));
      onClick("packets-payload", () => { P.remember("payload", payload() ? "off" : "on"); pressed(); list = null; P.feed.now(); });
      pressed();
      fromAddress();
      P.onKey("j", () => list && list.grid.select(list.grid.selected + 1));
      P.onKey("k", () => list && list.grid.select(list.grid.selected - 1));
      P.onKey("Escape", () => { if (chosen) { released = list.view && list.view.key; select(null); list.resume(); } else P.url.back(); });
    },
    paint(answers) {
      if (!list || list.columnsFor !== columnsFor()) { build(); list.columnsFor = columnsFor(); }
      list.grid.set({ sorted: { sort: "time", desc: descending() } });
      list.paint(answers.packets);
      paintCount();
      if (chosen) list.freeze();
      if (zone !== P.url.zone()) { zone = P.url.zone(); inspector.repaint(); }
    },
    unmount() {
      if (list) list.grid.destroy();
      inspector.destroy();
      if (asking) asking.abort();
      if (underway) underway.abort();
      list = null; underway = null; asking = null;
    },
  });
  const columnsFor = () => `${payload()} ${P.url.seconds() > 86400 || P.url.range() === "all"}`;
})();
