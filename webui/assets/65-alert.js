// One alert in the drawer: why it fired, what went on, and what people said and did.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el;
  const LABELS = new Set(["sid", "rev", "src_port", "dst_port", "port", "frame_no", "model", "window_s"]);  // numbers that name something
  const NAMES = { per_s: "per second", sid: "signature number (sid)", rev: "revision", mean_gap_s: "mean gap in s", window_s: "window in s", frame_no: "frame" };
  let id = "", view = null, page = null, said = "";

  const name = (key) => NAMES[key] || key.replace(/_per_s$/, " per second").replace(/_/g, " ");
  const number = (v) => Number.isInteger(v) ? F.count(v) : Math.abs(v) >= 100 ? F.count(Math.round(v)) : String(Number(v.toPrecision(4)));
  const value = (v) => v === null || v === undefined ? "–" : typeof v === "number" ? number(v) : Array.isArray(v) ? v.map(value).join(", ") : typeof v === "object" ? Object.entries(v).map(([k, x]) => `${name(k)} ${value(x)}`).join(", ") : String(v);
  const section = (title, ...inside) => el("section", { class: "alert-part" }, el("h3", {}, title), inside.flat().filter(Boolean));

  // The measure that was judged is the first number; `threshold` is what it had to reach.
  function measure(evidence, grade) {
    const numbers = Object.entries(evidence).filter(([k, v]) => typeof v === "number" && k !== "threshold" && !LABELS.has(k)), at = numbers.find(([k]) => k === "failed") || numbers[0];
    if (!at || typeof evidence.threshold !== "number") return null;
    const most = Math.max(at[1], (evidence.peak || {})[at[0]] || 0), times = most / evidence.threshold, top = Math.max(most, evidence.threshold) * 1.04;
    return el("div", { class: "alert-measure" },
      el("div", { class: "alert-measure-line" }, el("b", {}, number(most)), el("span", {}, name(at[0])), el("span", { class: "muted" }, `threshold ${number(evidence.threshold)}${Number.isFinite(times) && times >= 1.05 ? ` · ${number(Number(times.toPrecision(2)))} times` : ""}`)),
      el("div", { class: "alert-track", role: "img", "aria-label": `${number(most)} against a threshold of ${number(evidence.threshold)}` },
        el("i", { style: { width: `${(100 * most / top).toFixed(1)}%`, background: `var(${P.chart.severity(grade)})` } }), el("u", { style: { left: `${(100 * evidence.threshold / top).toFixed(1)}%` } })));
  }
  function table(head, lines) {
    return el("table", { class: "alert-numbers" }, el("thead", {}, el("tr", {}, head.map((h, i) => el("th", { scope: "col", class: i ? "number" : null }, h)))),
      el("tbody", {}, lines.map((line) => el("tr", {}, line.map((c, i) => el("td", { class: i ? "number mono" : null, title: typeof c === "string" ? c : null }, c))))));
  }
  function evidence(e, grade) {
    const { first, peak, all, features, ...rest } = e, parts = [measure(e, grade)];
    const usual = Object.keys(rest).filter((k) => `${k}_usual` in rest);
    if (usual.length) parts.push(table(["What was unusual", "Value", "Usual", "Rarely above"], usual.map((k) => [name(k), value(rest[k]), value(rest[`${k}_usual`]), value(rest[`${k}_rarely_above`])])));
    if (features && typeof features === "object") parts.push(table(["Feature", "Share of what made it unusual"], Object.entries(features).map(([k, v]) => [name(k), typeof v === "number" ? F.percent(v) : value(v)])));
    const hidden = new Set(["threshold", ...usual.flatMap((k) => [k, `${k}_usual`, `${k}_rarely_above`])]);
    const plain = Object.entries(rest).filter(([k]) => !hidden.has(k)), numbers = plain.filter(([k, v]) => typeof v === "number" && !LABELS.has(k)), texts = plain.filter(([k, v]) => typeof v !== "number" || LABELS.has(k)).map(([k, v]) => [k, LABELS.has(k) ? String(v) : v]);
    const changed = numbers.some(([k]) => (peak && k in peak) || (first && k in first));
    const old = (from, k, v) => value(from && k in from ? from[k] : v);
    if (numbers.length) parts.push(table(changed ? ["Number", "First", "Newest", "Peak"] : ["Number", "Value"], numbers.map(([k, v]) => changed ? [name(k), old(first, k, v), value(v), old(peak, k, v)] : [name(k), value(v)])));
    if (texts.length) parts.push(el("dl", { class: "alert-texts" }, texts.flatMap(([k, v]) => [el("dt", {}, name(k)), el("dd", { class: "mono" }, (all && all[k] ? all[k] : [v]).map((t) => el("div", {}, value(t))))])));
    return parts.filter(Boolean);
  }
  function facts(a) {
    const lasted = (a.last_seen - a.first_seen) / 1e6, protos = { 1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6" };
    const list = [
      ["Source", a.src_ip && P.cell("src", a.src_ip, a.src_ip)], ["Destination", a.dst_ip && P.cell("dst", a.dst_ip, a.dst_ip)],
      ["Port", a.dst_port !== null && P.cell("port", a.dst_port, `${a.dst_port}${a.proto === null ? "" : ` ${protos[a.proto] || a.proto}`}`)], ["Domain", a.domain && P.cell("sni", a.domain, a.domain)],
      ["First seen", F.dateTime(a.first_seen)], [`Last seen (${F.zone(a.last_seen)})`, F.dateTime(a.last_seen)],
      ["Lasted", lasted ? F.duration(lasted) : "a moment"], ["Observations", F.count(a.count)], ["Confidence", F.percent(a.confidence)],
      ["Sensor", a.sensor && a.sensor !== "operator" && P.cell("sensor", a.sensor, a.sensor)], ["Reported by", a.reported_by === "engine" ? null : a.reported_by], ["Acknowledged", a.acknowledged_by && `${F.dateTime(a.acknowledged_at)} by ${a.acknowledged_by}`],
    ].filter(([, v]) => v);
    return el("dl", { class: "alert-facts" }, list.map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v))));
  }
  function traffic(t) {
    const box = el("div", { class: "alert-traffic chart" });
    requestAnimationFrame(() => P.chart.timeline(box, { start_s: t.start_s, step_s: t.step_s, series: { [t.unit]: t.values } }, { unit: ` ${t.unit}`, colours: { [t.unit]: "--accent" }, label: `${t.unit} of the alert's hosts` }));
    return section(`${t.unit === "packets" ? "Packets" : "Flows"} of these hosts per ${t.step_s === 1 ? "second" : t.step_s < 90 ? `${t.step_s} s` : F.duration(t.step_s)}`, box);
  }
  function packets(got) {
    const { scope } = got, there = (n) => document.querySelector(`[data-nav=${n}]`), range = `${scope.start},${scope.end}`;
    const to = (path) => () => P.url.go(path, { range, filter: scope.filter });
    const buttons = scope.filter ? [there("packets") ? P.button("Its packets", to("/packets")) : null, there("flows") ? P.button("Its flows", to("/flows")) : null, P.may("operator") ? P.button("Export pcap", () => P.exportPcap({ range, filter: scope.filter })) : null].filter(Boolean) : [];
    const list = el("div", { class: "alert-packets scroll", tabindex: "0", "aria-label": "Packets" }), wide = { ts: 122, src: 122, dst: 122, proto: 82 };
    if (got.packets.ts.length) P.table(list, { rows: got.packets, caption: "Packets", columns: P.packetColumns(got.packets).filter((c) => ["ts", "src", "dst", "proto", "info"].includes(c.name)).map((c) => ({ ...c, width: wide[c.name] })) });
    return got.packets.ts.length || buttons.length ? section(got.named ? "Evidence: packets" : "First packets of these hosts", got.packets.ts.length ? list : null, el("div", { class: "row-buttons" }, buttons)) : null;
  }
  function history(got) {
    const h = P.rows(got.history), what = { opened: "Began", updated: "Went on", closed: "Over", acknowledged: "Acknowledged", reopened: "Reopened", note: "Note", manual: "Entered" };
    const kept = h.filter((e, i) => e.event !== "updated" || i === h.length - 1);
    return section("History and notes", el("ol", { class: "alert-history" }, kept.map((e) => el("li", {}, el("span", { class: "mono muted" }, F.dateTime(e.ts)), el("span", {}, el("b", {}, what[e.event] || e.event), e.actor === "engine" ? ` (${F.count(e.count)} observations)` : ` by ${e.actor}`), e.note ? el("p", {}, e.note) : null))), P.may("operator") ? note() : null);
  }
  function note() {
    const text = el("textarea", { rows: 2, maxlength: 1000, class: "field", "aria-label": "Note", placeholder: "What you found out, or did" }), problem = el("p", { class: "problem", role: "alert" });
    text.value = said;
    text.addEventListener("input", () => { said = text.value; });
    return [text, problem, el("div", { class: "row-buttons" }, P.button("Add note", async () => {
      try { await P.feed.post(`alerts/${encodeURIComponent(id)}/note`, { note: text.value }); said = ""; text.value = ""; } catch (error) { problem.textContent = error.message; return; }
      refresh(true);
    }))];
  }
  function related(got) {
    const list = P.rows(got.related);
    return list.length ? section("Other alerts of these hosts", el("ul", { class: "alert-related" }, list.map((r) => el("li", {}, P.alerts.severity(r.severity), P.button(P.alerts.words(r.kind), () => open(r.id, page), { class: "link" }), el("span", { class: "mono muted" }, `${r.src_ip || "many"} → ${r.dst_ip || "many"}`), el("span", { class: "mono muted" }, F.when(r.first_seen)))))) : null;
  }

  function fill(got) {
    const a = got.alert, done = a.status === "acknowledged", kept = view.body.scrollTop;
    view.box.querySelector("h2").textContent = P.alerts.words(a.kind);
    view.body.replaceChildren(...[
      el("div", { class: "alert-head" }, P.alerts.severity(a.severity), el("span", { class: "alert-pill" }, done ? `acknowledged by ${a.acknowledged_by}` : "open"), a.active ? el("span", { class: "alert-pill alerts-active" }, "going on") : null, el("span", { class: "mono muted alert-id" }, a.incident_id)),
      el("p", { class: "alert-why" }, a.why), facts(a), Object.keys(a.evidence).length ? section("Why it fired", evidence(a.evidence, a.severity)) : null,
      got.traffic && got.traffic.values.some((v) => v) ? traffic(got.traffic) : null, packets(got), history(got), related(got),
    ].filter(Boolean));
    view.body.scrollTop = kept;
    const before = view.box.querySelector(".dialog-foot");
    if (before) before.remove();
    if (!P.may("operator")) return;
    const muting = P.button("Mute 24 h …", () => P.alerts.muteMenu(muting, a), { "aria-haspopup": "menu" });
    view.box.append(el("div", { class: "dialog-foot" }, muting, done ? P.button("Reopen", () => P.alerts.mark([a.incident_id], false)) : P.button("Acknowledge", () => P.alerts.mark([a.incident_id], true), { class: "button primary", title: "E" })));
  }
  let told = "";
  // What is being written or read stays: only an alert that has changed is drawn again.
  async function refresh(now) {
    const of = view, wanted = id;
    if (!of) return;
    try {
      const got = await P.feed.ask("alert", { id: wanted, range: "", filter: "" }), text = JSON.stringify([got.alert, got.history]);
      if (view !== of || (text === told && !now)) return;
      told = text;
      fill(got);
    } catch (error) { if (view === of && !told) P.failed(of.body, error, () => refresh(true)); else if (view === of) P.toast(error.message, { level: "bad" }); }
  }
  function open(wanted, at) {
    id = wanted; page = at; told = ""; said = "";
    const mine = P.drawer("Alert", el("div", {}), () => {
      if (view !== mine) return;
      view = null; id = "";
      if (page && page.rest) P.url.go("/alerts", {}); else if (P.url.query().alert) P.url.set({ alert: null }, true);
    });
    view = mine;
    mine.box.classList.add("alert-drawer");
    P.loading(mine.body, 10);
    if (!(page.rest && decodeURIComponent(page.rest) === wanted) && P.url.query().alert !== wanted) P.url.set({ alert: wanted }, true);
    refresh(true);
  }
  P.on("alerts-changed", () => { setTimeout(() => refresh(), 1100); });
  P.on("repaint", () => { if (view) refresh(true); });
  P.on("leave", () => { view = null; id = ""; });
  P.alert = { open, refresh, shown: () => id };
})();
