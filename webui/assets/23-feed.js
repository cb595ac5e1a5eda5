// Questions to the API. A page's feeds are asked together, each second while live, never twice at once, never while
// the tab is hidden; a slow server is asked less often. A change of the address drops what is under way.
(function () {
  "use strict";
  const P = window.packetlake, TICK_MS = 1000, STALE_MS = 5000;
  let page = null, timer = 0, underway = null, arrived = Date.now(), failing = "", tags = {}, answers = {}, asked = {}, stopped = false;

  class Refusal extends Error { constructor(status, text) { super(text); this.status = status; } }

  const address = (question, params) => `/api/v1/${question}?${new URLSearchParams(Object.entries(params).filter(([, v]) => v !== undefined && v !== null && v !== ""))}`;
  const shared = () => ({ range: P.url.range(), filter: P.url.filter() });

  async function refusal(response) {
    if (response.status === 401) { location.assign("/login?next=" + encodeURIComponent(location.pathname + location.search)); }
    let text = `The server answered ${response.status}.`;
    try { text = (await response.json()).error || text; } catch (e) { /* not JSON */ }
    return new Refusal(response.status, text);
  }
  // One answer as an object: ask("packet", {source, frame_no}). Range and filter come along unless given.
  async function ask(question, params, options) {
    const response = await fetch(address(question, Object.assign(shared(), params)), Object.assign({ cache: "no-store" }, options));
    if (!response.ok) throw await refusal(response);
    return response.json();
  }
  // A change: post("alerts/ack", {id}). The gate wants to see that it comes from here, which the browser says.
  async function post(path, body, options) {
    const response = await fetch(`/api/v1/${path}`, Object.assign({ method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body || {}) }, options));
    if (!response.ok) throw await refusal(response);
    return response.status === 204 ? null : response.json();
  }

  async function poll(question, params, signal) {
    const url = address(question, params), headers = tags[question] && tags[question].url === url ? { "If-None-Match": tags[question].tag } : {};
    const response = await fetch(url, { cache: "no-store", signal, headers });
    if (response.status === 304) return false;
    if (!response.ok) throw await refusal(response);
    answers[question] = await response.json();
    tags[question] = { url, tag: response.headers.get("ETag") || "" };
    return true;
  }

  async function tick(everything) {
    clearTimeout(timer);
    if (document.hidden || underway || stopped) return;
    const began = performance.now(), control = new AbortController(), of = page;
    underway = control;
    const due = (q, every) => everything || !(q in asked) || began - asked[q] >= every * 1000 - 50;
    const wanted = [["state", { filter: P.url.sensorTerms().join(" ") }, 1]];
    if (of) for (const q of of.feeds) wanted.push([q, Object.assign(of.ranged ? shared() : {}, of.params(q)), of.every_s[q] || 1, true]);
    const asks = wanted.filter(([q, , every, pages]) => due(q, every) && (everything || !pages || !of.ranged || P.url.live()));
    const slow = setTimeout(() => document.documentElement.classList.add("loading"), 400);
    const outcomes = await Promise.allSettled(asks.map(([q, params]) => { asked[q] = began; return poll(q, params, control.signal); }));
    clearTimeout(slow);
    document.documentElement.classList.remove("loading");
    if (underway !== control) return;  // dropped: whoever did has begun anew
    underway = null;
    const fresh = new Set(), errors = {};
    outcomes.forEach((o, i) => { if (o.status === "fulfilled") { if (o.value) fresh.add(asks[i][0]); } else errors[asks[i][0]] = o.reason; });
    const lost = Object.values(errors).find((e) => !(e instanceof Refusal));
    if (lost) failing = lost.message; else { failing = ""; arrived = Date.now(); }
    if (fresh.has("state")) P.emit("state", answers.state);
    if (of && of === page) {
      const refused = of.feeds.filter((q) => errors[q] instanceof Refusal);
      P.emit("answers", { answers, fresh, errors, first: everything });
      if (!refused.length && of.feeds.length === 0) P.emit("idle");
    }
    const took = performance.now() - began;
    timer = setTimeout(tick, Math.max(TICK_MS - took, Math.min(took / 2, 10000), lost ? 2000 : 0));
  }
  // Ask everything now: the range, the filter, the page or a parameter has changed.
  function now() {
    if (underway) { underway.abort(); underway = null; }
    tick(true);
  }
  // Whoever signs out is refused from then on: nothing is asked any more, and the way back in asks who it is.
  function stop() {
    stopped = true;
    clearTimeout(timer);
    if (underway) { underway.abort(); underway = null; }
  }
  window.addEventListener("pageshow", (e) => { if (e.persisted && stopped) location.reload(); });
  function use(next) { page = next; answers = answers.state ? { state: answers.state } : {}; tags = {}; asked = {}; now(); }
  // Frees a page of the answers it has: a filter that changed must not show old rows as new ones.
  P.on("url", () => { if (page) now(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { arrived = Date.now(); now(); } });
  setInterval(() => {
    if (document.hidden) return;
    const late = Date.now() - arrived;
    P.emit("stale", late > STALE_MS && (failing || underway) ? Math.round(late / 1000) : 0);
  }, 1000);

  // Where an export or an explanation of a question is, with the present range, filter and the page's parameters.
  const exportUrl = (question, format, more) => address(question, Object.assign(shared(), page ? page.params(question) : {}, { format }, more));
  const explainUrl = (question, more) => address(question, Object.assign(shared(), page ? page.params(question) : {}, { explain: "sql" }, more));
  P.feed = { ask, post, now, use, stop, exportUrl, explainUrl, address, Refusal, get answers() { return answers; } };
})();
