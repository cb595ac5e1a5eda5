// Numbers and times as text. SI steps for packets and bits, bytes in B; a value and its unit are always apart.
// Times are microseconds since the epoch, as the API gives them, shown in the zone that the viewer chose.
(function () {
  "use strict";
  const P = window.packetlake, STEPS = ["", "k", "M", "G", "T", "P", "E"], THIN = " ";
  const known = (v) => v !== null && v !== undefined && !Number.isNaN(v);

  function si(value) {
    let step = 0, v = Math.abs(value);
    while (v >= 999.5 && step < STEPS.length - 1) { v /= 1000; step += 1; }
    const digits = step === 0 && Number.isInteger(v) ? 0 : v < 10 ? 2 : v < 100 ? 1 : step === 0 && v < 999.5 ? 1 : 0;
    return [(value < 0 ? "−" : "") + v.toFixed(digits), STEPS[step]];
  }
  const text = (value, unit) => { if (!known(value)) return "–"; const [v, s] = si(value); return `${v}${THIN}${s}${unit || ""}`.trim(); };
  const bytes = (value) => text(value, "B");
  const bits = (value) => text(value, "b/s");
  const count = (value) => known(value) ? Number(value).toLocaleString("en-US") : "–";
  const percent = (share) => !known(share) ? "–" : share > 0 && share < 0.01 ? `<1${THIN}%` : `${Math.round(share * 100)}${THIN}%`;

  function duration(seconds) {
    if (!known(seconds)) return "–";
    const s = Math.abs(seconds);
    if (s < 1e-3) return `${Math.round(s * 1e6)}${THIN}µs`;
    if (s < 1) return `${(s * 1e3).toFixed(s < 0.01 ? 2 : s < 0.1 ? 1 : 0)}${THIN}ms`;
    if (s < 90) return `${s.toFixed(s < 10 ? 2 : 0)}${THIN}s`;
    if (s < 5400) return `${Math.floor(s / 60)}${THIN}min ${Math.round(s % 60)}${THIN}s`;
    if (s < 172800) return `${Math.floor(s / 3600)}${THIN}h ${Math.round((s % 3600) / 60)}${THIN}min`;
    return `${(s / 86400).toFixed(1)}${THIN}days`;
  }
  function ago(seconds) {
    if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s ago`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
    if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
    return `${Math.round(seconds / 86400)} days ago`;
  }

  // --- times: every one on every page goes through here ---------------------------------------------------------
  const utc = () => P.url.zone() === "utc";
  const shiftMs = (ms) => utc() ? 0 : -new Date(ms).getTimezoneOffset() * 60000;
  const iso = (us) => { const ms = Math.floor(us / 1000); return new Date(ms + shiftMs(ms)).toISOString(); };
  const clock = (us) => iso(us).slice(11, 19);
  const clockMs = (us) => iso(us).slice(11, 23);
  const clockUs = (us) => `${iso(us).slice(11, 19)}.${String(((us % 1e6) + 1e6) % 1e6).padStart(6, "0")}`;
  const day = (us) => iso(us).slice(0, 10);
  const dateTime = (us) => known(us) ? `${day(us)} ${clock(us)}` : "–";
  // The day only where it is not today.
  const when = (us) => known(us) ? (day(us) === day(Date.now() * 1000) ? clock(us) : dateTime(us)) : "–";
  function zone(us) {
    if (utc()) return "UTC";
    const minutes = -new Date(us === undefined ? Date.now() : us / 1000).getTimezoneOffset();
    const hours = Math.floor(Math.abs(minutes) / 60), rest = Math.abs(minutes) % 60;
    return `UTC${minutes < 0 ? "−" : "+"}${hours}${rest ? ":" + String(rest).padStart(2, "0") : ""}`;
  }
  const span = (from, to) => `${when(from)} – ${day(from) === day(to) ? clock(to) : when(to)} ${zone(to)}`;
  // Of a field <input type="datetime-local">, and back, in the chosen zone.
  const toInput = (us) => iso(us).slice(0, 19);
  function fromInput(value) {
    if (!value) return NaN;
    return (utc() ? Date.parse(value + "Z") : new Date(value).getTime()) * 1000;
  }
  P.format = { si, text, bytes, bits, count, percent, duration, ago, iso, clock, clockMs, clockUs, day, dateTime, when, zone, span, toInput, fromInput };
})();
