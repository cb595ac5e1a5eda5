// What a chart shows as a table, for those who cannot see it or want its numbers: from the menu of its card.
(function () {
  "use strict";
  const P = window.packetlake, el = P.el, known = new WeakMap();
  const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 6 });

  // tell(box, () => ({caption, head: [{title, time, number}], rows: [[...]]})): asked for when somebody wants the table.
  // Times are µs. A box that is a table itself says so with `listed`: its card then offers the file only.
  function tell(box, of, listed) { known.set(box, { of, listed }); box.dataset.told = listed ? "list" : "chart"; }
  const shown = (column, v) => v === null || v === undefined || v === "" ? "–" : column.time ? P.format.dateTime(v) : column.number ? number.format(v) : String(v);
  const plain = (column, v) => v === null || v === undefined ? "" : column.time ? new Date(v / 1000).toISOString() : v;

  // Cells that a spreadsheet would calculate are quoted as the server does it.
  P.csv = function (name, head, rows) {
    const cell = (v) => { const t = v === null || v === undefined ? "" : String(v), safe = typeof v === "string" && /^[=+\-@\t\r\n]/.test(t) ? `'${t}` : t; return /[",\n\r]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe; };
    const url = URL.createObjectURL(new Blob([[head, ...rows].map((r) => r.map(cell).join(",")).join("\r\n") + "\r\n"], { type: "text/csv" })), link = el("a", { href: url, download: `${name}.csv` });
    document.body.append(link); link.click(); link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  };
  function save(told) {
    P.csv(told.caption.toLowerCase().replace(/[^a-z0-9]+/g, "-"), told.head.map((c) => c.title), told.rows.map((r) => r.map((v, i) => plain(told.head[i], v))));
  }
  function show(told) {
    const side = (c) => c.number ? "number" : null, zone = P.format.zone();
    const table = el("table", {}, el("caption", { class: "hidden" }, told.caption),
      el("thead", {}, el("tr", {}, told.head.map((c) => el("th", { scope: "col", class: side(c) }, c.time ? `${c.title} (${zone})` : c.title)))),
      el("tbody", {}, told.rows.map((r) => el("tr", {}, r.map((v, i) => el(i ? "td" : "th", { class: side(told.head[i]), scope: i ? null : "row" }, shown(told.head[i], v)))))));
    const box = P.modal(told.caption, [el("p", { class: "note" }, told.rows.length ? "As it was when this was opened." : "Nothing in this range."), el("div", { class: "as-table", tabindex: "0", role: "region", "aria-label": told.caption }, table)],
      [{ text: "Download CSV", act: () => { save(told); return false; } }, { text: "Close", primary: true }]);
    box.classList.add("wide");
  }
  // The items of a card's menu. `from` is its button, to which the focus returns.
  P.asTable = { tell, items(from) {
    const boxes = [...from.closest(".card").querySelectorAll("[data-told]")].filter((b) => known.has(b) && b.offsetParent), of = (b) => known.get(b).of();
    const charts = boxes.filter((b) => !known.get(b).listed), file = from.dataset.question ? [] : boxes;
    const more = (b, all) => all.length > 1 ? `: ${of(b).caption}` : "";
    return [
      ...charts.map((b) => ({ text: `View as table${more(b, charts)}`, icon: "table", act: () => { from.focus(); show(of(b)); } })),
      ...file.map((b) => ({ text: `Export CSV${more(b, file)}`, icon: "download", act: () => { from.focus(); save(of(b)); } })),
    ];
  } };
})();
