// Capture health, drawn from the question `health`.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el;
  let last = null;
  // Frames that are gone; the books: received = rows + all of these but the interface's.
  const LOSSES = { kernel_drops: "Kernel's ring was full", interface_drops: "Lost by the card", drop_rows_shed: "Given up under pressure", drop_not_written: "Could not be written", drop_unread_at_stop: "Unread at the stop" };
  // What was not done with frames that are there, and of how many.
  const LESS = {
    frames_not_stored: ["Bytes not stored", "rows"], messages_missed: ["Messages not read", "messages"], candidates_missed: ["Signatures not tried", "rows"], scores_shed: ["Not scored", "rows"],
    flows_evicted: ["Flows ended early", "flows"], flows_not_written: ["Side rows not written", "rows"], messages_bad: ["Messages malformed", "messages"], undecodable: ["Not decodable", "rows"],
  };
  const FATES = { rows: "--c-tls", kernel_drops: "--critical", interface_drops: "--c-ssh", drop_rows_shed: "--c-dns", drop_not_written: "--high", drop_unread_at_stop: "--c-other" };
  const STAGES = { capture: "--c-tls", decode: "--c-quic", analyse: "--c-http", publish: "--c-dns", other: "--c-other" };
  const SPARE = ["--c-tls", "--c-http", "--c-dns", "--c-quic", "--c-ssh", "--c-icmp", "--c-arp", "--c-udp"];
  const share = (part, whole) => { const p = whole ? 100 * part / whole : 0; return !part ? "0 %" : p < 0.01 ? "<0.01 %" : `${p.toFixed(p < 10 ? 2 : 1)} %`; };
  const rate = (values, h) => values.map((v) => v / h.series.step_s);
  const recentOf = (values) => values && values.length ? values[values.length - 1] : null;

  function kpis(h) {
    const c = h.capture, d = h.drops, all = h.series.all, live = c.state === "live", cpu = used(h), seconds = h.series.step_s;
    P.kpi("health-state", { value: { live: "Running", stopped: "Stopped", none: "None" }[c.state], level: c.state === "stopped" ? "warn" : "", note: live ? `${c.sources.length} ${c.sources.length === 1 ? "source" : "sources"} · sensor ${c.sensors.join(", ")}` : c.age_s === null ? "nothing was ever counted" : `last counted ${F.ago(c.age_s)}` });
    const mean = h.totals.received / (all.received ? all.received.length * seconds : 1), [n, unit] = F.si(live && c.pps !== null ? c.pps : mean);
    P.kpi("health-rate", { value: n, unit: `${unit} pps`.trim(), note: `${live ? "" : "mean · "}${F.text(h.totals.received)} in range`, spark: all.received });
    const lost = Object.keys(LOSSES).reduce((sum, k) => { (all[k] || []).forEach((v, i) => { sum[i] = (sum[i] || 0) + v; }); return sum; }, []);
    P.kpi("health-lost", { value: d.pct === null ? null : d.lost && d.pct < 0.01 ? "<0.01" : d.pct.toFixed(d.pct >= 10 ? 1 : 2), unit: d.pct === null ? "" : "%", note: d.pct === null ? "" : `${F.count(d.lost)} of ${F.text(d.seen)}`, level: d.lost ? (d.pct > 1 ? "bad" : "warn") : "", spark: lost });
    const peak = h.totals.pool_fill, fill = live ? c.fill : peak || null;
    P.kpi("health-fill", { value: fill, unit: fill === null ? "" : "%", note: fill === null ? "" : `peak ${peak} %`, level: fill > 50 ? "warn" : "", spark: all.pool_fill });
    const now = recentOf(cpu.total), most = Math.max(...cpu.total, 0);
    P.kpi("health-cpu", { value: now === null ? null : now.toFixed(now < 10 ? 1 : 0), unit: now === null ? "" : "% of a core", note: now === null ? "" : `peak ${most.toFixed(0)} %`, spark: cpu.total });
    const k = h.disk, [room, roomUnit] = F.si(k.free);
    P.kpi("health-disk", { value: room, unit: `${roomUnit}B`, note: k.days_left === null ? "pace not known yet" : `${left(k.days_left)} at ${F.bytes(k.grows_per_day)} a day`, level: k.days_left !== null && k.days_left < 3 ? "warn" : "" });
  }
  const left = (days) => days >= 730 ? `${F.text(days / 365)} years` : days >= 2 ? `${Math.round(days)} days` : `${Math.round(days * 24)} hours`;

  function used(h) {
    const series = {}, total = [], scale = 1e4 * h.series.step_s;  // µs a bucket to percent of a core
    for (const name of Object.keys(STAGES)) {
      const values = h.series.all[`cpu_${name}_us`];
      if (!values) continue;
      series[name] = values.map((v) => Math.round(v / scale * 10) / 10);
      values.forEach((v, i) => { total[i] = (total[i] || 0) + v / scale; });
    }
    return { series, total };
  }
  function keys(target, names, title) {
    const box = P.byId(target), told = Object.keys(names).join("|");
    if (!box || box.dataset.names === told) return;
    box.dataset.names = told;
    box.replaceChildren(...Object.entries(names).map(([name, colour]) => el("span", { class: "key" }, el("span", { class: "swatch", style: { "--c": `var(${colour})` } }), title(name))));
  }
  function frames(h) {
    const s = h.series, by = P.tab("health-frames") || "fate", series = {}, colours = {};
    if (by === "fate") {
      for (const [name, colour] of Object.entries(FATES)) if (s.all[name]) { const title = LOSSES[name] || "Rows"; series[title] = rate(s.all[name], h); colours[title] = colour; }
    } else Object.entries(s.received).forEach(([name, values], i) => { const title = short(name); series[title] = rate(values, h); colours[title] = SPARE[i % SPARE.length]; });
    keys("health-legend", Object.fromEntries(Object.entries(colours).slice(0, 6)), (n) => n);
    P.chart.timeline("health-frames", { start_s: s.start_s, step_s: s.step_s, series }, { unit: " pps", colours, label: "Frames per second", empty: "Nothing was captured in this range." });
  }
  const short = (name) => name.split("/").pop();

  // Options stay on one line.
  const words = (text) => el("span", {}, text.split(/(\[\w+\] \w+|--[\w-]+|ethtool -G)/).map((part, i) => i % 2 ? el("span", { class: "option" }, part) : part));
  function losses(h) {
    const t = h.totals, cls = (n, bad) => n ? bad : "nothing", rows = [];
    for (const [name, title] of Object.entries(LOSSES)) rows.push({ name, title, n: t[name], of: h.drops.seen, cls: cls(t[name], "loss") });
    for (const [name, [title, base]] of Object.entries(LESS)) if (t[name]) rows.push({ name, title, n: t[name], of: Math.max(t[base], t[name]), cls: "less" });
    P.table("health-losses", { rows, caption: "Losses by cause", columns: [
      { name: "title", title: "What", width: "27%", format: (v, r) => el("span", { title: h.meanings[r.name] }, v) },
      { name: "n", title: "How many", number: true, width: 82, format: (v, r) => el("span", { class: r.cls }, F.count(v)) },
      { name: "of", title: "Share", number: true, width: 74, format: (v, r) => el("span", { class: r.cls }, share(r.n, v)) },
      { name: "remedy", title: "What to do", format: (v, r) => r.n ? words(h.remedies[r.name] || "–") : el("span", { class: "nothing" }, "–") },
    ] });
    const own = Object.keys(LOSSES).filter((k) => k !== "interface_drops").reduce((sum, k) => sum + t[k], 0), open = t.received - t.rows - own;
    P.setText("health-books", !t.received ? "" : open ? `${F.count(t.received)} received, ${F.count(Math.abs(open))} on their way` : `${F.count(t.received)} received = ${F.count(t.rows)} rows + ${F.count(own)} lost`);
  }
  function sources(h) {
    P.table("health-sources", { rows: h.sources, caption: "Sources", empty: "No source counted anything in this range.", actions: [], columns: [
      { name: "source", title: "Source", format: (v, r) => el("span", { class: "lives", "data-live": String(r.live), title: `${v}: ${r.live ? "running" : "last counted " + F.dateTime(r.last)}` }, el("span", { class: "dot" }), el("span", {}, short(v))) },
      { name: "received", title: "Frames", number: true, width: 78, format: (v) => F.text(v) },
      { name: "wire_bytes", title: "Bytes", number: true, width: 82, format: (v) => F.bytes(v) },
      { name: "lost", title: "Lost", number: true, width: 82, format: (v, r) => el("span", { class: v ? "loss" : "nothing", title: `${F.count(v)} frames` }, v ? share(v, r.received + r.interface_drops) : "0") },
      { name: "ring_frames", title: "Most in ring", number: true, width: 88, format: (v) => F.text(v) },
    ] });
  }
  // Several sensors in one lake. What is too old, too late or lost stands out.
  function fleet(h) {
    const many = h.fleet.sensor.length > 1, none = el("span", { class: "nothing" }, "–");
    P.byId("health-fleet-card").hidden = !many;
    if (!many) return;
    const dear = (text, bad, title) => el("span", { class: bad ? "loss" : "", title: title || "" }, text);
    P.table("health-fleet", { rows: h.fleet, caption: "Sensors", actions: [], columns: [
      { name: "sensor", title: "Sensor", format: (v, r) => el("span", { class: "lives", "data-live": String(r.live), title: `${v}: ${r.live ? "running" : r.last === null ? "counted nothing in this range" : "last counted " + F.dateTime(r.last)}` }, el("span", { class: "dot" }), el("span", {}, v)) },
      { name: "pps", title: "Frames/s", number: true, width: 84, format: (v) => v === null ? none.cloneNode(true) : F.text(v) },
      { name: "lost", title: "Lost", number: true, width: 82, format: (v, r) => el("span", { class: v ? "loss" : "nothing", title: `${F.count(v)} frames` }, v ? share(v, r.received) : "0") },
      { name: "lag_s", title: "Lag", number: true, width: 82, format: (v, r) => v === null ? none.cloneNode(true) : dear(`${Math.round(v)} s`, r.problem || v > 120, r.problem || `${F.bytes(r.waiting_bytes)} on their way`) },
      { name: "not_shipped", title: "Not shipped", number: true, width: 96, format: (v) => v === null ? none.cloneNode(true) : dear(F.text(v), v > 0, `${F.count(v)} rows that the spool gave up`) },
      { name: "clock_s", title: "Clock", number: true, width: 82, format: (v) => v === null ? none.cloneNode(true) : dear(`${v > 0 ? "+" : ""}${v.toFixed(1)} s`, Math.abs(v) > 5, "Ahead of the store's") },
      { name: "last_seen", title: "Last shipped", width: 180, format: (v) => v === null ? none.cloneNode(true) : F.dateTime(v) },
      { name: "version", title: "Version", width: 90, format: (v) => v === null ? none.cloneNode(true) : v },
    ] });
  }
  function stages(h) {
    const { series } = used(h), s = h.series;
    keys("health-stages-legend", STAGES, (n) => n);
    P.chart.timeline("health-stages", { start_s: s.start_s, step_s: s.step_s, series }, { unit: " %", suffix: " %", colours: STAGES, label: "CPU in percent of a core", tickformat: "~s", empty: "No CPU times in this range." });
  }
  function pressure(h) {
    const of = P.tab("health-pressure") || "pool_fill", s = h.series, values = s.all[of], pool = of === "pool_fill", title = pool ? "Most in use" : "Frames waiting";
    P.chart.timeline("health-pressure", { start_s: s.start_s, step_s: s.step_s, series: values ? { [title]: values } : {} }, {
      stacked: false, unit: pool ? " %" : "", suffix: pool ? " %" : "", max: pool ? 105 : 0, colours: { [title]: "--accent" }, lines: pool && values ? [{ at: 50, colour: "--medium" }] : [],
      label: pool ? "Batches in use, percent; work is given up from 50 on" : "Frames waiting in the kernel's ring", empty: pool ? "No fill of the batches in this range." : "No frames had to wait.",
    });
  }
  function disk(h) {
    const d = h.disk, box = P.byId("health-tables"), other = Math.max(0, d.total - d.free - d.lake), width = (n) => ({ width: `${(100 * n / (d.total || 1)).toFixed(2)}%` });
    const items = Object.entries({ ...d.tables, "raw frames": d.frames }).filter(([, v]) => v).sort((a, b) => b[1] - a[1]);
    const shown = items.slice(0, 5), rest = items.slice(5).reduce((sum, [, v]) => sum + v, 0), bars = el("div", {});
    P.keepFocus(box, () => box.replaceChildren(
      el("div", { class: "meter", role: "img", "aria-label": `Lake ${F.bytes(d.lake)}, others ${F.bytes(other)}, free ${F.bytes(d.free)} of ${F.bytes(d.total)}` }, el("i", { class: "ours", style: width(d.lake) }), el("i", { style: width(other) })),
      el("div", { class: "disk-line" }, el("span", {}, `lake ${F.bytes(d.lake)}`), el("span", {}, `others ${F.bytes(other)}`), el("span", {}, `free ${F.bytes(d.free)}`)), bars));
    P.chart.bars(bars, [...shown, ...(rest ? [[`${items.length - 5} more`, rest]] : [])].map(([name, value]) => ({ name, value, colour: "--accent" })), { label: "Disk", measure: "Bytes" });
    P.setText("health-disk-note", `${F.bytes(d.total)} in all`);
  }
  function unreadable(h) {
    const box = P.byId("health-unreadable"), all = Object.entries(h.unreadable);
    box.hidden = !all.length;
    box.textContent = all.length ? `${all.length === 20 ? "20 or more" : all.length} segments cannot be read, and their rows are missing everywhere:\n${all.map(([path, why]) => `${path}: ${why}`).join("\n")}` : "";
  }

  P.page("health", {
    mount() {
      P.onTab("health-frames", () => { if (last) { P.byId("health-legend").dataset.names = ""; frames(last); } });
      P.onTab("health-pressure", () => last && pressure(last));
    },
    paint(answers) {
      last = answers.health;
      kpis(last); frames(last); losses(last); sources(last); fleet(last); stages(last); pressure(last); disk(last); unreadable(last);
    },
  });
})();
