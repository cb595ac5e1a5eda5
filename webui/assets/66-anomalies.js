// Anomalies: scores over time on a scale of how rare they are, a threshold to drag, and what made things unusual.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el;
  // A score s is seen once in 1 / (1 - s) packets: on that scale 0.99 and 0.999 are as far apart as 0.9 and 0.99.
  const RAREST = 20000, TICKS = [[2, "0.5"], [10, "0.9"], [100, "0.99"], [1000, "0.999"], [10000, "0.9999"]];
  const rarity = (score) => score === null ? null : Math.min(RAREST, 1 / Math.max(1 - score, 1 / RAREST));
  const LINES = [["p50", "half", "--c-other"], ["p90", "90 %", "--c-quic"], ["p99", "99 %", "--c-http"], ["highest", "highest", "--accent"]];
  let page = null, last = null, chosen = null, dragging = false;

  const bounds = () => (last ? last.anomalies.thresholds.threshold : []).map((t, i) => [t, i]).filter(([t]) => t >= 0.5);
  const score = (v) => v === null || v === undefined ? "–" : String(Number(Number(v).toPrecision(6)));
  const one = (t) => t >= 1 ? "one that no packet learned from reached" : `one packet in ${F.count(Math.round(1 / (1 - t)))}`;
  const threshold = () => chosen !== null ? chosen : last && last.anomalies.threshold !== null ? last.anomalies.threshold : 0.99;
  function nearest(wanted) {
    let best = null;
    for (const [t] of bounds()) if (best === null || Math.abs(Math.log(rarity(t) / wanted)) < Math.abs(Math.log(rarity(best) / wanted))) best = t;
    return best;
  }
  // Of a bound of a bin the counts are exact; a configured threshold between two is shown with the lower one's.
  function would(t) {
    const w = last.anomalies.thresholds;
    let at = -1;
    w.threshold.forEach((b, i) => { if (b <= t + 1e-9) at = i; });
    return at < 0 ? { packets: 0, minutes: 0, share: 0, usual: 0 } : { packets: w.packets[at], minutes: w.minutes[at], share: w.share[at], usual: w.usual_share[at], per_hour: w.packets_per_hour[at] };
  }

  // --- the chart and its threshold ------------------------------------------------------------------------------------
  function chart() {
    const a = last.anomalies, m = a.minutes, x = m.ts.map((t) => F.iso(t).slice(0, 19)), empty = !x.length, long = a.step_s * x.length > 172800;
    // Buckets without packets are gaps.
    const xs = [], ys = LINES.map(() => []);
    m.ts.forEach((t, i) => {
      if (i && t - m.ts[i - 1] > a.step_s * 1e6) { xs.push(F.iso(m.ts[i - 1] + a.step_s * 1e6).slice(0, 19)); for (const y of ys) y.push(null); }
      xs.push(x[i]);
      LINES.forEach(([name], n) => ys[n].push(rarity(m[name][i])));
    });
    if (!empty) { xs.push(F.iso(m.ts[m.ts.length - 1] + a.step_s * 1e6).slice(0, 19)); for (const y of ys) y.push(y[y.length - 1]); }
    const named = LINES.map(([name, title, colour], n) => ({
      type: "scatter", mode: "lines", name: title, x: xs, y: ys[n], customdata: ys[n].map((v) => v === null ? "–" : score(1 - 1 / v)), hovertemplate: "%{customdata}", line: { shape: "hv", width: name === "highest" ? 1.75 : 1.5, color: P.token(colour) }, connectgaps: false,
    }));
    const range = F.iso(page.span[0]).slice(0, 19), until = F.iso(page.span[1]).slice(0, 19), t = rarity(threshold()), configured = a.threshold === null ? null : rarity(a.threshold);
    const line = (y, colour, dash) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { color: P.token(colour), width: 1.5, dash } });
    P.chart.plot("anomalies-chart", empty ? [] : named, {
      margin: { l: 56, r: 14, t: 8, b: 26 }, xaxis: { type: "date", range: [range, until], nticks: 12, tickformat: long ? "%b %d\n%H:%M" : "%H:%M", hoverformat: "%Y-%m-%d %H:%M", visible: !empty },
      yaxis: { type: "log", range: [Math.log10(1), Math.log10(RAREST * 1.25)], rangemode: "normal", tickmode: "array", tickvals: TICKS.map((k) => k[0]), ticktext: TICKS.map((k) => k[1]), visible: !empty },
      shapes: empty ? [] : [configured !== null && Math.abs(Math.log(configured / t)) > 1e-6 ? line(configured, "--text-3", "dot") : null, line(t, "--critical", "solid")].filter(Boolean),
    }, () => ({ caption: "Scores over time", head: [{ title: "Time", time: true }, ...LINES.map(([, title]) => ({ title, number: true }))], rows: m.ts.map((t, i) => [t, ...LINES.map(([name]) => m[name][i])]) }));
    const box = P.byId("anomalies-chart").closest("[data-graph]"), over = box.querySelector(":scope > .empty.over");
    if (over) over.remove();
    if (empty) { box.append(el("div", { class: "empty over" }, el("span", {}, a.model === null && !a.totals.scored ? "No packets were scored in this range. The first model needs 20,000 packets." : "No packets in this range."), P.url.live() ? el("span", {}, P.button("Last 24 hours", () => P.url.setRange("24h"), { class: "link" }), P.button("Everything", () => P.url.setRange("all"), { class: "link" })) : null)); }
    box.setAttribute("role", empty ? "group" : "img");  // what is empty has buttons, an image has none
    box.setAttribute("aria-label", empty ? "Scores over time: none" : `Scores over time: highest ${score(a.totals.highest)}, threshold ${score(threshold())}, ${F.count(would(threshold()).packets)} packets at or above it`);
    handle(box, empty);
  }
  function area(box) { const plot = box.querySelector(".nsewdrag"); return plot ? plot.getBoundingClientRect() : null; }
  const yOf = (t, a) => a.bottom - Math.log10(rarity(t)) / Math.log10(RAREST * 1.25) * a.height;
  // A grip over the line: drag it; the slider below is the same for keys.
  function handle(box, empty) {
    let grip = box.querySelector(":scope > .anomalies-grip");
    if (!grip) {
      grip = el("div", { class: "anomalies-grip", title: "Drag the threshold", "aria-hidden": "true" }, el("span", {}));
      box.append(grip);
      grip.addEventListener("pointerdown", (e) => {
        e.preventDefault(); e.stopPropagation();
        dragging = true;
        grip.setPointerCapture(e.pointerId);
      });
      grip.addEventListener("pointermove", (e) => {
        const a = dragging && area(box);
        if (!a) return;
        const to = nearest(10 ** Math.min(4.4, Math.max(0, (a.bottom - e.clientY) / a.height * Math.log10(RAREST * 1.25))));
        if (to !== null && to !== threshold()) { chosen = to; control(); chart(); }
      });
      const end = () => { if (dragging) { dragging = false; commit(); } };
      grip.addEventListener("pointerup", end);
      grip.addEventListener("pointercancel", end);
      brush(box);
    }
    const place = () => {
      const a = area(box), b = box.getBoundingClientRect();
      grip.hidden = empty || !a;
      if (!a) return;
      grip.style.top = `${yOf(threshold(), a) - b.top - 7}px`; grip.style.left = `${a.left - b.left}px`; grip.style.width = `${a.width}px`;
      grip.querySelector("span").textContent = score(threshold());
    };
    place();
    setTimeout(place, 60); setTimeout(place, 500); setTimeout(place, 1500);  // when the library has drawn
  }
  // Drag over the chart sets the range, as everywhere; double-click zooms out.
  function brush(box) {
    const band = el("div", { class: "brush", hidden: true });
    let from = null;
    box.style.position = "relative";
    box.append(band);
    const stop = () => { from = null; band.hidden = true; window.removeEventListener("pointermove", move); window.removeEventListener("pointerup", up); };
    const move = (e) => {
      const a = area(box), b = box.getBoundingClientRect(), left = Math.max(a.left, Math.min(from, e.clientX)), right = Math.min(a.right, Math.max(from, e.clientX));
      Object.assign(band.style, { left: `${left - b.left}px`, width: `${Math.max(0, right - left)}px`, top: `${a.top - b.top}px`, height: `${a.height}px` });
      band.hidden = right - left < 4;
    };
    const up = (e) => {
      const began = from, a = area(box), at = (x) => page.span[0] + Math.min(1, Math.max(0, (x - a.left) / a.width)) * (page.span[1] - page.span[0]);
      stop();
      if (Math.abs(e.clientX - began) >= 4) P.url.setAbsolute(at(began), at(e.clientX));
    };
    box.addEventListener("pointerdown", (e) => {
      const a = area(box);
      if (e.button !== 0 || !a || dragging || e.clientX < a.left || e.clientX > a.right || e.clientY < a.top || e.clientY > a.bottom) return;
      from = e.clientX;
      window.addEventListener("pointermove", move);
      window.addEventListener("pointerup", up);
    });
    box.addEventListener("dblclick", () => P.url.zoomOut());
  }
  // The address keeps the candidate; what needs packets is asked when the hand rests.
  const commit = P.debounce(() => { if (page && chosen !== null) P.url.set({ threshold: chosen === last.anomalies.threshold ? null : score(chosen) }, true); }, 350);

  function control() {
    const list = bounds(), t = threshold(), w = would(t), a = last.anomalies, slider = P.byId("anomalies-slider");
    if (!list.length) return;
    slider.max = String(list.length - 1);
    let at = 0;
    list.forEach(([b], i) => { if (b <= t + 1e-9) at = i; });
    slider.value = String(at);
    slider.setAttribute("aria-valuetext", `${score(t)}, ${one(t)}`);
    P.setText("anomalies-value", score(t));
    P.setText("anomalies-one", one(t));
    const told = last.anomaly_alerts, same = told && Math.abs(told.threshold - t) < 1e-9 && !dragging, n = (v, word) => `${F.count(v)} ${word}${v === 1 ? "" : "s"}`;
    const raised = !same ? "…" : told.too_many ? "Too many packets to alert on" : `Would have raised ${n(told.alerts, "alert")} in this range`;
    const why = !same || told.too_many ? "" : told.sources_not_told ? `${n(told.sources_not_told, "source")} beyond the limit of ${a.alerts_per_hour} an hour` : told.packets ? `from ${n(told.sources, "source")}` : "";
    P.byId("anomalies-would").replaceChildren(el("b", {}, raised), el("span", {}, [`${n(w.packets, "packet")} in ${n(w.minutes, "minute")}`, why].filter(Boolean).join(" · ")));
    P.setText("anomalies-configured", `${a.threshold === t ? "as configured" : `configured: ${score(a.threshold)}`}${a.alert ? "" : " · packets do not alert"}`);
    P.byId("anomalies-configured").title = a.alert ? "" : "[scoring] alert is false: packets at the threshold are counted, but make no alerts";
    P.byId("anomalies-save").hidden = !P.may("admin");
    P.byId("anomalies-save").disabled = a.threshold === t;
  }
  function build() {
    const box = P.byId("anomalies-control"), slider = el("input", { type: "range", id: "anomalies-slider", min: 0, max: 14, step: 1 });
    slider.addEventListener("input", () => { const to = bounds()[Number(slider.value)]; if (to) { chosen = to[0]; control(); chart(); commit(); } });
    box.replaceChildren(el("label", { for: "anomalies-slider" }, "Threshold"), slider, el("div", { class: "anomalies-pair" }, el("output", { id: "anomalies-value", for: "anomalies-slider" }), el("span", { class: "muted", id: "anomalies-one" })),
      el("div", { id: "anomalies-would", role: "status", "aria-live": "polite" }), el("span", { id: "anomalies-configured", class: "muted" }), P.button("Save threshold", save, { id: "anomalies-save", hidden: true }));
  }

  // Written to the configuration as any change of it, and taken over by a running engine.
  async function save() {
    const to = threshold();
    try {
      const { etag } = await P.feed.ask("settings", { range: "", filter: "" });
      const done = await P.feed.post("settings", { etag, changes: { scoring: { threshold: to } }, tell: true });
      if (done.error) throw new Error(done.error);
      P.toast(`Threshold ${score(to)} saved${done.running ? done.waits.includes("scoring.threshold") ? "; the engine takes it at its next start" : "; the engine uses it now" : ""}`);
      P.feed.now();
    } catch (error) { P.toast(error.message, { level: "bad" }); }
  }

  // --- figures, windows, packets -----------------------------------------------------------------------------------
  const FEATURES = { wirelen: "length", payload_len: "payload", entropy: "entropy", src_port: "source port", dst_port: "destination port", proto: "protocol", ttl: "TTL", tcp_flags: "TCP flags" };
  function kpis() {
    const a = last.anomalies, t = a.totals, [n, unit] = F.si(t.scored), w = would(threshold()), [above, aboveUnit] = F.si(w.packets), windows = last.unusual_windows, drift = t.psi;
    P.kpi("anomalies-scored", { value: n, unit, note: t.not_learned ? `${F.text(t.not_learned)} not learned` : "in this range", spark: a.minutes.scored });
    P.kpi("anomalies-above", { value: above, unit: aboveUnit, note: w.usual ? `${(100 * (w.share || 0)).toPrecision(2)} %, usual ${(100 * w.usual).toPrecision(2)} %` : "more than usual by definition", level: w.usual && w.share > 10 * w.usual ? "warn" : "" });
    P.kpi("anomalies-highest", { value: score(t.highest), note: t.highest === null ? "" : one(t.highest) });
    P.kpi("anomalies-windows-above", { value: F.text(windows.total), note: windows.total ? `of ${windows.hosts} host${windows.hosts === 1 ? "" : "s"}` : "of hosts", level: windows.total ? "warn" : "" });
    P.kpi("anomalies-drift", { value: drift === null ? null : drift.toFixed(2), unit: drift === null ? "" : "PSI", note: drift === null ? "not known yet" : drift > 0.25 ? `changed: ${FEATURES[t.worst_feature] || t.worst_feature || ""}` : drift > 0.1 ? "shifting" : "as learned", level: drift > 0.25 ? "warn" : "" });
    P.kpi("anomalies-model", { value: a.model, unit: a.model === null ? "" : "version", note: a.model_sensor || "none yet" });
  }
  const amount = (r, v) => /bytes/.test(r.name) || r.name === "out_payload" ? F.bytes(v) : Number.isInteger(v) ? F.text(v) : String(v);
  function reason(r) {
    return el("span", { class: "anomalies-reason", title: `${r.words}: ${F.count(r.value)}; usually ${F.count(r.usual)}, rarely above ${F.count(r.high)}` }, el("b", {}, amount(r, r.value)), ` ${r.words} `, el("span", { class: "muted" }, `usual ${amount(r, r.usual)} – ${amount(r, r.high)}`));
  }
  const pair = (above, below) => el("span", { class: "anomalies-lines" }, el("span", {}, above), el("span", { class: "muted" }, below));
  function windows() {
    const w = last.unusual_windows, models = P.rows(w.models), narrow = window.innerWidth < 1280;
    P.setText("anomalies-windows-note", models.length ? `usual: median – 99.5 % of model ${models.map((m) => `${m.number} of ${m.of}`).join(", ")}` : "");
    P.table("anomalies-windows", {
      rows: w.rows, caption: "Unusual windows", actions: models.length ? undefined : [], empty: models.length ? "No busy window of a host was unusual in this range." : "What is usual is not known yet: the first model of windows is learned from an hour of traffic.",
      columns: [
        { name: "ip", title: "Host", mono: true, width: narrow ? 104 : 124, format: (v, r) => pair(P.cell("host", v, v), F.clock(r.ts)) },
        { name: "score", title: "Above", number: true, width: narrow ? 66 : 78, format: (v, r) => el("span", { title: `score ${v}, threshold ${r.threshold}, ${r.windows} unusual window${r.windows === 1 ? "" : "s"} in that minute` }, pair(`${(v / r.threshold).toFixed(1)}×`, `in ${r.window_s} s`)) },
        { name: "reasons", title: "What was unusual", format: (v) => el("span", { class: "anomalies-lines" }, v.slice(0, 2).map(reason)) },
        { name: "alert", title: "Alert", width: narrow ? 92 : 112, format: (v, r) => v ? el("a", { href: `/alerts?alert=${encodeURIComponent(v)}`, class: "anomalies-alert" }, P.alerts.words(r.kind)) : el("span", { class: "muted" }, "none") },
      ],
    });
  }
  function contributions(list) {
    if (!list.length) return el("span", { class: "muted" }, "its model is gone");
    const sum = list.reduce((s, f) => s + Math.max(0, f.contribution), 0) || 1, value = (f) => f.value === null ? "none" : f.name === "entropy" ? f.value.toFixed(1) : String(f.value);
    return el("span", { class: "anomalies-shares", title: list.map((f) => `${FEATURES[f.name]} ${value(f)}: ${f.contribution > 0 ? "+" : ""}${f.contribution}`).join("\n") }, list.filter((f) => f.contribution > 0).slice(0, 3).map((f) => el("span", {}, el("i", { style: { width: `${Math.round(34 * f.contribution / sum) + 2}px` } }), el("span", {}, `${FEATURES[f.name]} ${value(f)} `, el("span", { class: "muted" }, F.percent(f.contribution / sum))))));
  }
  function packets() {
    const p = last.unusual_packets, narrow = window.innerWidth < 1280, t = threshold();
    P.setText("anomalies-packets-note", `at ${score(t)} or more${p.minutes ? `, of the ${p.minutes} minutes with most` : ""}`);
    P.table("anomalies-packets", {
      rows: p.rows, caption: "Most unusual packets", empty: `No packet scored ${score(t)} or more in this range.`,
      onRow: (r) => { if (document.querySelector("[data-nav=packets]")) P.url.go("/packets", { range: `${r.ts - 1000000},${r.ts + 1000000}`, filter: `anomaly>=${score(Math.max(0, r.anomaly - 0.0001))}` }); },
      columns: [
        { name: "anomaly", title: "Score", mono: true, width: narrow ? 80 : 92, format: (v, r) => pair(v.toFixed(4), `${F.text(r.packets)} packet${r.packets === 1 ? "" : "s"}`) },
        { name: "src", title: "From, to", mono: true, width: narrow ? 124 : 184, format: (v, r) => el("span", { class: "anomalies-lines" }, v && /[.:]/.test(v) ? P.cell("src", v, v) : v || "–", r.dst && /[.:]/.test(r.dst) ? P.cell("dst", r.dst, `${r.dst}${r.dport ? ":" + r.dport : ""}`) : r.dst || "–") },
        { name: "proto", title: "Protocol", width: 72, format: (v, r) => r.app || v || "other" },
        { name: "features", title: "What made it unusual", format: contributions },
      ],
    });
  }
  function draw() { kpis(); chart(); control(); windows(); packets(); }

  P.page("anomalies", {
    params: (question, at) => question === "unusual_windows" ? {} : { threshold: at.query.threshold || (last && last.anomalies.threshold) || undefined },
    mount(at) {
      page = at; last = null; dragging = false;
      chosen = at.query.threshold ? Number(at.query.threshold) : null;
      build();
      for (const id of ["anomalies-windows", "anomalies-packets"]) P.loading(id, 6);
      P.chart.legend("anomalies-legend", LINES.map((l) => l[1]));
      P.byId("anomalies-legend").replaceChildren(...LINES.map(([, title, colour]) => el("span", { class: "key" }, el("span", { class: "swatch", style: { "--c": `var(${colour})` } }), title === "highest" ? title : `${title} of packets below`)));
    },
    paint(answers, at) {
      last = answers;
      page.span = [answers.anomalies.range.start, answers.anomalies.range.end];
      if (!dragging) chosen = at.query.threshold ? Number(at.query.threshold) : chosen !== null && at.query.threshold === undefined && chosen === answers.anomalies.threshold ? null : at.query.threshold === undefined ? null : chosen;
      if (!dragging) draw();
    },
    unmount() { page = null; dragging = false; },
  });
})();
