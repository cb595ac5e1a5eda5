// Charts. Each draws into a dcc.Graph (parts.graph) by its id, or into any element with a height.
// Times are µs, columns plain arrays: {start_s, step_s, series: {name: [..]}} -> stacked areas, and so on.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el;
  const PLOTLY = "/_dash-component-suites/plotly/package_data/plotly.min.js";
  const CONFIG = { displayModeBar: false, displaylogo: false, showSendToCloud: false, plotlyServerURL: "", doubleClick: false, responsive: true, topojsonURL: "/assets/topojson/" };
  // Colours of what is shown by class; severity has its own, and neither borrows the other's.
  const COLOURS = { tls: "--c-tls", https: "--c-tls", quic: "--c-quic", http: "--c-http", dns: "--c-dns", mdns: "--c-dns", ssh: "--c-ssh", icmp: "--c-icmp", icmpv6: "--c-icmp", tcp: "--c-tcp", udp: "--c-udp", arp: "--c-arp", ntp: "--c-http", dhcp: "--c-ssh", sctp: "--c-http", other: "--c-other", none: "--c-other" };
  const SPARE = ["--c-http", "--c-ssh", "--c-icmp", "--c-dns", "--c-quic"];
  const SEVERITY = { critical: "--critical", high: "--high", medium: "--medium", low: "--low", info: "--text-3" };
  function colourName(name) {
    const key = String(name).toLowerCase();
    if (COLOURS[key]) return COLOURS[key];
    let sum = 0;
    for (const c of key) sum = (sum * 31 + c.charCodeAt(0)) % 9973;
    return SPARE[sum % SPARE.length];
  }
  const colour = (name) => P.token(colourName(name));
  const severity = (name) => SEVERITY[String(name).toLowerCase()] || "--text-3";

  const plotly = () => window.Plotly ? Promise.resolve(window.Plotly) : P.load(PLOTLY).then(() => window.Plotly);
  // parts.graph puts a lasting element around the dcc.Graph, whose own is replaced when it has loaded.
  function hostOf(target) {
    const box = P.byId(target);
    return box && (box.closest("[data-graph]") || box);
  }
  // Draw a figure; of several while the library loads, the last.
  function draw(target, figure) {
    const host = hostOf(target), first = host && !host.packetlakeFigure;
    if (!host) return;
    host.packetlakeFigure = figure;
    if (!first && !window.Plotly) return;
    plotly().then((lib) => {
      if (!host.isConnected) return;
      if (host.dataset.graph) window.dash_clientside.set_props(host.dataset.graph, { figure: host.packetlakeFigure });
      else lib.react(host, host.packetlakeFigure.data, host.packetlakeFigure.layout, CONFIG);
    });
  }

  function layout(more) {
    const grid = P.token("--border"), soft = P.token("--text-3");
    const axis = { fixedrange: true, zeroline: false, gridcolor: grid, linecolor: grid, tickfont: { color: soft } };
    return {
      template: {}, autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: false,
      margin: { l: 52, r: 14, t: 10, b: 26 }, hovermode: "x unified", barmode: "stack", bargap: 0.25,
      font: { family: "Inter, system-ui, sans-serif", size: 11.5, color: P.token("--text-2") },
      hoverlabel: { bgcolor: P.token("--surface"), bordercolor: grid, font: { color: P.token("--text"), size: 11.5 } },
      ...more,
      xaxis: { ...axis, showgrid: false, showline: true, ticklabelstandoff: 3, ...(more && more.xaxis) },
      yaxis: { ...axis, rangemode: "tozero", nticks: 4, tickformat: "~s", ticklabelstandoff: 6, ...(more && more.yaxis) },
    };
  }

  // Values over time. data: {start_s, step_s, series: {name: [...]}}; the first series is drawn lowest.
  // options: lost [frames lost in each bucket: marked in red], stacked (default) or lines, unit, colours {name: token}, marks [{at_us, severity, text, href}],
  // brush (default true: drag sets the range), label for the screen reader, height by the element, log, lines [{at, text}].
  function timeline(target, data, options) {
    const o = Object.assign({ stacked: true, unit: "/s", brush: true, label: "Over time" }, options), box = hostOf(target);
    if (!box) return;
    const names = Object.keys(data.series), n = names.length ? data.series[names[0]].length : 0;
    const at = (i) => F.iso((data.start_s + i * data.step_s) * 1e6).slice(0, 19);
    const x = Array.from({ length: n + 1 }, (_, i) => at(i));
    const empty = n === 0 || !names.some((k) => data.series[k].some((v) => v));
    const traces = empty ? [] : names.map((name) => {
      const c = P.token((o.colours && o.colours[name]) || colourName(name)), y = data.series[name];
      return {
        type: "scatter", mode: "lines", name, x, y: [...y, y[n - 1]], connectgaps: false,
        line: { shape: "hv", width: o.stacked ? 0 : 1.5, color: c }, ...(o.points ? { mode: "lines+markers", y, connectgaps: true, line: { width: 1.5, color: c }, marker: { size: 4, color: c } } : {}), ...(o.stacked ? { stackgroup: "one", fillcolor: c } : {}),
        hovertemplate: `%{y:,.4~s}${o.unit}`,
      };
    });
    const over = box.querySelector(":scope > .empty.over");
    if (!empty) { if (over) over.remove(); } else if (!over) box.append(el("div", { class: "empty over" }, o.empty || "Nothing in this range."));
    const total = Array.from({ length: n }, (_, i) => names.reduce((s, k) => s + (data.series[k][i] || 0), 0));
    const top = o.stacked ? Math.max(0, ...total) : Math.max(0, ...names.flatMap((k) => data.series[k].filter((v) => v !== null)));
    const marks = (o.marks || []).filter((m) => m.at_us >= data.start_s * 1e6 && m.at_us <= (data.start_s + n * data.step_s) * 1e6);
    if (marks.length && !empty) {
      traces.push({
        type: "scatter", mode: "markers", name: "Alerts", x: marks.map((m) => F.iso(m.at_us).slice(0, 23)), y: marks.map(() => top * 1.08), text: marks.map((m) => plain(m.text)), hovertemplate: "%{text}", cliponaxis: false,
        marker: { symbol: "triangle-down", size: 9, color: marks.map((m) => P.token(severity(m.severity))) },
      });
    }
    const gone = (o.lost || []).map((v, i) => [i, v]).filter(([i, v]) => v && i < n);
    if (gone.length && !empty) {
      traces.push({
        type: "scatter", mode: "markers", name: "Lost", x: gone.map(([i]) => at(i)), y: gone.map(() => 0), text: gone.map(([, v]) => `${F.text(v)} frames lost`), hovertemplate: "%{text}",
        marker: { size: 1, color: P.token("--critical") },
      });
    }
    const long = n * data.step_s > 1800;
    draw(box, { data: traces, layout: layout({
      xaxis: { type: "date", range: [x[0], x[n]], tickangle: 0, nticks: Math.max(3, Math.min(12, Math.floor(box.clientWidth / 84))), tickformat: n * data.step_s > 172800 ? "%b %d\n%H:%M" : long ? "%H:%M" : "%H:%M:%S", hoverformat: data.step_s >= 60 ? "%Y-%m-%d %H:%M" : "%H:%M:%S", visible: !empty },
      yaxis: { visible: !empty, ...(o.log ? { type: "log", rangemode: "normal" } : {}), ...(o.max ? { range: [0, o.max] } : {}), ...(o.tickformat ? { tickformat: o.tickformat } : {}), ...(o.suffix ? { ticksuffix: o.suffix } : {}) },
      shapes: [...gone.map(([i]) => ({ type: "rect", yref: "paper", x0: at(i), x1: at(i + 1), y0: 0, y1: 1, line: { width: 0 }, fillcolor: P.token("--critical"), opacity: 0.13, layer: "below" })), ...(o.lines || []).map((l) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: l.at, y1: l.at, line: { color: P.token(l.colour || "--critical"), width: 1.5, dash: "dash" } }))],
    }) });
    const peak = o.stacked ? total.indexOf(top) : -1;
    const lastOf = (name) => { const v = data.series[name].filter((x) => x !== null); return v.length ? F.text(v[v.length - 1], o.unit) : "none"; };
    const now = !n ? "no data" : o.stacked ? `${F.text(total[n - 1], "")} at the end` : names.map((k) => `${k} ${lastOf(k)} at the end`).join(", ");
    P.asTable.tell(box, () => ({
      caption: o.label, head: [{ title: "Time", time: true }, ...names.map((k) => ({ title: k + (o.unit ? ` (${o.unit.trim()})` : ""), number: true })), ...(gone.length ? [{ title: "Frames lost", number: true }] : []), ...(marks.length ? [{ title: "Alerts" }] : [])],
      rows: Array.from({ length: n }, (_, i) => {
        const from = (data.start_s + i * data.step_s) * 1e6, near = marks.filter((m) => m.at_us >= from && m.at_us < from + data.step_s * 1e6);
        return [from, ...names.map((k) => data.series[k][i]), ...(gone.length ? [o.lost[i] || 0] : []), ...(marks.length ? [near.map((m) => m.text).join(", ")] : [])];
      }),
    }));
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", `${o.label}: ${now}${peak >= 0 && top > 0 ? `, peak ${F.text(top, "")} at ${F.clock((data.start_s + peak * data.step_s) * 1e6)}` : ""}`);
    if (o.brush) brush(box, () => [data.start_s * 1e6, (data.start_s + n * data.step_s) * 1e6]);
    box.packetlakeSpan = [data.start_s * 1e6, (data.start_s + n * data.step_s) * 1e6];
    box.packetlakeMarks = marks;
  }
  // Plotly reads a few tags in texts: those of packets must not be any.
  const plain = (text) => String(text).replace(/</g, "‹").replace(/>/g, "›").slice(0, 120);

  // Drag over a chart to set the range of everything; double-click to zoom out. Escape while dragging lets go.
  function brush(box) {
    if (box.packetlakeBrush) return;
    box.packetlakeBrush = true;
    box.style.position = "relative";
    const band = el("div", { class: "brush", hidden: true });
    let from = null;
    const area = () => { const plot = box.querySelector(".nsewdrag") || box; return plot.getBoundingClientRect(); };
    const time = (clientX) => {
      const a = area(), [t0, t1] = box.packetlakeSpan, share = Math.min(1, Math.max(0, (clientX - a.left) / a.width));
      return t0 + share * (t1 - t0);
    };
    const show = (x) => {
      const a = area(), b = box.getBoundingClientRect(), left = Math.max(a.left, Math.min(from, x)), right = Math.min(a.right, Math.max(from, x));
      band.style.left = `${left - b.left}px`; band.style.width = `${Math.max(0, right - left)}px`;
      band.style.top = `${a.top - b.top}px`; band.style.height = `${a.height}px`;
      band.hidden = Math.abs(x - from) < 4;
    };
    const stop = () => { from = null; band.hidden = true; window.removeEventListener("pointermove", move); window.removeEventListener("pointerup", up); window.removeEventListener("keydown", key, true); };
    const move = (e) => show(e.clientX);
    const key = (e) => { if (e.key === "Escape") { e.stopPropagation(); stop(); } };
    const up = (e) => {
      const began = from;
      stop();
      if (began !== null && Math.abs(e.clientX - began) >= 4) P.url.setAbsolute(time(began), time(e.clientX));
    };
    box.addEventListener("pointerdown", (e) => {
      const a = area();
      if (e.button !== 0 || !box.packetlakeSpan || e.clientX < a.left || e.clientX > a.right || e.clientY < a.top || e.clientY > a.bottom) return;
      if (!band.isConnected) box.append(band);
      from = e.clientX;
      window.addEventListener("pointermove", move);
      window.addEventListener("pointerup", up);
      window.addEventListener("keydown", key, true);
    });
    box.addEventListener("dblclick", () => P.url.zoomOut());
    box.addEventListener("click", (e) => {
      const a = area(), mark = (box.packetlakeMarks || []).find((m) => {
        const [t0, t1] = box.packetlakeSpan, x = a.left + (m.at_us - t0) / (t1 - t0) * a.width;
        return Math.abs(x - e.clientX) < 8 && e.clientY < a.top + 18;
      });
      if (mark && mark.href) P.url.go(mark.href, {});
    });
  }

  // Points: {x: [...], y: [...]}, for histograms and scatter of a result.
  // `told`: what it shows as a table.
  function plot(target, traces, more, told) {
    draw(target, { data: traces, layout: layout(more) });
    if (told && hostOf(target)) P.asTable.tell(hostOf(target), told);
  }

  // Horizontal bars as plain elements. items: [{name, value, text?, colour?, field?, filter?}].
  function bars(target, items, options) {
    const box = P.byId(target), o = Object.assign({ format: (v) => F.bytes(v), share: true }, options);
    if (!box) return;
    const top = Math.max(...items.map((i) => i.value), 0) || 1, sum = items.reduce((s, i) => s + i.value, 0) || 1;
    if (!items.length) { P.empty(box, o.empty || "Nothing in this range."); return; }
    box.classList.add("bars");
    P.asTable.tell(box, () => ({ caption: o.label || (box.closest(".card") ? box.closest(".card").querySelector("h2").textContent : "Bars"), head: [{ title: "Name" }, { title: o.measure || "Value", number: true }], rows: items.map((i) => [i.name, i.value]) }));
    P.keepFocus(box, () => box.replaceChildren(...items.map((i) => el("div", { class: "bar-line" },
      i.cell || (i.field ? P.cell(i.field, i.filter === undefined ? i.name : i.filter, i.name) : el("span", { class: "bar-name", title: i.name }, i.name)),
      el("span", { class: "bar-track" }, el("i", { style: { width: `${(i.value / top * 58).toFixed(1)}%`, background: `var(${i.colour || colourName(i.name)})` } }),
        el("span", { class: "bar-text" }, `${i.text || o.format(i.value)}${o.share ? " · " + F.percent(i.value / sum) : ""}`))))));
    box.tabIndex = box.scrollHeight > box.clientHeight ? 0 : -1;  // what scrolls must be reachable by key
  }

  // A small line: values oldest first.
  function spark(target, values) {
    const node = P.byId(target);
    if (!node) return;
    const v = (values || []).map((x) => x || 0), step = Math.ceil(v.length / 60) || 1, points = [];
    for (let i = 0; i < v.length; i += step) { const part = v.slice(i, i + step); points.push(part.reduce((a, b) => a + b, 0) / part.length); }
    const top = Math.max(...points, 0);
    if (points.length < 2 || top <= 0) { node.replaceChildren(); return; }
    node.replaceChildren(el("svg", { viewBox: "0 0 64 20", preserveAspectRatio: "none" }, el("polyline", {
      points: points.map((p, i) => `${(i * 64 / (points.length - 1)).toFixed(1)},${(19 - 18 * p / top).toFixed(1)}`).join(" "),
      fill: "none", stroke: "var(--accent)", "stroke-width": "1.25", "stroke-linejoin": "round", "vector-effect": "non-scaling-stroke",
    })));
  }

  // Swatches and names; a click filters by it when a field is given.
  function legend(target, names, field, colours) {
    const box = P.byId(target);
    if (!box || box.dataset.names === names.join("|")) return;
    box.dataset.names = names.join("|");
    box.replaceChildren(...names.map((n) => el("span", { class: "key" }, el("span", { class: "swatch", style: { "--c": `var(${(colours && colours[n]) || colourName(n)})` } }), field ? P.cell(field, String(n).toLowerCase(), n) : n)));
  }

  // countries: [{iso3, name, value, text, filter}]; cities: [{lat, lon, value, text}].
  function map(target, countries, cities, options) {
    const top = Math.max(...countries.map((c) => c.value), 1), box = hostOf(target);
    if (!box) return;
    const low = Math.log10(Math.max(1, Math.min(...countries.map((c) => c.value)) / 2));
    const data = [{
      type: "choropleth", locations: countries.map((c) => c.iso3), z: countries.map((c) => Math.log10(Math.max(1, c.value))), zmin: Math.min(low, Math.log10(top) - 1), zmax: Math.log10(top),
      text: countries.map((c) => plain(`${c.name}: ${c.text}`)), hovertemplate: "%{text}<extra></extra>", showscale: false, colorscale: [[0, P.token("--map-0")], [0.5, P.token("--map-1")], [1, P.token("--map-2")]],
      marker: { line: { color: P.token("--surface"), width: 0.5 } },
    }];
    if (cities && cities.length) {
      const most = Math.max(...cities.map((c) => c.value), 1);
      data.push({
        type: "scattergeo", lat: cities.map((c) => c.lat), lon: cities.map((c) => c.lon), text: cities.map((c) => plain(c.text)), hovertemplate: "%{text}<extra></extra>", mode: "markers",
        marker: { size: cities.map((c) => 4 + 10 * Math.sqrt(c.value / most)), color: P.token("--high"), opacity: 0.6, line: { width: 0 } },
      });
    }
    const figure = { data, layout: layout({
      margin: { l: 0, r: 0, t: 0, b: 0 }, hovermode: "closest",
      geo: {
        fitbounds: false, projection: { type: "natural earth" }, lonaxis: { range: [-170, 190] }, lataxis: { range: [-57, 83] }, bgcolor: "rgba(0,0,0,0)",
        showframe: false, showcoastlines: false, showland: true, landcolor: P.token("--land"), showcountries: true, countrycolor: P.token("--surface"), showlakes: false, resolution: 110,
      },
    }) };
    P.asTable.tell(box, () => ({
      caption: (options && options.label) || "Places", head: [{ title: "Kind" }, { title: "Place" }, { title: (options && options.measure) || "Bytes", number: true }],
      rows: [...countries.map((c) => ["Country", c.name, c.value]), ...(cities || []).map((c) => ["City", c.name, c.value])],
    }));
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", `Map. ${countries.slice(0, 5).map((c) => `${c.name} ${c.text}`).join(", ") || "No located traffic"}`);
    draw(box, figure);
    if (box.packetlakeMap) return;
    box.packetlakeMap = true;
    box.addEventListener("click", (event) => {
      const plot = box.querySelector(".js-plotly-plot") || box, point = plot._hoverdata && plot._hoverdata[0];
      if (point && point.location && options && options.onCountry) options.onCountry(point.location, event.altKey);
    });
  }
  P.chart = { timeline, plot, bars, spark, legend, map, draw, colour, colourName, severity, plain, plotly };

  // A key figure made by parts.kpi: value and unit, a note, level "", "warn" or "bad", and a small line.
  P.kpi = function (id, given) {
    const box = P.byId(id);
    if (!box) return;
    const put = (selector, text) => { const n = box.querySelector(selector); if (n.textContent !== text) n.textContent = text; };
    put(".value", given.value === null || given.value === undefined ? "–" : String(given.value));
    put(".unit", given.unit || "");
    put(".kpi-note", given.note || "");
    box.dataset.level = given.level || "";
    if (given.spark) spark(box.querySelector(".spark"), given.spark);
  };
})();
