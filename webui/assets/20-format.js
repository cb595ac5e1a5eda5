// Numbers and times as text. SI steps for packets and bits, bytes in B; a value and its unit are always apart.
window.packetlake = (function () {
  "use strict";
  const STEPS = ["", "k", "M", "G", "T", "P"];

  function si(value) {
    let step = 0, v = Math.abs(value);
    while (v >= 999.5 && step < STEPS.length - 1) { v /= 1000; step += 1; }
    const digits = step === 0 && Number.isInteger(v) ? 0 : v < 10 ? 2 : v < 100 ? 1 : step === 0 && v < 999.5 ? 1 : 0;
    return [v.toFixed(digits), STEPS[step]];
  }
  const text = (value, unit) => { const [v, s] = si(value); return `${v} ${s}${unit}`.trim(); };
  const percent = (share) => share > 0 && share < 0.01 ? "<1 %" : `${Math.round(share * 100)} %`;

  const state = { utc: false };
  try { state.utc = localStorage.getItem("packetlake-zone") === "utc"; } catch (e) { /* storage is off */ }
  const shift = (ms) => state.utc ? 0 : -new Date(ms).getTimezoneOffset() * 60000;
  const iso = (ms) => new Date(ms + shift(ms)).toISOString();
  const clock = (ms, millis) => iso(ms).slice(11, millis ? 23 : 19);
  const day = (ms) => iso(ms).slice(0, 10);
  function zone() {
    if (state.utc) return "UTC";
    const minutes = -new Date().getTimezoneOffset();
    if (minutes === 0) return "UTC+0";
    const hours = Math.floor(Math.abs(minutes) / 60), rest = Math.abs(minutes) % 60;
    return `UTC${minutes < 0 ? "−" : "+"}${hours}${rest ? ":" + String(rest).padStart(2, "0") : ""}`;
  }
  function ago(seconds) {
    if (seconds < 90) return `${Math.round(seconds)} s ago`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
    if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
    return `${Math.round(seconds / 86400)} days ago`;
  }

  // Every text from a packet goes in as a text node.
  function el(tag, options, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(options || {})) {
      if (name === "class") node.className = value;
      else if (name === "style") for (const [k, v] of Object.entries(value)) node.style.setProperty(k, v);
      else if (name === "onclick") node.addEventListener("click", value);
      else node.setAttribute(name, value);
    }
    node.append(...children.filter((c) => c !== null && c !== undefined));
    return node;
  }
  const byId = (id) => document.getElementById(id);
  function setText(id, value) { const n = byId(id); if (n && n.textContent !== value) n.textContent = value; }
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  return { si, text, percent, state, iso, clock, day, zone, ago, el, byId, setText, token };
})();
