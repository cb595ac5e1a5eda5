// The address holds the whole state: page, range, filter, zone and the page's own parameters. Back and forward work.
(function () {
  "use strict";
  const P = window.packetlake, SHELL = new Set(["range", "filter", "tz"]);
  const QUICK = { "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "6h": 21600, "24h": 86400, "7d": 604800, "30d": 2592000 };
  const read = () => new URLSearchParams(location.search);

  const range = () => read().get("range") || P.recall("range", "5m");
  const filter = () => read().get("filter") || "";
  const zone = () => (read().get("tz") || P.recall("zone", "local")) === "utc" ? "utc" : "local";
  const live = () => /^\d+[smhd]$/.test(range());
  function query() { const own = {}; for (const [k, v] of read()) if (!SHELL.has(k)) own[k] = v; return own; }
  // [from, to] in µs of an absolute range, else null.
  function absolute() {
    const found = /^(-?\d+),(-?\d+)$/.exec(range());
    return found ? [Number(found[1]), Number(found[2])] : null;
  }
  function seconds() {
    const both = absolute(), found = /^(\d+)([smhd])/.exec(range());
    return both ? (both[1] - both[0]) / 1e6 : found ? Number(found[1]) * { s: 1, m: 60, h: 3600, d: 86400 }[found[2]] : 0;
  }

  function move(path, params, replace) {
    const text = params.toString(), to = path + (text ? "?" + text : "");
    if (to === location.pathname + location.search) return;
    history[replace ? "replaceState" : "pushState"](null, "", to);
    window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));  // what dcc.Location listens to
    P.emit("url");
  }
  // Change parameters; null takes one away. A step of history unless `replace`.
  function set(changes, replace) {
    const params = read();
    for (const [k, v] of Object.entries(changes)) { if (v === null || v === undefined || v === "") params.delete(k); else params.set(k, String(v)); }
    if (changes.range && /^\d+[smhd]$/.test(changes.range)) P.remember("range", changes.range);
    if (changes.tz) P.remember("zone", changes.tz);
    move(location.pathname, params, replace);
  }
  // Another page, with the same range, filter and zone. `changes` are its own parameters, or range and filter.
  function go(path, changes) {
    const params = new URLSearchParams(), now = read();
    for (const k of SHELL) if (now.has(k)) params.set(k, now.get(k));
    for (const [k, v] of Object.entries(changes || {})) { if (v === null || v === "") params.delete(k); else params.set(k, String(v)); }
    // A link to something else is about the same sensor, unless it says which.
    const given = params.get("filter") || "";
    if (!split(given).some(ofSensor)) { const all = [...sensorTerms(), given].filter(Boolean).join(" "); if (all) params.set("filter", all); }
    move(path, params, false);
  }

  // --- the range: brushing pauses, zooming out doubles, Live goes back to the last moving range -------------------
  const previous = [];
  let lastLive = P.recall("range", "5m");
  function setRange(text) {
    if (live()) lastLive = range();
    if (text !== range()) previous.push(range());
    if (previous.length > 50) previous.shift();
    set({ range: text });
  }
  const setAbsolute = (from, to) => setRange(`${Math.round(Math.min(from, to))},${Math.round(Math.max(from, to))}`);
  function zoomOut() {
    const both = absolute();
    if (both) { const half = (both[1] - both[0]) / 2; setAbsolute(both[0] - half, both[1] + half); return; }
    const now = seconds(), next = Object.entries(QUICK).find(([, s]) => s > now);
    if (next) setRange(next[0]);
  }
  function back() { const last = previous.pop(); if (last) set({ range: last }); }
  // The end of the live range that is shown, µs by the server's clock: this browser's may be another.
  let shown = null;
  P.on("answers", ({ answers }) => { const one = Object.values(answers).find((a) => a.range); if (one) shown = one.range.live ? one.range.end : null; });
  const moment = () => shown === null ? Date.now() * 1000 : shown;
  function toggleLive() {
    if (live()) setAbsolute(moment() - seconds() * 1e6, moment()); else setRange(lastLive);
  }

  // --- the filter: terms between spaces, quotes keep spaces together ----------------------------------------------
  const split = (text) => text.match(/(?:"(?:[^"]|"")*"?|[^\s"])+/g) || [];
  const terms = () => split(filter());
  const ofSensor = (term) => /^[-!]?sensor[=:!]/i.test(term), sensorTerms = () => terms().filter(ofSensor);
  const setTerms = (list) => set({ filter: list.join(" ") });
  const quoted = (value) => /^[^\s,"]+$/.test(value) ? value : `"${value.replace(/"/g, '""')}"`;
  const opposite = (term) => /^[-!]/.test(term) ? term.slice(1) : "-" + term;
  // add("src", "10.0.0.1") keeps only it; exclude leaves it out. Its opposite goes.
  function add(field, value, exclude) {
    const term = `${exclude ? "-" : ""}${field}=${quoted(String(value))}`;
    const kept = terms().filter((t) => t !== opposite(term) && t !== term);
    setTerms([...kept, term]);
  }
  const remove = (term) => setTerms(terms().filter((t) => t !== term));
  const negate = (term) => setTerms(terms().map((t) => t === term ? opposite(t) : t));

  window.addEventListener("popstate", () => P.emit("url"));
  // Links inside the dashboard keep range and filter, and load nothing anew.
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a[href^='/']");
    if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || link.hasAttribute("download") || link.target || link.pathname.startsWith("/api/")) return;
    event.preventDefault();
    go(link.pathname, Object.fromEntries(new URLSearchParams(link.search)));
  });
  P.url = { QUICK, split, range, filter, zone, live, query, absolute, seconds, set, go, setRange, setAbsolute, zoomOut, back, moment, toggleLive, terms, ofSensor, sensorTerms, quoted, add, remove, negate, opposite, setTerms };
})();
