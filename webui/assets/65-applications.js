// Applications: one view each for DNS, TLS, HTTP and QUIC, at /applications/<name>. What a view has is said in
// webui/pages/applications.py; here is what its lists and rows look like.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el, APPS = ["dns", "tls", "http", "quic"];
  let last = null, name = "dns";

  // --- values ------------------------------------------------------------------------------------------------------
  const FIELD = { query: "sni", sni: "sni", host: "sni", src_ip: "src", dst_ip: "dst", src_port: "sport", dst_port: "dport", flow_id: "flow", qtype: "qtype", rcode: "rcode", version: "version", cipher: "cipher", alpn: "alpn", ja3: "ja3", ja4: "ja4", ja4s: "ja4s", cert_sha256: "cert", cert_issuer: "issuer", method: "method", path: "path", status: "code", content_type: "media", server: "software", user_agent: "agent" };
  const CIPHERS = { "0x1301": "AES-128-GCM-SHA256", "0x1302": "AES-256-GCM-SHA384", "0x1303": "CHACHA20-POLY1305-SHA256", "0xc02b": "ECDHE-ECDSA-AES128-GCM", "0xc02c": "ECDHE-ECDSA-AES256-GCM", "0xc02f": "ECDHE-RSA-AES128-GCM", "0xc030": "ECDHE-RSA-AES256-GCM", "0xcca8": "ECDHE-RSA-CHACHA20", "0xcca9": "ECDHE-ECDSA-CHACHA20", "0xc013": "ECDHE-RSA-AES128-CBC", "0xc014": "ECDHE-RSA-AES256-CBC", "0xc009": "ECDHE-ECDSA-AES128-CBC", "0xc00a": "ECDHE-ECDSA-AES256-CBC", "0xc027": "ECDHE-RSA-AES128-CBC-SHA256", "0xc028": "ECDHE-RSA-AES256-CBC-SHA384", "0x009c": "RSA-AES128-GCM", "0x009d": "RSA-AES256-GCM", "0x009e": "DHE-RSA-AES128-GCM", "0x009f": "DHE-RSA-AES256-GCM", "0x002f": "RSA-AES128-CBC", "0x0035": "RSA-AES256-CBC", "0x0033": "DHE-RSA-AES128-CBC", "0x0039": "DHE-RSA-AES256-CBC", "0x003c": "RSA-AES128-CBC-SHA256", "0x003d": "RSA-AES256-CBC-SHA256", "0x000a": "RSA-3DES-CBC", "0x0004": "RSA-RC4-MD5", "0x0005": "RSA-RC4-SHA" };
  const us = (v) => v === null || v === undefined ? "–" : F.duration(v / 1e6);
  const short = (v) => F.text(v);
  const common = (subject) => { const found = /(?:^|,)\s*CN=((?:\\.|[^,\\])+)/i.exec(subject || ""); return found ? found[1] : subject; };
  const status = (v) => v === null ? el("span", { class: "muted" }, "none") : el("span", { class: v >= 400 ? "bad" : null }, P.cell("code", v));
  const rcode = (v) => v === null ? el("span", { class: "muted" }, P.cell("rcode", "none", "no answer")) : el("span", { class: v !== "NOERROR" ? "bad" : null }, P.cell("rcode", v));
  const cipher = (v) => v ? P.cell("cipher", v, CIPHERS[v.toLowerCase()] || v, { title: `${v} ${CIPHERS[v.toLowerCase()] || ""}. Click: only this. Alt-click: without it.` }) : "–";

  // --- lists: [column, title, field, further column, its title, its format, how the value is shown] ------------------
  const CLIENTS = ["clients", "Clients", short], SERVERS = ["servers", "Servers", short], SIZE = ["bytes", "Bytes", F.bytes], MEDIAN = ["p50_us", "Median", us];
  const LISTS = {
    names: ["name", "Name", "sni", CLIENTS], failing: ["name", "Name", "sni", CLIENTS], rcodes: ["rcode", "Response code", "rcode", null, (v) => P.cell("rcode", v, v === "none" ? "no answer" : v)],
    types: ["qtype", "Record type", "qtype"], versions: ["version", "Version", "version"], ciphers: ["cipher", "Cipher suite", "cipher", null, cipher], alpn: ["alpn", "Protocol", "alpn"],
    ja4: ["ja4", "JA4 of clients", "ja4", CLIENTS], ja3: ["ja3", "JA3 of clients", "ja3", CLIENTS], ja4s: ["ja4s", "JA4S of servers", "ja4s", SERVERS],
    hosts: ["host", "Host", "sni", SIZE], paths: ["path", "Path", "path", CLIENTS], methods: ["method", "Method", "method"], statuses: ["status", "Status", "code", null, status],
    agents: ["user_agent", "User agent", "agent", CLIENTS], software: ["server", "Server software", "software", SERVERS], servers: ["server", "Server", "dst", MEDIAN], clients: ["client", "Client", "src"],
  };
  function list(at) {
    const id = `applications-list-${at}`, part = P.tab(id), box = P.byId(id);
    if (!box || !last) return;
    const types = name === "http" && part === "types" ? ["content_type", "Media type", "media", SIZE] : LISTS[part];
    let [column, title, field, further, shown] = types;
    const rows = last[part];
    if (further && !(further[0] in rows)) further = "clients" in rows ? CLIENTS : "names" in rows ? ["names", "Names", short] : "bytes" in rows ? SIZE : null;
    if (!further && "names" in rows) further = ["names", "Names", short];
    if (!further && "bytes" in rows) further = SIZE;
    box.closest(".card").querySelector(".card-menu").dataset.part = part;
    P.table(id, {
      rows, caption: title, empty: "Nothing in this range.", actions: [],
      columns: [
        { name: column, title, format: shown || ((v) => P.cell(field, v)) },
        { name: "count", title: "Count", bar: true, width: 74, format: (v) => F.text(v) },
        ...(further ? [{ name: further[0], title: further[1], number: true, mono: true, width: further[0] === "bytes" ? 82 : 66, format: further[2] }] : []),
      ],
    });
  }

  // --- key figures and charts --------------------------------------------------------------------------------------
  const share = (n, of) => of ? `${F.percent(n / of)} of ${F.text(of)}` : "";
  const figure = (id, value, unit, more) => { const [n, s] = value === null || value === undefined ? ["–", ""] : F.si(value); P.kpi(`applications-kpi-${id}`, { value: n, unit: `${s}${unit || ""}`, ...more }); };
  function latency(t) {
    const p50 = t.latency_p50_us, [value, unit] = us(p50).split(/\s/);
    P.kpi("applications-kpi-latency", { value: p50 === null ? "–" : value, unit: p50 === null ? "" : unit, note: p50 === null ? "nothing was answered" : `95 % ${us(t.latency_p95_us)} · 99 % ${us(t.latency_p99_us)}` });
  }
  const FIGURES = {
    dns(t) {
      figure("count", t.count, "", { spark: total() }); figure("names", t.names, "", { note: "different ones, about" });
      const asked = t.answered + t.unanswered;
      P.kpi("applications-kpi-answered", { value: asked ? Math.round(100 * t.answered / asked) : "–", unit: asked ? "%" : "", note: asked ? `${F.text(t.unanswered)} without an answer` : "" });
      figure("errors", t.errors, "", { note: t.errors ? `${F.text(t.nxdomain)} no such name` : "none", level: t.count && t.errors > t.count / 2 ? "warn" : "" });
      latency(t); figure("clients", t.clients, "", { note: `${F.text(t.servers)} servers` });
    },
    tls(t) {
      figure("count", t.count, "", { spark: total(), note: `${F.text(t.clients)} clients` }); figure("names", t.names, "", { note: "different ones, about" });
      figure("resumed", t.resumed, "", { note: share(t.resumed, t.count) }); figure("old", t.old, "", { note: t.old ? "TLS 1.1 and before" : "none", level: t.old ? "warn" : "" });
      figure("alerts", t.alerts, "", { note: share(t.alerts, t.count) });
      figure("certificates", t.questionable, "", { note: [t.expired ? `${F.text(t.expired)} expired` : "", t.ends_soon > t.expired ? `${F.text(t.ends_soon - t.expired)} end soon` : "", t.self_signed ? `${F.text(t.self_signed)} self-signed` : ""].filter(Boolean).join(" · ") || `none of ${F.text(t.certificates)}`, level: t.expired ? "bad" : t.ends_soon ? "warn" : "" });
    },
    http(t) {
      figure("count", t.count, "", { spark: total() }); figure("hosts", t.hosts, "", { note: `${F.text(t.clients)} clients · ${F.text(t.agents)} agents` });
      figure("errors", t.errors, "", { note: t.errors ? `${share(t.errors, t.count)} · ${F.text(t.failed)} of servers` : "none", level: t.failed ? "warn" : "" });
      latency(t); figure("bytes", t.bytes, "B", { note: "sum of Content-Length" });
      figure("with_credentials", t.with_credentials, "", { note: t.with_credentials ? "requests with one" : "none", level: t.with_credentials ? "bad" : "" });
    },
    quic(t) {
      figure("count", t.count, "", { spark: total() }); figure("names", t.names, "", { note: `${F.text(t.unnamed)} connections without one` });
      figure("resumed", t.resumed, "", { note: share(t.resumed, t.count) }); figure("early_data", t.early_data, "", { note: share(t.early_data, t.count) });
      figure("fingerprints", t.fingerprints, "", { note: "different JA4" }); figure("clients", t.clients, "", { note: `${F.text(t.servers)} servers` });
    },
  };
  const total = () => { const s = Object.values(last.timeline.series); return s[0].map((_, i) => s.reduce((n, v) => n + v[i], 0)); };
  const COLOURS = {
    Answered: "--c-tls", NXDOMAIN: "--c-dns", Error: "--c-ssh", "No answer": "--c-other", "TLS 1.3": "--c-tls", "TLS 1.2": "--c-tcp", "Other version": "--c-quic", Alert: "--c-dns",
    "2xx": "--c-tls", "3xx": "--c-http", "4xx": "--c-dns", "5xx": "--c-ssh", Other: "--c-quic", "No response": "--c-other", "Full handshake": "--c-quic", Resumed: "--c-udp", "Early data": "--c-dns",
    Median: "--c-tls", "95 %": "--c-dns", "99 %": "--c-ssh",
  };
  const step = (s) => s < 60 ? `${s} s` : s < 3600 ? `${s / 60} min` : s < 86400 ? `${s / 3600} h` : `${s / 86400} days`;
  function charts() {
    const t = last.timeline, series = Object.fromEntries(Object.entries(t.series).filter(([, v]) => v.some(Boolean)));
    P.chart.legend("applications-legend", Object.keys(series), null, COLOURS);
    P.setText("applications-step", `per ${step(t.step_s)}`);
    P.chart.timeline("applications-timeline", { start_s: t.start_s, step_s: t.step_s, series }, { unit: "", colours: COLOURS, label: `${document.querySelector(".applications-charts h2").textContent} per ${step(t.step_s)}`, empty: `No ${name.toUpperCase()} in this range.` });
    if (!t.latency) return;
    const seconds = (v) => v.map((x) => x ? x / 1e6 : null), lines = { "99 %": seconds(t.latency.p99_us), "95 %": seconds(t.latency.p95_us), Median: seconds(t.latency.p50_us) };
    P.chart.legend("applications-quantiles", Object.keys(lines).reverse(), null, COLOURS);
    P.chart.timeline("applications-latency", { start_s: t.start_s, step_s: t.step_s, series: lines }, { stacked: false, points: true, log: true, unit: "s", suffix: "s", colours: COLOURS, label: "Latency of answers", empty: "Nothing was answered in this range." });
  }

  // --- certificates and rows ---------------------------------------------------------------------------------------
  function validity(row) {
    if (row.not_after === null) return "–";
    const left = (row.not_after - row.last_seen) / 86400e6, date = F.day(row.not_after);
    if (left < 0) return el("span", { class: "severity", "data-severity": "high", title: `${date}, before it was last seen` }, `expired ${date}`);
    if (row.ends_soon) return el("span", { class: "severity", "data-severity": "medium", title: date }, `in ${Math.round(left)} days`);
    return el("span", { title: `in ${Math.round(left)} days` }, date);
  }
  function certificates() {
    P.table("applications-certificates", {
      rows: last.certificates, caption: "Certificates", empty: "No certificate was seen in clear.", actions: [],
      columns: [
        { name: "subject", title: "Subject", mono: true, format: (v, r) => P.cell("cert", r.sha256, common(v) || r.sha256.slice(0, 16)) },
        { name: "issuer", title: "Issuer", mono: true, format: (v, r) => r.self_signed ? el("span", { class: "severity", "data-severity": "medium" }, "self-signed") : P.cell("issuer", v, common(v)) },
        { name: "not_after", title: "Valid until", width: 158, format: (v, r) => validity(r) },
        { name: "servers", title: "Servers", number: true, mono: true, width: 66, format: short },
      ],
    });
  }
  const TIME = { name: "ts", title: "Time", mono: true, width: 116, format: (v) => F.clockMs(v) }, CLIENT = { name: "src_ip", title: "Client", mono: true, width: "13%", field: "src" }, SERVER = { name: "dst_ip", title: "Server", mono: true, width: "13%", field: "dst" };
  const LATENCY = { name: "latency_us", title: "Latency", number: true, mono: true, width: 84, format: us };
  const ROWS = {
    dns: [TIME, CLIENT, SERVER, { name: "query", title: "Name", mono: true, field: "sni" }, { name: "qtype", title: "Type", width: 72, mono: true, field: "qtype" }, { name: "rcode", title: "Answer", width: 92, format: rcode }, { name: "answers", title: "Records", mono: true, format: (v) => v && v.length ? v.join(", ") : "–" }, LATENCY],
    tls: [TIME, CLIENT, SERVER, { name: "sni", title: "Server name", mono: true, field: "sni" }, { name: "version", title: "Version", width: 76, mono: true, field: "version" }, { name: "cipher", title: "Cipher suite", format: cipher }, { name: "ja4", title: "JA4", mono: true, field: "ja4" }, { name: "alert", title: "End", width: 112, format: (v, r) => v ? el("span", { class: "bad" }, v) : r.resumed ? "resumed" : "–" }],
    http: [TIME, CLIENT, { name: "method", title: "Method", width: 70, mono: true, field: "method" }, { name: "host", title: "Host", mono: true, width: "18%", field: "sni" }, { name: "path", title: "Path", mono: true, field: "path" }, { name: "status", title: "Status", width: 66, format: status }, { name: "content_type", title: "Type", width: "11%", mono: true, field: "media" }, { name: "content_length", title: "Length", number: true, mono: true, width: 78, format: F.bytes }, LATENCY],
    quic: [TIME, CLIENT, SERVER, { name: "sni", title: "Server name", mono: true, field: "sni" }, { name: "version", title: "Version", width: 80, mono: true, field: "version" }, { name: "alpn", title: "Protocol", width: 80, mono: true, field: "alpn" }, { name: "ja4", title: "JA4", mono: true, field: "ja4" }, { name: "user_agent", title: "Agent", mono: true, field: "agent" }],
  };
  function rows() {
    const shown = last.rows.ts.length;
    P.setText("applications-rows-note", shown < last.totals.count ? `${F.count(shown)} of ${F.count(last.totals.count)}` : F.count(shown));
    P.table("applications-rows", { rows: last.rows, caption: "Newest rows", empty: `No ${name.toUpperCase()} in this range.`, columns: ROWS[name], onRow: open });
  }
  const WORDS = { src_ip: "Client", src_port: "Client's port", dst_ip: "Server", dst_port: "Server's port", flow_id: "Flow", sni: "Server name", ja3: "JA3", ja4: "JA4", ja4s: "JA4S", alpn: "ALPN", latency_us: "Latency", qtype: "Type", rcode: "Answer", ts: "Time", cert_sha256: "Certificate SHA-256", cert_not_after: "Certificate until", user_agent: "User agent", server: "Software" };
  function open(row) {
    const told = (v) => v !== null && v !== undefined && v !== "" && !(Array.isArray(v) && !v.length);
    const text = (k, v) => k === "ts" || k === "cert_not_after" ? `${F.day(v)} ${F.clockUs(v)} ${F.zone(v)}` : k === "latency_us" ? us(v) : k === "content_length" ? F.bytes(v) : Array.isArray(v) ? v.join(", ") : v === true ? "yes" : v === false ? "no" : String(v);
    const word = (k) => WORDS[k] || k.replace(/_/g, " ").replace(/^cert /, "certificate ").replace(/^./, (c) => c.toUpperCase());
    P.drawer(`${name.toUpperCase()} ${row.query || row.sni || row.host || row.dst_ip}`, [
      el("div", { class: "row-buttons" }, P.button("Its packets", () => P.url.go("/packets", { filter: `flow=${row.flow_id}` })), P.button("Its flow", () => P.url.go("/flows", { filter: `flow=${row.flow_id}`, flow: row.flow_id })),
        P.may("operator") ? P.button("Export pcap", () => P.exportPcap({ filter: `flow=${row.flow_id}` })) : null),
      el("dl", { class: "facts" }, Object.entries(row).filter(([, v]) => told(v)).flatMap(([k, v]) => [el("dt", {}, word(k)), el("dd", { class: "mono" }, FIELD[k] ? P.cell(FIELD[k], v, text(k, v)) : text(k, v))])),
    ]);
  }

  P.page("applications", {
    params: () => ({ limit: 60 }),
    feeds: (page) => [APPS.includes(page.rest) ? page.rest : "dns"],
    mount(page) {
      last = null;
      name = APPS.includes(page.rest) ? page.rest : "dns";
      document.title = `${name.toUpperCase()} · PacketLake`;
      P.onTab("applications-view", (to) => P.url.go(`/applications/${to}`));
      for (let at = 0; at < 3; at += 1) P.onTab(`applications-list-${at}`, () => list(at));
      for (const id of ["applications-rows", "applications-list-0", "applications-list-1", "applications-list-2"]) P.loading(id, 6);
    },
    paint(answers) {
      last = answers[name];
      FIGURES[name](last.totals);
      charts();
      for (let at = 0; at < 3; at += 1) list(at);
      if (name === "tls") certificates();
      rows();
      const ignored = last.filter && last.filter.ignored.length ? `not applied here: ${last.filter.ignored.join(" ")}` : "";
      const since = last.since_us ? `only from ${F.when(last.since_us)} on: the range has too many rows to list them all` : "";
      P.setText("applications-note", [ignored, since].filter(Boolean).join(" · "));
    },
  });
})();
