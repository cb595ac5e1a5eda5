// One host: what it is in a sentence, its traffic, ports, peers, names, alerts.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el, H = P.hosts = P.hosts || {};
  const TRANSPORT = { 6: "tcp", 17: "udp", 132: "sctp" }, COLOURS = { Sent: "--c-tls", Received: "--c-http" };
  let last = null;

  const filterOf = (ip) => [...P.url.terms().filter((t) => t !== `host=${ip}`), `host=${ip}`].join(" ");
  function about(a) {
    const o = a.about, fact = (name, ...value) => el("span", {}, el("span", { class: "muted" }, name), value);
    const box = P.byId("hosts-about");
    P.keepFocus(box, () => box.replaceChildren(...[
      o.name ? fact("Name", el("span", { class: "mono" }, P.cell("sni", o.name))) : null,
      fact("Where", o.city ? `${o.city}, ` : "", H.where(o)),
      o.as_org || o.asn ? fact("Network", [o.as_org, o.asn ? `AS${o.asn}` : ""].filter(Boolean).join(" ")) : null,
      o.mac ? fact("MAC", el("span", { class: "mono" }, o.mac)) : null,
      o.first_seen ? fact("Seen", `${F.when(o.first_seen)} – ${F.day(o.first_seen) === F.day(o.last_seen) ? F.clock(o.last_seen) : F.when(o.last_seen)} ${F.zone(o.last_seen)}`) : null,
      H.ignored(a) ? el("span", { class: "muted" }, H.ignored(a)) : null,
    ].filter(Boolean)));
  }
  function kpis(a) {
    const t = a.totals, line = a.timeline, seconds = Math.max(1, line.sent_bps.length * line.step_s), put = (id, v, unit, more) => { const [n, s] = F.si(v); P.kpi(id, { value: n, unit: `${s}${unit}`, ...more }); };
    put("hosts-sent", t.bytes_sent, "B", { note: `mean ${F.bits(8 * t.bytes_sent / seconds)}`, spark: line.sent_bps });
    put("hosts-received", t.bytes_received, "B", { note: `mean ${F.bits(8 * t.bytes_received / seconds)}`, spark: line.received_bps });
    put("hosts-packets", t.packets, "", { note: t.packets ? `${F.bytes(Math.round((t.bytes_sent + t.bytes_received) / t.packets))} a packet` : "" });
    put("hosts-flows", t.flows, "", { note: t.failed ? `${F.text(t.failed)} of its own failed` : "none failed", level: t.flows && t.failed > t.flows / 2 ? "warn" : "" });
    put("hosts-peers", t.peers, "", { note: `${F.text(t.clients)} ${t.clients === 1 ? "client" : "clients"} · ${F.text(t.servers)} ${t.servers === 1 ? "server" : "servers"}` });
    const severities = {};
    for (const s of a.alerts.severity) severities[s] = (severities[s] || 0) + 1;
    P.kpi("hosts-alerts", { value: F.count(a.alerts.id.length), note: ["critical", "high", "medium", "low"].filter((s) => severities[s]).map((s) => `${severities[s]} ${s}`).join(" · ") || "none", level: severities.critical || severities.high ? "bad" : "" });
  }
  function timeline(a) {
    const t = a.timeline, marks = P.rows(a.alerts).map((r) => ({ at_us: r.first_seen, severity: r.severity, text: `${r.severity}: ${r.kind.replace(/_/g, " ")}`, href: `/alerts/${r.id}` }));
    P.chart.legend("hosts-legend", ["Sent", "Received"], null, COLOURS);
    P.chart.timeline("hosts-timeline", { start_s: t.start_s, step_s: t.step_s, series: { Sent: t.sent_bps, Received: t.received_bps } }, { unit: "b/s", colours: COLOURS, marks, label: "Bits per second, sent and received", empty: "No traffic in connections of this range." });
  }
  const port = (v, r) => el("span", { class: "mono" }, P.cell("dport", v), el("span", { class: "muted" }, ` ${TRANSPORT[r.proto] || r.proto}`));
  function ports(id, columns, whose, empty) {
    P.table(id, {
      rows: columns, caption: whose, empty, actions: [],
      columns: [
        { name: "port", title: "Port", width: 98, format: port },
        { name: "app", title: "Application", width: 92, format: (v) => H.app(v) },
        { name: "bytes", title: "Bytes", bar: true, format: F.bytes },
        { name: "peers", title: whose, number: true, mono: true, width: 64, format: (v) => F.text(v) },
      ],
    });
  }
  function peers(a) {
    P.table("hosts-peer-list", {
      rows: a.peers, caption: "Peers", empty: "It talked to nobody in connections of this range.", actions: [],
      columns: [
        { name: "ip", title: "Peer", width: "32%", format: (v) => H.address(v) },
        { name: "name", title: "Name", mono: true, field: "sni" },
        { name: "bytes", title: "Bytes", bar: true, width: 96, format: F.bytes },
        { name: "flows", title: "Flows", number: true, mono: true, width: 56, format: (v) => F.text(v) },
        { name: "alerts", title: "Alerts", width: 58, format: (v, r) => H.alerts(v, r.severity) },
      ],
    });
  }
  function protocols(a) {
    P.table("hosts-protocols", {
      rows: a.protocols, caption: "Protocols", empty: "No connections in this range.", actions: [],
      columns: [
        { name: "class", title: "Protocol", width: 92, format: (v) => H.class(v) },
        { name: "bytes", title: "Bytes", bar: true, format: F.bytes },
        { name: "flows", title: "Flows", number: true, mono: true, width: 60, format: (v) => F.text(v) },
      ],
    });
  }
  function names(a) {
    const asked = (P.tab("hosts-names") || "asked") === "asked";
    const menu = P.byId("hosts-name-list").closest(".card").querySelector(".card-menu");
    menu.dataset.part = asked ? "asked" : "called";
    P.table("hosts-name-list", asked ? {
      rows: a.asked, caption: "Names it asked for", empty: "It named no server in this range.", actions: [],
      columns: [
        { name: "name", title: "Name", mono: true, field: "sni" },
        { name: "app", title: "Application", width: 92, format: (v) => H.app(v) },
        { name: "flows", title: "Flows", number: true, mono: true, width: 56, format: (v) => F.text(v) },
      ],
    } : {
      rows: a.called, caption: "Names it is called", empty: "Nobody called it by a name in this range.", actions: [],
      columns: [
        { name: "name", title: "Name", mono: true, field: "sni" },
        { name: "source", title: "Said by", width: 92 },
        { name: "count", title: "Times", number: true, mono: true, width: 56, format: (v) => F.text(v) },
      ],
    });
  }
  function alerts(a) {
    const there = document.querySelector("[data-nav=alerts]");
    P.table("hosts-alert-list", {
      rows: a.alerts, caption: "Alerts", empty: "No alert of this range names it.", actions: [], onRow: there ? (r) => P.url.go(`/alerts/${r.id}`) : null,
      columns: [
        { name: "severity", title: "Severity", width: 86, format: (v) => el("span", { class: "severity", "data-severity": v }, v) },
        { name: "kind", title: "Kind", width: 128, format: (v) => v.replace(/_/g, " ") },
        { name: "why", title: "Why" },
        { name: "last_seen", title: "Last seen", number: true, mono: true, width: 84, format: F.when },
      ],
    });
  }
  function paint(a) {
    last = a;
    P.setText("hosts-verdict", a.verdict);
    about(a); kpis(a); timeline(a); peers(a); protocols(a); names(a); alerts(a);
    ports("hosts-serves", a.serves, "Clients", "It answered on no port in this range.");
    ports("hosts-uses", a.uses, "Servers", "It asked nobody in this range.");
  }
  H.host = {
    paint,
    mount(page) {
      const ip = decodeURIComponent(page.rest);
      last = null;
      document.title = `${ip} · PacketLake`;
      P.onTab("hosts-names", () => last && names(last));
      const on = (id, act) => { const b = P.byId(id); if (b) b.addEventListener("click", act); };
      on("hosts-to-packets", () => P.url.go("/packets", { filter: filterOf(ip) }));
      on("hosts-to-flows", () => P.url.go("/flows", { filter: filterOf(ip) }));
      on("hosts-pcap", () => P.exportPcap({ filter: filterOf(ip) }));
    },
    failed(error) { if (!last) P.setText("hosts-verdict", error.message); },
  };
})();
