// Hosts by country and city.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el, H = P.hosts = P.hosts || {};
  let last = null;

  function paint(a) {
    last = a;
    const by = P.tab("hosts-measure") || "bytes", text = by === "bytes" ? F.bytes : (v) => `${F.count(v)} ${v === 1 ? "host" : "hosts"}`;
    const c = a.countries, t = a.cities, host = P.byId("hosts-map").closest("[data-graph]");
    P.chart.map("hosts-map",
      c.country.map((code, i) => ({ iso3: c.iso3[i], name: c.country_name[i] || code, value: c[by][i], text: text(c[by][i]) })).filter((x) => x.iso3),
      t.city.map((name, i) => ({ lat: t.lat[i], lon: t.lon[i], value: t[by][i], name: name || t.country_name[i], text: `${name || t.country_name[i] || "unknown place"}: ${text(t[by][i])}` })),
      { label: "Where hosts are", measure: by === "bytes" ? "Bytes" : "Hosts", onCountry: (iso3, without) => P.url.add("country", iso3, without) });
    const over = host.querySelector(":scope > .empty.over");
    if (!a.database) host.setAttribute("role", "group");  // an image has no links
    if (a.database) { if (over) over.remove(); } else if (!over) {
      host.append(el("div", { class: "empty over" }, el("span", {}, "Where public addresses are needs a GeoIP database: ", el("code", {}, "engine geoip install")),
        document.querySelector("[data-nav=configuration]") ? el("a", { class: "link", href: "/configuration" }, "Configuration") : null));
    }
    const foot = P.byId("hosts-map-foot");
    P.keepFocus(foot, () => foot.replaceChildren(
      el("span", { class: "plain" }, P.cell("country", "private", `${F.count(a.internal.hosts)} internal hosts`), `, ${F.bytes(a.internal.bytes)}`),
      el("span", { class: "plain" }, P.cell("country", "none", `${F.count(a.unlocated.hosts)} not located`), `, ${F.bytes(a.unlocated.bytes)}`),
      a.attribution ? el("a", { class: "credit", href: a.link || null, target: "_blank", rel: "noopener noreferrer" }, a.attribution) : ""));
    const empty = a.database ? "No host in this range is located." : "Nothing is located without a GeoIP database.";
    const country = { name: "country", title: "Country", format: (v, r) => el("span", { class: "plain" }, P.cell("country", v, r.country_name || v)) };
    const figures = [
      { name: "hosts", title: "Hosts", number: true, mono: true, width: 64, format: F.count },
      { name: "bytes_sent", title: "Sent", number: true, mono: true, width: 84, format: F.bytes },
      { name: "bytes_received", title: "Received", number: true, mono: true, width: 88, format: F.bytes },
    ], bytes = { name: "bytes", title: "Bytes", bar: true, width: "22%", format: F.bytes };
    const sorted = (columns) => P.rows(columns).sort((x, y) => y[by] - x[by]);
    P.table("hosts-countries", { rows: sorted(c), caption: "Countries", empty, columns: [country, bytes, ...figures] });
    P.table("hosts-cities", { rows: sorted(t), caption: "Cities", empty, columns: [{ name: "city", title: "City" }, country, bytes, figures[0]] });
    const sum = c.hosts.reduce((x, y) => x + y, 0);
    H.note("map", [`${F.count(sum)} ${sum === 1 ? "host" : "hosts"} in ${F.count(c.country.length)} ${c.country.length === 1 ? "country" : "countries"}`, H.ignored(a)].filter(Boolean).join(" · "));
  }
  H.map = { paint, mount() { last = null; P.onTab("hosts-measure", () => last && paint(last)); } };
})();
