// The cards, drawn from a snapshot straight into their elements.
(function () {
  "use strict";
  const P = window.packetlake, el = P.el;
  P.view = { mix: "bytes", talkers: "sources" };
  const SERVICES = { 22: "ssh", 25: "smtp", 53: "dns", 80: "http", 110: "pop3", 123: "ntp", 143: "imap", 161: "snmp",
    389: "ldap", 443: "https", 445: "smb", 587: "smtp", 853: "dns", 993: "imaps", 1883: "mqtt", 3306: "mysql",
    3389: "rdp", 5353: "mdns", 5432: "postgres", 6379: "redis", 8080: "http", 51820: "wireguard" };

  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const empty = (...children) => el("div", { class: "empty" }, ...children);
  const nothing = () => empty("Nothing in this range yet.");

  function kpi(id, [value, unit], note, level, spark) {
    const node = P.byId(id);
    node.querySelector(".value").textContent = value;
    node.querySelector(".unit").textContent = unit;
    node.querySelector(".kpi-note").textContent = note;
    node.dataset.level = level || "";
    P.spark(node.querySelector(".spark"), spark || []);
  }
  const withUnit = (value, unit) => { const [v, s] = P.si(value); return [v, s + unit]; };
  const lossText = (d) => {
    const parts = [["kernel", d.kernel], ["interface", d.interface], ["own", d.own]].filter(([, n]) => n > 0);
    return parts.map(([name, n]) => `${name} ${P.text(n, "")}`).join(" · ");
  };
  P.lossLevel = (d) => !d || d.lost === 0 ? "" : d.pct > 1 ? "bad" : "warn";

  P.drawKpis = function (snap) {
    const k = snap.kpi, totals = P.totals(snap.timeline), d = k.drops;
    const peak = Math.max(0, ...totals);
    kpi("kpi-pps", withUnit(k.pps, "pps"), `peak ${P.text(peak, "")}`, "", totals);
    kpi("kpi-bps", withUnit(k.bps, "b/s"), `avg ${P.text(k.bps_mean, "b/s")}`, "", snap.timeline.bits);
    kpi("kpi-packets", withUnit(k.packets, ""), `avg ${P.text(k.pps_mean, "pps")}`);
    kpi("kpi-bytes", withUnit(k.bytes, "B"), k.packets ? `avg ${Math.round(k.bytes / k.packets)} B per packet` : "no packets");
    if (d.pct === null) kpi("kpi-drops", ["–", ""], "no statistics in this range");
    else {
      const small = d.pct > 0 && d.pct < 0.01;
      kpi("kpi-drops", [small ? "<0.01" : d.pct.toFixed(2), "%"], lossText(d) || `0 of ${P.text(d.seen, "")}`, P.lossLevel(d));
      P.byId("kpi-drops").title = `Lost of ${d.seen} frames: kernel buffer ${d.kernel}, interface ${d.interface}, engine ${d.own}`;
    }
    const share = k.packets ? k.undecodable / k.packets : 0;
    kpi("kpi-undecodable", withUnit(k.undecodable, ""), k.packets ? `${(share * 100).toFixed(2)} % of packets` : "no packets");
  };

  P.drawMix = function (snap) {
    const values = snap.mix[P.view.mix], all = sum(values), node = P.byId("mix");
    if (!all) { node.replaceChildren(nothing()); return; }
    const order = values.map((v, i) => [v, i]).sort((a, b) => b[0] - a[0]);
    const top = order[0][0], unit = P.view.mix === "bytes" ? "B" : "";
    node.replaceChildren(...order.map(([v, i]) => {
      const [name, colour] = P.CLASSES[i];
      return el("div", { class: "mix-line" }, el("span", {}, name),
        el("div", { class: "mix-bar", style: { "--c": `var(${colour})` } },
          el("i", { style: { width: `${(v / top * 58).toFixed(1)}%` } }),
          el("span", {}, P.text(v, unit)), el("span", { class: "muted" }, v ? P.percent(v / all) : "0 %")));
    }));
  };

  function table(kind, columns, rows) {
    const head = el("tr", {}, ...columns.map((c) => el("th", { scope: "col", class: c.number ? "number" : "", style: c.width ? { width: c.width } : {} }, c.title)));
    return el("table", { class: kind }, el("thead", {}, head), el("tbody", {}, ...rows));
  }
  const bar = (share, text) => el("span", { class: "bar" }, el("i", { style: { width: `${(share * 100).toFixed(1)}%` } }), el("span", {}, text));
  // A table that is scrolled or selected in must not jump: its rows are replaced, not its scroll container.
  function replace(node, content) { const { scrollTop } = node; node.replaceChildren(content); node.scrollTop = scrollTop; }

  P.drawTalkers = function (snap) {
    const which = P.view.talkers, t = snap.talkers[which], node = P.byId("talkers");
    if (!t.key.length) { node.replaceChildren(nothing()); return; }
    const title = { sources: "Source", destinations: "Destination", ports: "Service port" }[which];
    const rows = t.key.map((key, i) => {
      const service = which === "ports" ? SERVICES[parseInt(key, 10)] : null;
      return el("tr", {}, el("td", { title: key }, key, service ? el("span", { class: "muted" }, "  " + service) : null),
        el("td", {}, bar(t.bytes[i] / t.bytes[0], P.text(t.bytes[i], "B"))), el("td", { class: "number" }, P.text(t.packets[i], "")));
    });
    replace(node, table("talkers", [{ title, width: "40%" }, { title: "Bytes" }, { title: "Packets", number: true, width: "21%" }], rows));
  };

  P.drawRecent = function (snap) {
    const r = snap.recent, node = P.byId("recent");
    const rows = [];
    for (let i = 0; i < r.ts.length; i += 1) {
      const [, colour] = P.CLASSES[r.class[i]];
      const ports = r.sport[i] === null ? "" : `${r.sport[i]} → ${r.dport[i]}`;
      rows.push(el("tr", {}, el("td", {}, P.clock(r.ts[i], true)), el("td", { title: r.src[i] || "" }, r.src[i] || "–"), el("td", { title: r.dst[i] || "" }, r.dst[i] || "–"),
        el("td", {}, el("span", { class: "swatch", style: { "--c": `var(${colour})` } }), r.proto[i]),
        el("td", { class: "number" }, ports), el("td", { class: "number" }, String(r.len[i])), el("td", { class: "muted", title: r.info[i] }, r.info[i])));
    }
    if (!rows.length) { node.replaceChildren(empty("Packets appear here as they are captured.")); P.setText("recent-note", ""); return; }
    P.setText("recent-note", `last ${rows.length} · query ${snap.ms} ms`);
    replace(node, table("packets", [{ title: `Time (${P.zone()})`, width: "122px" }, { title: "Source", width: "17%" }, { title: "Destination", width: "17%" },
      { title: "Protocol", width: "100px" }, { title: "Ports", number: true, width: "140px" }, { title: "Length", number: true, width: "80px" }, { title: "Info" }], rows));
  };

  P.drawCountries = function (snap) {
    const c = snap.countries, node = P.byId("countries");
    if (!c || !c.name.length) {
      P.setText("countries-note", "");
      node.replaceChildren(c && c.database ? empty("No destination with a known country in this range.")
        : empty("No GeoIP database is installed, so addresses have no country.", el("span", {}, "Get one: ", el("code", {}, "engine geoip install"))));
      return;
    }
    const all = c.located + c.private + c.unlocated || 1;
    const unknown = c.unlocated > 0 ? ` · unlocated ${P.percent(c.unlocated / all)}` : "";
    P.setText("countries-note", `${c.countries} ${c.countries === 1 ? "country" : "countries"} · private ${P.percent(c.private / all)}${unknown}`);
    const rows = c.name.map((name, i) => el("tr", {}, el("td", {}, name), el("td", {}, bar(c.bytes[i] / c.bytes[0], P.text(c.bytes[i], "B"))),
      el("td", { class: "number" }, P.text(c.packets[i], ""))));
    const list = el("div", { class: "country-list" }, table("talkers", [{ title: "Country", width: "40%" }, { title: "Bytes" }, { title: "Packets", number: true, width: "21%" }], rows));
    const safe = /^https?:\/\//.test(c.link);
    const name = safe ? el("a", { href: c.link, target: "_blank", rel: "noopener noreferrer" }, c.attribution || c.link) : c.attribution;
    const scrolled = node.firstChild ? node.firstChild.scrollTop : 0;
    node.replaceChildren(list, ...(name ? [el("div", { class: "credit" }, name)] : []));
    list.scrollTop = scrolled || 0;
  };
})();
