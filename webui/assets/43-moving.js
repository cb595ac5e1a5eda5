// A grid over a range that may move. The feed brings the first rows each second; while rows are chosen or the list is
// scrolled it stands still, at the range it then had, until Resume. Rows further down come by number, of that same range.
(function () {
  "use strict";
  const P = window.packetlake;

  // How long the lake worked on the newest answer of a question, as the server says, milliseconds.
  const took = {};
  new PerformanceObserver((entries) => {
    for (const e of entries.getEntries()) {
      const question = (/\/api\/v1\/(\w+)\?/.exec(e.name) || [])[1], lake = (e.serverTiming || []).find((t) => t.name === "lake");
      if (question && lake) { took[question] = lake.duration; P.emit("took", question); }
    }
  }).observe({ type: "resource" });
  P.took = (question) => took[question] === undefined ? "" : took[question] < 1 ? "<1 ms" : `${Math.round(took[question])} ms`;

  // options: {grid (of P.grid's options), question, params(), block(offset, limit) -> parameters of a block, resume (a button's id),
  // first(answer, rows) -> {total, end}, newer(rows, view), changed(view, answer, same), onSelect(row, index)}.
  P.movingGrid = function (target, options) {
    const o = options;
    let view = null, given = null, last = null, freeze = false;
    const keyOf = () => JSON.stringify([P.url.range(), P.url.filter(), o.params()]);
    const button = P.byId(o.resume);
    const grid = P.grid(target, Object.assign({}, o.grid, {
      load: async (offset, limit, signal) => ({
        rows: (await P.feed.ask(o.question, Object.assign({ range: view.range, filter: view.filter }, o.params(), o.block(offset, limit)), { signal })).rows,
      }),
      onSelect: (row, i) => { freeze = true; tell(null); if (o.onSelect) o.onSelect(row, i); },
    }));
    const held = () => view !== null && P.url.live() && view.key === keyOf() && (freeze || grid.top > 0);
    // Whether it stands still, and how much has come since.
    function tell(answer) {
      if (!button) return;
      const stands = held(), n = stands && answer ? o.newer(P.rows(answer.rows), view) : 0;
      button.hidden = !stands;
      button.textContent = n ? `${n} newer: resume` : "Resume";
    }
    grid.view.addEventListener("scroll", () => tell(null));
    function adopt(answer) {
      const rows = P.rows(answer.rows), got = o.first(answer, rows), same = view !== null && view.key === keyOf();
      view = { key: keyOf(), filter: P.url.filter(), range: `${answer.range.start},${got.end}`, start: answer.range.start, end: got.end, rows: rows.length };
      given = answer;
      if (!same) freeze = false;
      grid.put(rows, got.total, same && !P.url.live());
      o.changed(view, answer, same);
    }
    // Go on with what came last; the next answer is at most a second away.
    function resume() {
      freeze = false;
      view = null;
      if (last) adopt(last);
      tell(null);
    }
    if (button) button.addEventListener("click", resume);
    return {
      grid, resume,
      get view() { return view; }, get held() { return held(); },
      paint(answer) {
        last = answer;
        tell(answer);
        if (answer === given || held()) { grid.redraw(); return; }
        adopt(answer);
      },
      freeze() { freeze = true; tell(null); },
    };
  };
})();
