// Hosts: the list, and which of list, map, graph or one host is shown. The view is in the address: ?view=map.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el, BLOCK = 100, MOST = 100000;
  const H = P.hosts = P.hosts || {};
  let list = null, wide = null;

  const view = () => ["map", "graph"].includes(P.url.query().view) ? P.url.query().view : "table";
  const sort = () => P.url.query().sort || "bytes", descending = () => P.url.query().order !== "asc";
  const SCOPES = { private: "internal", link_local: "this link", loopback: "loopback", multicast: "group", public: "not located" };

  // --- what the parts of the page share ----------------------------------------------------------------------------
  H.open = (ip) => P.url.go("/hosts/" + encodeURIComponent(ip));
  // An address that filters, and an arrow to its own page.
  H.address = (ip, field) => el("span", { class: "host" }, P.cell(field || "host", ip), el("a", { class: "host-open", href: "/hosts/" + encodeURIComponent(ip), title: `Open ${ip}`, "aria-label": `Open host ${ip}` }, P.icon("chevron-right")));
  H.where = (row) => {
    const [value, text, cls] = row.country ? [row.country, row.country_name || row.country, "plain"] : row.scope === "public" ? ["none", SCOPES.public, "plain muted"] : ["private", SCOPES[row.scope] || row.scope || "–", "plain"];
    return el("span", { class: cls }, P.cell("country", value, text));
  };
  H.alerts = (count, severity) => count ? el("span", { class: "severity", "data-severity": severity || "low", title: `${count} ${count === 1 ? "alert" : "alerts"}${severity ? `, the gravest is ${severity}` : ""}` }, F.count(count)) : el("span", { class: "muted" }, "–");
  H.bar = (value, top, text) => el("span", { class: "bar" }, el("i", { style: { width: `${Math.min(100, 100 * value / Math.max(1, top)).toFixed(1)}%` } }), el("span", {}, text));
  // Text, swatch and filter of a class of the charts.
  const CLASSES = { TLS: ["app", "tls"], QUIC: ["app", "quic"], HTTP: ["app", "http"], DNS: ["app", "dns"], SSH: ["app", "ssh"], ICMP: ["proto", "icmp"], TCP: ["proto", "tcp"], UDP: ["proto", "udp"] };
  H.class = (name) => el("span", { class: "key" }, el("span", { class: "swatch", style: { "--c": `var(${P.chart.colourName(name)})` } }), CLASSES[name] ? P.cell(CLASSES[name][0], CLASSES[name][1], name) : name);
  H.app = (app, proto) => el("span", { class: "key" }, el("span", { class: "swatch", style: { "--c": `var(${P.chart.colourName(app || proto || "other")})` } }), app ? P.cell("app", app) : el("span", { class: "muted" }, "unknown"));
  // What the filter could not be applied to is said, not hidden.
  H.ignored = (answer) => answer.filter && answer.filter.ignored.length ? `not applied here: ${answer.filter.ignored.join(" ")}` : "";

  // --- the list ----------------------------------------------------------------------------------------------------
  function columns(top) {
    const time = (us) => el("span", { class: "mono", title: F.dateTime(us) }, F.day(us) === F.day(Date.now() * 1000) || P.url.seconds() <= 86400 ? F.clock(us) : F.dateTime(us).slice(5, 16));
    return [
      { name: "ip", title: "Host", width: "minmax(158px, 1.35fr)", sort: "ip", format: (v) => H.address(v) },
      { name: "name", title: "Name", width: "minmax(96px, 1.2fr)", mono: true, field: "sni" },
      { name: "scope", title: "Where", width: wide ? 112 : 96, format: (v, r) => H.where(r) },
      { name: "bytes", title: "Traffic", width: wide ? 126 : 112, sort: "bytes", format: (v) => H.bar(v, top, F.bytes(v)) },
      { name: "bytes_sent", title: "Sent", number: true, mono: true, width: 84, sort: "bytes_sent", format: F.bytes },
      { name: "bytes_received", title: "Received", number: true, mono: true, width: 88, sort: "bytes_received", format: F.bytes },
      { name: "flows", title: "Flows", number: true, mono: true, width: 66, sort: "flows", format: (v) => F.text(v) },
      ...(wide ? [{ name: "failed", title: "Failed", number: true, mono: true, width: 66, sort: "failed", format: (v) => v ? F.text(v) : el("span", { class: "muted" }, "–") }] : []),
      { name: "peers", title: "Peers", number: true, mono: true, width: 64, sort: "peers", format: (v) => F.text(v) },
      ...(wide ? [{ name: "first_seen", title: "First seen", number: true, width: 88, sort: "first_seen", format: time }] : []),
      { name: "last_seen", title: "Last seen", number: true, width: 84, sort: "last_seen", format: time },
      { name: "alerts", title: "Alerts", width: 72, sort: "alerts", format: (v, r) => H.alerts(v, r.severity) },
    ];
  }
  function build() {
    if (list) list.grid.destroy();
    list = P.movingGrid("hosts-grid", {
      question: "hosts", resume: "hosts-resume", params: () => ({ sort: sort(), order: descending() ? "desc" : "asc" }),
      block: (offset, limit) => ({ offset: Math.min(offset, MOST), limit }),
      grid: {
        columns: columns(1), label: "Hosts", block: BLOCK, sorted: { sort: sort(), desc: descending() },
        rowClass: (row) => row.severity ? `alerted alerted-${row.severity}` : "",
        empty: "No host had a connection that began in this range.",
        onSort: (key, desc) => P.url.set({ sort: key === "bytes" ? null : key, order: desc ? null : "asc" }),
        onOpen: (row) => H.open(row.ip),
      },
      first: (answer) => ({ end: answer.range.end, total: Math.min(answer.total, MOST) }),
      newer: () => 0,
      changed: () => {},
    });
  }
  function table(answer) {
    const now = window.innerWidth >= 1280;
    if (!list || now !== wide) { wide = now; build(); }
    list.grid.set({ sorted: { sort: sort(), desc: descending() }, columns: columns(Math.max(1, ...answer.rows.bytes)) });
    list.paint(answer);
    H.note("table", [`${F.count(answer.total)} ${answer.total === 1 ? "host" : "hosts"}`, F.bytes(answer.bytes), H.ignored(answer)].filter(Boolean).join(" · "));
  }

  // Each view has its note: the one that is shown says it.
  const notes = {};
  H.note = (of, text) => { notes[of] = text; if (of === view()) P.setText("hosts-note", text); };

  // --- the page ----------------------------------------------------------------------------------------------------
  const QUESTIONS = { table: "hosts", map: "places", graph: "graph" };
  function show() {
    P.setTab("hosts-view", view());
    for (const node of document.querySelectorAll(".hosts-view")) node.hidden = node.dataset.view !== view();
    P.setText("hosts-note", notes[view()] || "");
    const button = P.byId("hosts-resume");
    if (view() !== "table" && button) button.hidden = true;
  }
  P.on("url", () => { const page = P.current(); if (page && page.name === "hosts" && !page.rest) show(); });
  P.page("hosts", {
    feeds: (page) => page.rest ? ["host"] : [QUESTIONS[view()]],
    params(question, page) {
      if (question === "host") return { ip: decodeURIComponent(page.rest) };
      return question === "hosts" ? { sort: sort(), order: descending() ? "desc" : "asc", limit: BLOCK } : {};
    },
    mount(page) {
      list = null;
      if (page.rest) { H.host.mount(page); return; }
      for (const of of Object.keys(notes)) delete notes[of];
      P.loading("hosts-grid", 14);
      show();
      P.onTab("hosts-view", (name) => P.url.set({ view: name === "table" ? null : name, sort: null, order: null }));
      P.onKey("j", () => list && list.grid.select(list.grid.selected + 1));
      P.onKey("k", () => list && list.grid.select(list.grid.selected - 1));
      H.map.mount();
      H.graph.mount();
    },
    paint(answers, page) {
      if (page.rest) { H.host.paint(answers.host); return; }
      show();
      ({ table: () => table(answers.hosts), map: () => H.map.paint(answers.places), graph: () => H.graph.paint(answers.graph) })[view()]();
    },
    failed(question, error, page) { if (page.rest) H.host.failed(error); },
    unmount() {
      if (list) list.grid.destroy();
      list = null;
      H.graph.unmount();
    },
  });
})();
