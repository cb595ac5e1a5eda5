// The stacked timeline as a Plotly figure, and the small lines in the key figures.
(function () {
  "use strict";
  const P = window.packetlake;
  P.CLASSES = [["TCP", "--c-tcp"], ["UDP", "--c-udp"], ["ICMP", "--c-icmp"], ["ARP", "--c-arp"], ["Other", "--c-other"]];

  P.totals = function (timeline) {
    const columns = Object.values(timeline.series);
    return timeline.bits.map((_, i) => columns.reduce((sum, c) => sum + c[i], 0));
  };

  P.timelineFigure = function (snap) {
    const t = snap.timeline, n = t.bits.length;
    const x = Array.from({ length: n + 1 }, (_, i) => P.iso((t.start + i * t.step) * 1000).slice(0, 19));
    const grid = P.token("--border"), soft = P.token("--text-3");
    const totals = P.totals(t);
    const empty = n === 0 || !totals.some((v) => v > 0);
    const data = empty ? [] : P.CLASSES.map(([name, colour]) => ({
      type: "scatter", mode: "lines", stackgroup: "one", name, x, y: [...t.series[name], t.series[name][n - 1]],
      line: { shape: "hv", width: 0 }, fillcolor: P.token(colour), hovertemplate: "%{y:,.1f}/s",
    }));
    return {
      data,
      layout: {
        template: {}, autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
        margin: { l: 52, r: 14, t: 6, b: 26 }, hovermode: "x unified", dragmode: false,
        font: { family: "Inter, system-ui, sans-serif", size: 11.5, color: P.token("--text-2") },
        hoverlabel: { bgcolor: P.token("--surface"), bordercolor: grid, font: { color: P.token("--text"), size: 11.5 } },
        xaxis: {
          type: "date", range: [x[0], x[n]], fixedrange: true, showgrid: false, zeroline: false, showline: true,
          linecolor: grid, tickformat: snap.range_s > 900 ? "%H:%M" : "%H:%M:%S", hoverformat: "%H:%M:%S",
          nticks: 12, tickfont: { color: soft }, visible: !empty, ticklabelstandoff: 3,
        },
        yaxis: {
          rangemode: "tozero", fixedrange: true, nticks: 4, gridcolor: grid, zeroline: false, tickformat: "~s",
          tickfont: { color: soft }, visible: !empty, ticklabelstandoff: 6,
        },
      },
    };
  };

  P.spark = function (node, values) {
    const step = Math.ceil(values.length / 60) || 1, points = [];
    for (let i = 0; i < values.length; i += step) {
      const part = values.slice(i, i + step);
      points.push(part.reduce((a, b) => a + b, 0) / part.length);
    }
    const top = Math.max(...points, 0);
    if (points.length < 2 || top <= 0) { node.replaceChildren(); return; }
    const ns = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(ns, "svg"), line = document.createElementNS(ns, "polyline");
    svg.setAttribute("viewBox", "0 0 64 20");
    line.setAttribute("points", points.map((v, i) => `${(i * 64 / (points.length - 1)).toFixed(1)},${(19 - 18 * v / top).toFixed(1)}`).join(" "));
    line.setAttribute("fill", "none");
    line.setAttribute("stroke", P.token("--accent"));
    line.setAttribute("stroke-width", "1.25");
    line.setAttribute("stroke-linejoin", "round");
    svg.append(line);
    node.replaceChildren(svg);
  };
})();
