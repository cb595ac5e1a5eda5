// Who talks to whom: the heaviest conversations as a graph, drawn once for a range and filter. The only user of cytoscape.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el, H = P.hosts = P.hosts || {};
  const NAMED = 24;  // so many of the heaviest hosts have their name beside them, fewer in a small graph; all when chosen
  let cy = null, last = null, drawn = "", asked = "", chosen = "", theme = "";

  const keyOf = (a) => [...a.nodes.ip].sort().join(" ") + "|" + a.edges.a.map((x, i) => `${x} ${a.edges.b[i]}`).sort().join(",");
  const address = () => JSON.stringify([P.url.range(), P.url.filter()]);
  const label = (n) => n.name && n.name.length <= 28 ? n.name : n.ip;

  function elements(a, few) {
    const nodes = P.rows(a.nodes).sort((x, y) => y.bytes - x.bytes), most = Math.max(1, ...a.nodes.bytes), heavy = Math.max(1, ...a.edges.bytes);
    return [
      ...nodes.map((n, i) => ({ group: "nodes", data: { id: n.ip, name: label(n), named: i < Math.min(NAMED, few) ? label(n) : "", size: 12 + 34 * Math.sqrt(n.bytes / most), scope: n.scope === "public" ? "external" : "internal", severity: n.severity || "" },
        position: { x: 400 * Math.cos(2.399963 * i) * Math.sqrt((i + 1) / nodes.length), y: 300 * Math.sin(2.399963 * i) * Math.sqrt((i + 1) / nodes.length) } })),
      ...P.rows(a.edges).filter((e) => e.a !== e.b).map((e) => ({ group: "edges", data: { id: `${e.a} ${e.b}`, source: e.a, target: e.b, width: 1 + 5 * Math.sqrt(e.bytes / heavy), app: e.app || "" } })),
    ];
  }
  function style() {
    const t = P.token;
    return [
      { selector: "node", style: { width: "data(size)", height: "data(size)", "background-color": t("--c-tls"), "border-width": 1.5, "border-color": t("--surface"), label: "data(named)", color: t("--text"), "font-family": "Inter, sans-serif", "font-size": 10, "text-valign": "bottom", "text-outline-color": t("--surface"), "text-outline-width": 2 } },
      { selector: "node[scope = 'external']", style: { shape: "round-diamond", "background-color": t("--c-other") } },
      ...["low", "medium", "high", "critical"].map((s) => ({ selector: `node[severity = '${s}']`, style: { "border-color": t(P.chart.severity(s)), "border-width": 3 } })),
      { selector: "edge", style: { width: "data(width)", "line-color": (e) => e.data("app") ? P.chart.colour(e.data("app")) : t("--c-other"), opacity: 0.5, "curve-style": "straight" } },
      { selector: ".faint", style: { opacity: 0.12, label: "" } },
      { selector: ".chosen", style: { label: "data(name)", "z-index": 9 } },
      { selector: "edge.chosen", style: { opacity: 0.9, label: "" } },
    ];
  }
  function draw(a) {
    const box = P.byId("hosts-graph"), cyto = window.cytoscape;
    if (!box || !cyto) return;
    if (cy) cy.destroy();
    cy = null;
    drawn = keyOf(a); asked = address(); theme = document.documentElement.dataset.theme;
    if (!a.nodes.ip.length) { P.empty(box, "No connections began in this range."); return; }
    box.replaceChildren();
    cy = cyto({ container: box, elements: elements(a, box.clientWidth / 34), style: style(), minZoom: 0.1, maxZoom: 4, layout: { name: "preset" }, boxSelectionEnabled: false, autounselectify: true });
    cy.layout({ name: "cose", animate: false, randomize: false, fit: false, nodeRepulsion: () => 9000, idealEdgeLength: () => 60, numIter: 700 }).run();
    pack();
    cy.on("zoom", scaled);
    fit();
    cy.on("tap", (e) => { if (e.target === cy) choose(""); });
    cy.on("tap", "node", (e) => choose(e.target.id()));
    cy.on("tap", "edge", (e) => choose(e.target.id()));
    cy.on("dbltap", "node", (e) => H.open(e.target.id()));
    cy.on("mouseover", "node, edge", () => { box.style.cursor = "pointer"; });
    cy.on("mouseout", "node, edge", () => { box.style.cursor = ""; });
    choose(chosen && cy.getElementById(chosen).nonempty() ? chosen : "");
  }
  // Parts that are not connected, the largest first, in rows as wide as the space is for its height.
  function pack() {
    const GAP = 44, parts = cy.elements().components().map((c) => ({ c, box: c.boundingBox({ includeLabels: false }) })).sort((x, y) => y.box.h - x.box.h);
    const area = parts.reduce((s, { box }) => s + (box.w + GAP) * (box.h + GAP), 0), row = Math.max(Math.sqrt(area * cy.width() / Math.max(1, cy.height())) * 1.02, ...parts.map((p) => p.box.w));
    let x = 0, y = 0, high = 0;
    cy.batch(() => {
      for (const { c, box } of parts) {
        if (x > 0 && x + box.w > row) { x = 0; y += high + GAP; high = 0; }
        c.nodes().shift({ x: x - box.x1, y: y - box.y1 });
        x += box.w + GAP;
        high = Math.max(high, box.h);
      }
    });
  }
  function fit() { cy.fit(undefined, 46); scaled(); }
  // Names keep their size on the screen.
  function scaled() { if (cy) cy.style().selector("node").style({ "font-size": 10.5 / cy.zoom(), "text-margin-y": 3 / cy.zoom(), "text-outline-width": 2 / cy.zoom() }).update(); }
  // A host (its address) or a conversation (two addresses): it and what hangs on it stay bright, the rest fades.
  function choose(id) {
    chosen = id;
    if (cy) {
      cy.batch(() => {
        cy.elements().removeClass("faint chosen");
        const one = id ? cy.getElementById(id) : null;
        if (one && one.nonempty()) {
          const near = one.isNode() ? one.closedNeighborhood() : one.union(one.connectedNodes());
          cy.elements().difference(near).addClass("faint");
          near.addClass("chosen");
        }
      });
    }
    foot();
    edges();
  }
  function foot() {
    const box = P.byId("hosts-graph-foot"), node = P.rows(last.nodes).find((n) => n.ip === chosen);
    if (!node) {
      box.replaceChildren(el("span", { class: "shape internal" }, "internal"), el("span", { class: "shape external" }, "external"), el("span", { class: "shape ringed" }, "has alerts"),
        el("span", { class: "hosts-hint" }, "Size is bytes. Click for its conversations, double-click to open."));
      return;
    }
    P.keepFocus(box, () => box.replaceChildren(H.address(node.ip), node.name ? el("span", { class: "mono" }, node.name) : "", H.where(node), el("span", {}, F.bytes(node.bytes)),
      node.alerts ? el("span", {}, H.alerts(node.alerts, node.severity), ` ${node.alerts === 1 ? "alert" : "alerts"}`) : "", P.button("All", () => choose(""), { class: "link" })));
  }
  function edges() {
    const list = P.rows(last.edges), [a, b] = chosen.split(" ");
    const shown = !chosen ? list : list.filter((e) => b ? e.a === a && e.b === b : e.a === a || e.b === a);
    P.table("hosts-edges", {
      rows: shown, caption: "Conversations", empty: "No conversations.", key: (e) => `${e.a} ${e.b}`, selected: chosen, onRow: (e) => choose(chosen === `${e.a} ${e.b}` ? "" : `${e.a} ${e.b}`),
      columns: [
        { name: "a", title: "Host", mono: true, field: "host" },
        { name: "b", title: "Host", mono: true, field: "host" },
        { name: "app", title: "Application", width: 92, format: (v) => H.app(v) },
        { name: "bytes", title: "Bytes", bar: true, width: 92, format: F.bytes },
        { name: "flows", title: "Flows", number: true, mono: true, width: 58, format: (v) => F.text(v) },
      ],
    });
  }
  function paint(a) {
    const first = last === null;
    last = a;
    const same = keyOf(a) === drawn, sum = a.edges.bytes.reduce((x, y) => x + y, 0), n = a.edges.a.length, box = P.byId("hosts-graph");
    const of = a.hidden ? `the heaviest ${F.count(n)} of ${F.count(n + a.hidden)} conversations · ${F.percent(sum / Math.max(1, a.bytes))} of ${F.bytes(a.bytes)}` : `${F.count(n)} ${n === 1 ? "conversation" : "conversations"} · ${F.bytes(a.bytes)}`;
    H.note("graph", [of, H.ignored(a)].filter(Boolean).join(" · "));
    P.asTable.tell(box, () => ({ caption: "Who talks to whom", head: [{ title: "Host" }, { title: "Other host" }, { title: "Application" }, { title: "Bytes", number: true }, { title: "Flows", number: true }, { title: "Failed", number: true }],
      rows: P.rows(a.edges).map((e) => [e.a, e.b, e.app, e.bytes, e.flows, e.failed]) }));
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", `Graph of ${a.nodes.ip.length} hosts and ${n} conversations; the table beside it lists them${n ? `. The heaviest: ${a.edges.a[0]} and ${a.edges.b[0]}, ${F.bytes(a.edges.bytes[0])}` : ""}`);
    // A graph that moves by itself is unreadable: while live it stays, and says that there is a newer one.
    P.byId("hosts-redraw").hidden = first || same || address() !== asked;
    P.load("/assets/graph/cytoscape.min.js").then(() => {
      if (last !== a || !P.byId("hosts-graph")) return;
      if (!cy || address() !== asked) { draw(a); return; }
      if (theme !== document.documentElement.dataset.theme) { theme = document.documentElement.dataset.theme; cy.style(style()); scaled(); }
      foot();
      edges();
    }, (error) => P.failed(box, error, () => paint(a)));
  }
  function pan(event) {
    if (!cy) return;
    const by = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key], zoom = { "+": 1.25, "=": 1.25, "-": 0.8 }[event.key];
    if (by) cy.panBy({ x: by[0], y: by[1] });
    else if (zoom) cy.zoom({ level: cy.zoom() * zoom, renderedPosition: { x: cy.width() / 2, y: cy.height() / 2 } });
    else if (event.key === "Escape" && chosen) { choose(""); event.stopPropagation(); }
    else return;
    event.preventDefault();
  }
  H.graph = {
    paint,
    mount() {
      last = null; drawn = ""; asked = ""; chosen = "";
      P.byId("hosts-graph").addEventListener("keydown", pan);
      P.byId("hosts-redraw").addEventListener("click", () => { draw(last); P.byId("hosts-redraw").hidden = true; });
      P.byId("hosts-fit").addEventListener("click", () => cy && fit());
    },
    unmount() { if (cy) cy.destroy(); cy = null; last = null; },
    get drawn() { return cy ? { hosts: cy.nodes().length, conversations: cy.edges().length, faint: cy.elements(".faint").length, at: (ip) => cy.getElementById(ip).renderedPosition() } : null; },
  };
})();
