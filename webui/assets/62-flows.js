// Flows: the endless list, its chart, and a drawer for one connection. The drawer is in the address: ?flow=NUMBER.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el, BLOCK = 100, MOST = 100000;
  let list = null, counting = null, timeline = null, total = 0, drawer = null, shown = "", wide = null;

  const sort = () => P.url.query().sort || "ts", descending = () => P.url.query().order !== "asc";
  const order = () => ({ sort: sort(), order: descending() ? "desc" : "asc" });
  const swatch = (name, ...inside) => el("span", { class: "key" }, el("span", { class: "swatch", style: { "--c": `var(${P.chart.colourName(name)})` } }), inside);
  const isNew = (row) => row.severity ? `alerted alerted-${row.severity}` : "";

  // An address and its port, each a value of its own.
  const end = (side, port) => (v, r) => el("span", { class: "end" }, P.cell(side, v, v && v.includes(":") ? `[${v}]` : v, { title: `${v} (click: only this, Alt-click: without it)` }), r[port === "sport" ? "src_port" : "dst_port"] === null ? null : [":", P.cell(port, r[port === "sport" ? "src_port" : "dst_port"])]);
  const application = (v, r) => swatch(v, r.app ? P.cell("app", r.app, r.app.toUpperCase()) : P.cell("proto", v.toLowerCase(), v));
  const state = (v) => v ? el("span", { class: "state", "data-state": v }, P.cell("state", v)) : "–";
  function columns() {
    const days = P.url.seconds() > 86400 || P.url.range() === "all";
    return [
      { name: "ts", title: "Began", mono: true, width: days ? 146 : 108, sort: "ts", format: (us) => days ? `${F.day(us).slice(5)} ${F.clockMs(us)}` : F.clockMs(us) },
      { name: "name", title: "Application", width: wide ? 96 : 88, sort: "app", format: application },
      { name: "src_ip", title: "Client", mono: true, width: "minmax(140px, 1.2fr)", sort: "src_ip", format: end("src", "sport") },
      { name: "dst_ip", title: "Server", mono: true, width: "minmax(140px, 1.2fr)", sort: "dst_ip", format: end("dst", "dport") },
      { name: "server_name", title: "Server name", mono: true, width: wide ? "minmax(90px, 1fr)" : "minmax(80px, .8fr)", sort: "server_name", field: "sni" },
      { name: "duration_s", title: "Duration", number: true, mono: true, width: wide ? 88 : 80, sort: "duration_s", format: F.duration },
      { name: "src_bytes", title: "Sent", number: true, mono: true, width: wide ? 82 : 76, sort: "src_bytes", format: F.bytes },
      { name: "dst_bytes", title: "Received", number: true, mono: true, width: wide ? 86 : 78, sort: "dst_bytes", format: F.bytes },
      { name: "outcome", title: "State", width: 98, sort: "outcome", format: state },
      ...(wide ? [
        { name: "community_id", title: "Community ID", mono: true, width: 104, format: (v) => el("span", { class: "muted" }, v || "–") },
        { name: "anomaly", title: "Anomaly", number: true, mono: true, width: 72, format: (v) => v === null ? "–" : v.toFixed(2) },
      ] : []),
    ];
  }

  function build() {
    if (list) list.grid.destroy();
    list = P.movingGrid("flows-grid", {
      question: "flows", resume: "flows-resume", params: order,
      block: (offset, limit) => ({ offset: Math.min(offset, MOST), limit }),
      grid: {
        columns: columns(), label: "Flows", block: BLOCK, rowClass: isNew, sorted: { sort: sort(), desc: descending() },
        empty: P.url.live() ? "No connection that began in this range is over yet. One is listed when it ends, or after five minutes." : "No connections began in this range.",
        onSort: (key, desc) => P.url.set({ sort: key === "ts" ? null : key, order: desc ? null : "asc" }),
        onOpen: (row) => open(row),
      },
      first: (answer) => ({ end: answer.range.end, total: Math.min(answer.total, MOST) }),
      newer: (rows, view) => sort() === "ts" && descending() ? rows.filter((r) => r.ts > view.newest).length : 0,
      onSelect: (row) => open(row),
      changed: (view, answer) => {
        total = answer.total;
        view.newest = answer.rows.ts.length ? Math.max(...answer.rows.ts) : 0;
        view.bytes = answer.bytes;
        note();
        count();
      },
    });
  }
  function note() {
    if (!list || !list.view) return;
    const part = total > MOST ? `, the first ${F.count(MOST)} listed` : "";
    P.setText("flows-note", [`${many(total, "connection")}${part}`, list.view.bytes ? F.bytes(list.view.bytes) : "", P.took("flows")].filter(Boolean).join(" · "));
  }
  P.on("took", (question) => { if (question === "flows") note(); });
  function count() {
    if (counting) counting.abort();
    const control = counting = new AbortController();
    P.feed.ask("flow_count", { range: list.view.range, filter: list.view.filter }, { signal: control.signal }).then((a) => {
      if (counting === control) { timeline = a.timeline; chart(); }
    }, (error) => { if (error.name !== "AbortError") P.setText("flows-note", error.message); });
  }
  function chart() {
    if (!timeline) return;
    const per = Object.fromEntries(Object.entries(timeline.series).map(([k, v]) => [k, v.map((n) => n / timeline.step_s)]));
    P.chart.timeline("flows-timeline", { start_s: timeline.start_s, step_s: timeline.step_s, series: per }, { unit: " connections/s", label: "Connections that began per second", empty: "No connections here." });
    P.chart.legend("flows-legend", Object.keys(timeline.series));
  }

  // --- one connection -----------------------------------------------------------------------------------------------
  // A connection's beginning is where its row says; from an address alone, it must be in the range.
  function open(row) {
    shown = row ? row.flow_id : P.url.query().flow || "";  // before the address changes, which would open it once more
    if (row && P.url.query().flow !== row.flow_id) P.url.set({ flow: row.flow_id });
    const range = row ? `${row.ts},${Math.max(row.end_ts + 1, list && list.view ? list.view.end : 0)}` : P.url.range();
    const mine = drawer = P.drawer("Flow", el("div", {}), () => { if (drawer === mine) { drawer = null; shown = ""; if (P.url.query().flow) P.url.set({ flow: null }); } });
    mine.box.classList.add("flow-drawer");
    P.loading(mine.body, 10);
    const id = shown;
    P.feed.ask("flow", { flow_id: id, limit: 300, range, filter: "" }).then((a) => { if (drawer === mine) fill(mine, id, a); }, (error) => { if (drawer === mine) P.failed(mine.body, error, () => open(row)); });
  }
  const many = (n, word) => `${F.count(n)} ${word}${n === 1 ? "" : "s"}`;
  const sum = (values) => values.reduce((s, v) => s + (v || 0), 0), last = (values) => values[values.length - 1];
  function fill(view, id, a) {
    const p = a.parts, one = (name) => p[name] ? last(p[name].filter((v) => v !== null && v !== undefined)) : undefined;
    const began = Math.min(...p.ts), ended = Math.max(...p.end_ts), sent = sum(p.src_bytes), received = sum(p.dst_bytes);
    const packets = sum(p.src_packets) + sum(p.dst_packets), app = one("app"), name = app ? app.toUpperCase() : (a.packets.proto[0] || "IP");
    view.box.querySelector("h2").textContent = `${name} ${one("src_ip") || ""} → ${one("server_name") || one("dst_ip") || ""}`;
    const fact = (label, ...value) => value.every((v) => v === null || v === undefined || v === "") ? null : [el("dt", {}, label), el("dd", { class: "mono" }, value)];
    const side = (who, ip, port) => one(ip) ? el("span", { class: "end" }, P.cell(who, one(ip)), one(port) === undefined ? null : [" : ", P.cell(port === "src_port" ? "sport" : "dport", one(port))]) : null;
    const share = (n) => `${(100 * n / Math.max(1, sent + received)).toFixed(1)}%`;
    const all = () => P.url.go("/packets", { filter: `flow=${id}`, range: `${began},${ended + 1}`, flow: null });
    const tools = el("div", { class: "row-buttons" },
      P.button("All its packets", all),
      P.may("operator") ? P.button("Download pcap", () => P.exportPcap({ filter: `flow=${id}`, range: `${began},${ended + 1}` })) : null,
      one("community_id") ? P.button("Copy Community ID", () => P.copy(one("community_id"))) : null);
    const names = { closed: "closed by both", reset: "reset", idle: "no packet for the idle time", active: "still open: this is what there is so far", stop: "the capture stopped", evicted: "the flow table was full", reused: "its ports were used again" };
    view.body.replaceChildren(
      tools,
      ...P.rows(a.alerts).map((r) => el("p", { class: "flow-alert" }, el("span", { class: "severity", "data-severity": r.severity }, r.severity), " ", el("strong", {}, r.kind.replace(/_/g, " ")), ` ${r.why || ""} `, P.button("Open the alert", () => P.url.go("/alerts", { alert: r.id }), { class: "link" }))),
      el("dl", { class: "facts" },
        fact("Client", side("src", "src_ip", "src_port")), fact("Server", side("dst", "dst_ip", "dst_port")),
        fact("Application", app ? P.cell("app", app, name) : null), fact("Server name", one("server_name") ? P.cell("sni", one("server_name")) : null),
        fact("Began", `${F.day(began)} ${F.clockUs(began)} ${F.zone(began)}`), fact("Duration", F.duration((ended - began) / 1e6)),
        fact("State", one("outcome") ? P.cell("state", one("outcome")) : null, one("end_reason") ? ` · ${names[one("end_reason")] || one("end_reason")}` : null),
        fact("Handshake", one("rtt_us") === undefined ? null : F.duration(one("rtt_us") / 1e6)),
        fact("Retransmitted", sum(p.src_retransmits) + sum(p.dst_retransmits) ? `${F.count(sum(p.src_retransmits))} by the client, ${F.count(sum(p.dst_retransmits))} by the server` : null),
        fact("Community ID", one("community_id")), fact("Flow", P.cell("flow", id)),
        fact("Seen by", el("span", { title: one("source") }, `${one("sensor")}, ${String(one("source")).split(/[\\/]/).pop()}`)), p.ts.length > 1 ? fact("Parts", F.count(p.ts.length)) : null),
      el("div", { class: "split", role: "img", "aria-label": `Sent ${F.bytes(sent)}, received ${F.bytes(received)}` },
        el("div", { class: "split-text" }, el("span", {}, `Client sent ${F.bytes(sent)} in ${many(sum(p.src_packets), "packet")}`), el("span", {}, `Server sent ${F.bytes(received)} in ${many(sum(p.dst_packets), "packet")}`)),
        el("div", { class: "split-bar" }, el("i", { style: { width: share(sent) } }), el("b", { style: { width: share(received) } }))),
      el("h3", {}, a.packets.ts.length < packets ? `The first ${F.count(a.packets.ts.length)} of ${many(packets, "packet")}` : many(packets, "packet"), el("span", { class: "muted" }, "  client up, server down")),
      el("div", { id: "flows-one", class: "flow-chart" }),
      el("div", { id: "flows-packets", class: "flow-packets scroll", tabindex: "0", "aria-label": "Packets of the flow" }),
      ...Object.entries(a.applications).flatMap(([table, columns]) => messages(table, columns)));
    const isClient = (r) => r.src === one("src_ip") && (r.sport === null || r.sport === one("src_port"));
    stems(a, began, isClient);
    P.table("flows-packets", {
      rows: a.packets, caption: "Packets of the flow", empty: "Its packets are no longer in the lake.",
      columns: [
        { name: "ts", title: "After", number: true, mono: true, width: 86, format: (v) => F.duration((v - began) / 1e6) },
        { name: "src", title: "From", width: 66, format: (v, r) => isClient(r) ? "client" : "server" },
        { name: "len", title: "Length", number: true, mono: true, width: 68 },
        { name: "info", title: "Info", mono: true },
      ],
    });
  }
  // Packets as lines since its beginning: the client's up, the server's down.
  function stems(a, began, isClient) {
    const rows = P.rows(a.packets), span = (Math.max(...rows.map((r) => r.ts), began) - began) / 1e6, [scale, unit] = span < 0.002 ? [1, " µs"] : span < 2 ? [1e3, " ms"] : [1e6, " s"];
    const of = (mine) => rows.filter((r) => isClient(r) === mine), most = (mine) => Math.max(0, ...of(mine).map((r) => r.len));
    const trace = (mine, title, colour) => ({
      type: "scatter", mode: "lines+markers", name: title, x: of(mine).flatMap((r) => [(r.ts - began) / scale, (r.ts - began) / scale, null]), y: of(mine).flatMap((r) => [0, mine ? r.len : -r.len, null]), connectgaps: false,
      text: of(mine).flatMap((r) => ["", P.chart.plain(`${title}: ${F.count(r.len)} B ${r.info || ""}`), ""]), hovertemplate: "%{text}<extra></extra>",
      marker: { size: of(mine).flatMap(() => [0, 5, 0]), color: P.token(colour), line: { width: 0 } }, line: { width: 1.5, color: P.token(colour) },
    });
    const up = most(true), down = most(false), ticks = [...new Set([-down, 0, up])];
    P.chart.plot("flows-one", [trace(true, "Client", "--c-tls"), trace(false, "Server", "--c-http")], {
      hovermode: "closest", margin: { l: 60, r: 16, t: 8, b: 24 }, xaxis: { type: "linear", nticks: 6, ticksuffix: unit, rangemode: "tozero" },
      yaxis: { rangemode: "normal", zeroline: true, zerolinecolor: P.token("--border"), tickvals: ticks, ticktext: ticks.map((v) => F.bytes(Math.abs(v))), range: [-down * 1.15 - (up || 1) * 0.06, (up || down) * 1.15] },
    });
    const box = P.byId("flows-one");
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", `Packets since the beginning by length: ${of(true).length} of the client up, ${of(false).length} of the server down`);
  }
  const ALSO = new Set(["ts", "flow_id", "sensor", "date", "hour", "source", "src_ip", "dst_ip", "src_port", "dst_port", "frame_no", "part"]);
  const VALUES = { query: "sni", sni: "sni", host: "sni" };
  function messages(table, columns) {
    const rows = P.rows(columns), told = (v) => v !== null && v !== undefined && v !== "" && !(Array.isArray(v) && !v.length);
    const text = (v) => Array.isArray(v) ? v.join(", ") : typeof v === "object" ? JSON.stringify(v) : String(v);
    const what = (r) => [r.query, r.qtype_name || r.qtype, r.method, r.host, r.uri || r.path, r.status, r.sni, r.version, r.command].filter(told).map(text).join(" ") || table;
    return [el("h3", {}, `${table.toUpperCase()}: ${many(rows.length, "message")}`),
      ...rows.slice(0, 50).map((r, i) => el("details", { class: "message", open: i === 0 && rows.length < 4 }, el("summary", { class: "mono" }, `${F.clockMs(r.ts)}  ${what(r)}`),
        el("dl", { class: "facts" }, Object.entries(r).filter(([k, v]) => !ALSO.has(k) && told(v)).map(([k, v]) => [el("dt", {}, k.replace(/_/g, " ")), el("dd", { class: "mono" }, VALUES[k] ? P.cell(VALUES[k], text(v)) : text(v))]).flat())))];
  }

  // The address says which one is open.
  function follow() {
    const asked = P.url.query().flow || "";
    if (asked && asked !== shown) open(null);
    else if (!asked && drawer) drawer.close();
  }
  P.on("url", () => { if (list && P.current() && P.current().name === "flows") follow(); });

  P.page("flows", {
    params: () => Object.assign({ limit: BLOCK, offset: 0 }, order()),
    mount() {
      timeline = null; list = null; shown = "";
      P.loading("flows-grid", 14);
      P.onKey("j", () => list && list.grid.select(list.grid.selected + 1));
      P.onKey("k", () => list && list.grid.select(list.grid.selected - 1));
    },
    paint(answers) {
      const now = window.innerWidth >= 1280;
      if (!list || now !== wide || list.days !== (P.url.seconds() > 86400)) { wide = now; build(); list.days = P.url.seconds() > 86400; }
      list.grid.set({ sorted: { sort: sort(), desc: descending() } });
      list.paint(answers.flows);
      chart();
      follow();
    },
    unmount() {
      drawer = null;
      if (list) list.grid.destroy();
      if (counting) counting.abort();
      list = null;
    },
  });
})();
