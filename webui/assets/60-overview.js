// The Overview, drawn from the question `overview`.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el;
  let last = null;
  // What a class of packets is as a filter. TCP and UDP are wider than their class, which leaves known applications out.
  const TERMS = { TLS: "app=tls,dtls", QUIC: "app=quic", HTTP: "app=http,http2,ssdp", DNS: "app=dns,mdns,llmnr,nbns", SSH: "app=ssh", ICMP: "proto=icmp,icmpv6", TCP: "proto=tcp", UDP: "proto=udp", ARP: "proto=arp" };
  function byClass(name) {
    const term = TERMS[name];
    if (!term) return el("span", { class: "bar-name" }, name);
    return el("button", { type: "button", class: "value", title: `Click: ${term}. Alt-click: without it.`, onclick: (e) => {
      e.preventDefault();
      const added = e.altKey ? "-" + term : term;
      P.url.setTerms([...P.url.terms().filter((t) => t !== added && t !== P.url.opposite(added)), added]);
    } }, name);
  }

  function kpis(o, live) {
    const k = o.kpi, [pps, ppsUnit] = F.si(k.pps === null ? k.pps_mean : k.pps), [bps, bpsUnit] = F.si(k.bps === null ? k.bps_mean : k.bps);
    const [n, nUnit] = F.si(k.packets), [size, sizeUnit] = F.si(k.bytes), d = k.drops, now = live && k.pps !== null, lost = o.timeline.dropped || [];
    P.kpi("overview-pps", { value: pps, unit: `${ppsUnit} pps${now ? "" : " mean"}`.trim(), note: `peak ${F.text(k.pps_peak)}`, spark: o.timeline.total_pps });
    P.kpi("overview-bps", { value: bps, unit: `${bpsUnit}b/s${now ? "" : " mean"}`, note: `peak ${F.bits(k.bps_peak)}`, spark: o.timeline.total_bps });
    P.kpi("overview-packets", { value: n, unit: nUnit, note: k.undecodable ? `${F.text(k.undecodable)} not decodable` : P.url.filter() ? "that pass the filter" : `${F.text(k.flows)} flows began` });
    P.kpi("overview-bytes", { value: size, unit: `${sizeUnit}B`, note: k.packets ? `${F.bytes(Math.round(k.bytes / k.packets))} a packet` : "" });
    P.kpi("overview-drops", { value: share(d), unit: d.pct === null ? "" : "%", note: d.pct === null ? "no capture in this range" : `${F.text(d.lost)} of ${F.text(d.seen)}`, level: d.lost ? (d.pct > 1 ? "bad" : "warn") : "", spark: lost });
    const a = k.alerts, sum = Object.values(a).reduce((x, y) => x + y, 0);
    P.kpi("overview-alerts", { value: F.text(sum), note: Object.entries(a).filter(([, v]) => v).map(([s, v]) => `${F.text(v)} ${s}`).join(" · ") || "none", level: a.critical || a.high ? "bad" : "" });
  }
  const share = (d) => d.pct === null ? null : d.lost && d.pct < 0.01 ? "<0.01" : d.pct.toFixed(d.pct >= 10 ? 1 : 2);

  function timeline(o) {
    const t = o.timeline, unit = P.tab("overview-unit") || "pps";
    const series = Object.fromEntries(t.classes.map((c, i) => [c, t[unit][i]]));
    const marks = o.marks.t.map((at, i) => ({ at_us: at, severity: o.marks.severity[i], text: `${o.marks.severity[i]}: ${o.marks.kind[i]}`, href: `/alerts/${o.marks.id[i]}` }));
    legend(t.classes, (t.dropped || []).some((v) => v));
    P.chart.timeline("overview-timeline", { start_s: t.start_s, step_s: t.step_s, series }, { unit: unit === "pps" ? " pps" : "b/s", marks, lost: t.dropped, label: unit === "pps" ? "Packets per second" : "Bits per second", empty: P.url.live() ? "No packets in this range. Another range, or the newest packets, may have some." : "No packets in this range." });
  }
  function legend(names, losses) {
    const box = P.byId("overview-legend"), told = names.join("|") + losses;
    if (!box || box.dataset.names === told) return;
    box.dataset.names = told;
    const key = (colour, inside) => el("span", { class: "key" }, el("span", { class: "swatch", style: { "--c": `var(${colour})` } }), inside);
    box.replaceChildren(...names.map((n) => key(P.chart.colourName(n), byClass(n))), ...(losses ? [key("--critical", "Loss")] : []));
  }
  function mix(o) {
    const by = P.tab("overview-mix") || "bytes";
    const items = o.mix.class.map((c, i) => ({ name: c, value: o.mix[by][i], cell: byClass(c) })).sort((a, b) => b.value - a.value);
    P.chart.bars("overview-mix", items, { measure: by === "bytes" ? "Bytes" : "Packets", format: by === "bytes" ? F.bytes : (v) => F.text(v) });
  }

  const page = (name) => document.querySelector(`[data-nav=${name}]`);
  function host(field, value) {
    const open = page("hosts") ? el("a", { class: "link", href: "/hosts/" + encodeURIComponent(value), title: "Open this host", "aria-label": `Open host ${value}` }, "→") : null;
    return el("span", { class: "ends" }, P.cell(field, value), open);
  }
  function talkers(o) {
    const of = P.tab("overview-talkers") || "sources", menu = document.querySelector("#overview-talkers-card .card-menu");
    if (menu) menu.dataset.part = of;
    const first = {
      sources: [{ name: "key", title: "Source", format: (v) => host("src", v) }],
      destinations: [{ name: "key", title: "Destination", format: (v) => host("dst", v) }],
      ports: [{ name: "key", title: "Port", field: "port", value: (r) => String(r.key).split(" ")[0] }],
      conversations: [{ name: "a", title: "Between", field: "host" }, { name: "b", title: "and", field: "host" }],
    }[of];
    P.table("overview-talkers", {
      rows: o[of], caption: "Top talkers",
      columns: [...first, { name: "bytes", title: "Bytes", bar: true, width: of === "conversations" ? "27%" : "31%", format: F.bytes }, { name: "packets", title: "Packets", number: true, mono: true, width: 76, format: (v) => F.text(v) }],
    });
  }
  function map(o) {
    const c = o.countries, all = c.located + c.private + c.unlocated, empty = P.byId("overview-map-empty"), graph = document.querySelector("[data-graph=overview-map]");
    empty.hidden = graph.hidden = false;
    empty.hidden = c.database;
    graph.hidden = !c.database;
    if (!c.database) {
      P.empty(empty, "Without a GeoIP database nobody knows where addresses are. Get one with: engine geoip install", page("configuration") ? [{ text: "Configuration", act: () => P.url.go("/configuration") }] : []);
      P.setText("overview-map-note", "");
      P.setText("overview-map-foot", "");
      return;
    }
    const cities = c.cities || { name: [] };
    P.chart.map("overview-map", c.iso3.map((iso3, i) => ({ iso3, name: c.name[i], value: c.bytes[i], text: F.bytes(c.bytes[i]) })),
      cities.name.map((name, i) => ({ lat: cities.lat[i], lon: cities.lon[i], value: cities.bytes[i], name, text: `${name || "?"}: ${F.bytes(cities.bytes[i])}` })), { label: "Destinations", onCountry: (iso3, without) => P.url.add("country", iso3, without) });
    const note = P.byId("overview-map-note");
    P.keepFocus(note, () => note.replaceChildren(...c.iso3.slice(0, 3).map((k, i) => el("span", {}, P.cell("country", k), ` ${F.bytes(c.bytes[i])}`))));
    const places = all ? `${c.countries} ${c.countries === 1 ? "country" : "countries"} · private ${F.percent(c.private / all)} · not located ${F.percent(c.unlocated / all)}` : "";
    const source = /^https:\/\//.test(c.link || "") ? el("a", { href: c.link, target: "_blank", rel: "noreferrer noopener" }, c.attribution) : c.attribution || "";
    P.byId("overview-map-foot").replaceChildren(el("span", {}, places), el("span", {}, source));
  }

  // --- newest packets: the list stands still while it is pointed at, scrolled or frozen ---------------------------
  const hold = { hover: false, frozen: false, scrolled: false, of: "", top: 0 };
  const about = () => [P.url.range(), P.url.filter(), P.url.zone()].join(" ");
  const held = () => (hold.hover || hold.frozen || hold.scrolled) && hold.of === about() && P.byId("overview-recent").childElementCount > 0;
  function recent(o) {
    const r = o.recent || { ts: [] }, note = P.byId("overview-recent-note");
    if (held()) {
      const more = r.ts.filter((t) => t > hold.top).length, text = more ? `${more}${more === r.ts.length ? "+" : ""} new` : "held";
      note.replaceChildren(text, P.button("Resume", resume, { class: "link" }));
      return;
    }
    freeze(false);
    hold.of = about();
    hold.top = r.ts[0] || 0;
    P.table("overview-recent", { rows: r, empty: "No packets in this range.", caption: "Newest packets", columns: P.packetColumns(r) });
    note.replaceChildren(r.ts.length ? `newest ${r.ts.length} · ${F.zone()}` : "");
  }
  function freeze(on) { hold.frozen = on; const b = P.byId("overview-freeze"); if (b) b.setAttribute("aria-pressed", String(on)); }
  function resume() { hold.hover = hold.scrolled = false; freeze(false); P.byId("overview-recent").scrollTop = 0; recent(last); }

  // The columns of a list of packets, of those that the answer has.
  P.packetColumns = function (has) {
    const tag = (name) => el("span", { class: "key" }, el("span", { class: "swatch", style: { "--c": `var(${P.chart.colourName(name)})` } }), name);
    return [
      { name: "ts", title: "Time", mono: true, width: 122, format: (v) => F.clockMs(v) },
      { name: "src", title: "Source", mono: true, field: "src" },
      { name: "sport", title: "Port", mono: true, width: 70, field: "sport" },
      { name: "dst", title: "Destination", mono: true, field: "dst" },
      { name: "dport", title: "Port", mono: true, width: 70, field: "dport" },
      { name: "proto", title: "Protocol", width: 100, format: (v, r) => tag(r.app || v || "other") },
      { name: "len", title: "Length", number: true, mono: true, width: 76 },
      { name: "info", title: "Info", mono: true, width: "30%" },
    ].filter((c) => c.name in has);
  };

  P.page("overview", {
    mount(page) {
      Object.assign(hold, { hover: false, frozen: false, scrolled: false, of: "", top: 0 });
      P.onTab("overview-unit", () => last && timeline(last));
      P.onTab("overview-mix", () => last && mix(last));
      P.onTab("overview-talkers", () => last && talkers(last));
      const list = page.root.querySelector("#overview-recent");
      const set = (what, on) => { if (hold[what] !== on) { hold[what] = on; if (last) recent(last); } };
      list.addEventListener("pointerenter", () => set("hover", true));
      list.addEventListener("pointerleave", () => set("hover", false));
      list.addEventListener("scroll", () => set("scrolled", list.scrollTop > 4));
      page.root.querySelector("#overview-freeze").addEventListener("click", () => { if (hold.frozen) resume(); else { freeze(true); recent(last); } });
    },
    paint(answers) {
      last = answers.overview;
      kpis(last, P.url.live());
      timeline(last); mix(last); talkers(last); map(last); recent(last);
    },
  });
})();
