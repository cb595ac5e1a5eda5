// Values that filter, and two tables: `table` for short lists, `grid` for endless ones.
(function () {
  "use strict";
  const P = window.packetlake, el = P.el, ROW = 26, MAX_HEIGHT = 6000000;

  // A value: click keeps only it, Alt-click leaves it out, right-click or the menu key offers more.
  P.cell = function (field, value, text, more) {
    if (value === null || value === undefined || value === "") return el("span", { class: "muted" }, text || "–");
    return el("button", { type: "button", class: "value", "data-field": field, "data-value": String(value), title: `Click: only this. Alt-click: without it.`, ...more }, text === undefined ? String(value) : text);
  };
  const HOSTS = new Set(["host", "src", "dst"]);
  function choices(field, value) {
    const list = [
      { text: `Only ${field}=${value}`, icon: "filter", act: () => P.url.add(field, value) },
      { text: `Without ${field}=${value}`, icon: "exclude", act: () => P.url.add(field, value, true) },
      { text: "Copy", icon: "copy", act: () => P.copy(value) }, "-",
    ];
    const pivot = (name, path, changes, label) => document.querySelector(`[data-nav=${name}]`) && list.push({ text: label, icon: name, act: () => P.url.go(path, changes) });
    const term = `${field}=${/^[^\s,"]+$/.test(value) ? value : `"${value.replace(/"/g, '""')}"`}`;
    if (HOSTS.has(field)) pivot("hosts", "/hosts/" + encodeURIComponent(value), {}, "Open this host");
    pivot("packets", "/packets", { filter: term }, "Its packets");
    pivot("flows", "/flows", { filter: term }, "Its flows");
    return list;
  }
  document.addEventListener("click", (e) => {
    const v = e.target.closest(".value");
    if (v && !e.defaultPrevented) { e.preventDefault(); P.url.add(v.dataset.field, v.dataset.value, e.altKey); }
  });
  document.addEventListener("contextmenu", (e) => {
    const v = e.target.closest(".value");
    if (!v) return;
    e.preventDefault();
    P.menu(e.clientX || e.clientY ? { x: e.clientX, y: e.clientY } : v, choices(v.dataset.field, v.dataset.value), "This value");
  });
  P.valueMenu = (at, field, value) => P.menu(at, choices(field, String(value)), "This value");

  // columns: [{name, title, number, width, mono, field (a value that filters), value(row) for the filter,
  //            format(value, row) -> text or element, bar: true, sort: key}].
  function content(column, row) {
    const value = row[column.name], shown = column.format ? column.format(value, row) : value;
    if (shown instanceof Node) return shown;
    const text = shown === null || shown === undefined || shown === "" ? "–" : String(shown);
    return column.field && text !== "–" ? P.cell(column.field, column.value ? column.value(row) : value, text) : text;
  }
  function heading(column, state, onSort) {
    const cls = column.number ? "number" : "", width = column.width ? { width: typeof column.width === "number" ? `${column.width}px` : column.width } : {};
    if (!column.sort || !onSort) return el("th", { class: cls, style: width, scope: "col" }, column.title);
    const at = state && state.sort === column.sort, down = at && state.desc;
    return el("th", { class: cls, style: width, scope: "col", "aria-sort": at ? (down ? "descending" : "ascending") : "none" },
      el("button", { type: "button", class: "sort", onclick: () => onSort(column.sort, at ? !down : true) }, column.title, at ? (down ? " ↓" : " ↑") : ""));
  }
  // options: {columns, rows (list of objects or columns), key(row), onRow(row), selected, sorted: {sort, desc}, onSort, empty, caption}
  P.table = function (target, options) {
    const box = P.byId(target);
    if (!box) return;
    const o = options, list = Array.isArray(o.rows) ? o.rows : P.rows(o.rows);
    if (!list.length) { P.empty(box, o.empty || "Nothing in this range.", o.actions); return; }
    const top = {};
    for (const c of o.columns) if (c.bar) top[c.name] = Math.max(...list.map((r) => Number(r[c.name]) || 0), 1);
    const line = (row) => {
      const tr = el("tr", { class: [o.onRow ? "clickable" : "", o.key && o.key(row) === o.selected ? "selected" : ""].join(" ").trim() || null, tabindex: o.onRow ? "0" : null },
        o.columns.map((c) => el("td", { class: [c.number ? "number" : "", c.mono ? "mono" : ""].join(" ").trim() || null, title: typeof row[c.name] === "string" ? row[c.name] : null },
          c.bar ? el("span", { class: "bar" }, el("i", { style: { width: `${(100 * (row[c.name] || 0) / top[c.name]).toFixed(1)}%` } }), el("span", {}, content(c, row))) : content(c, row))));
      if (o.onRow) {
        tr.addEventListener("click", (e) => { if (!e.target.closest("button, a, input")) o.onRow(row, tr); });
        tr.addEventListener("keydown", (e) => { if (e.key === "Enter" && e.target === tr) { e.preventDefault(); o.onRow(row, tr); } });
      }
      return tr;
    };
    P.asTable.tell(box, () => ({ caption: o.caption || "Table", head: o.columns.map((c) => ({ title: c.title, number: c.number, time: /(^|_)(ts|last|first|seen)$/.test(c.name) })), rows: list.map((r) => o.columns.map((c) => r[c.name])) }), true);
    const kept = box.scrollTop;
    P.keepFocus(box, () => box.replaceChildren(el("table", {}, o.caption ? el("caption", { class: "hidden" }, o.caption) : null,
      el("thead", {}, el("tr", {}, o.columns.map((c) => heading(c, o.sorted, o.onSort)))), el("tbody", {}, list.map(line)))));
    box.scrollTop = kept;
  };

  // An endless grid. options: {columns, load(offset, limit, signal) -> {total, rows}, onSelect(row, index), onOpen(row, index),
  // rowClass(row), block, empty, label, sorted, onSort}. Returns {reload(keep), select(index), selected, total, destroy}.
  P.grid = function (target, options) {
    const box = P.byId(target), o = Object.assign({ block: 200, label: "Rows" }, options);
    let total = 0, top = 0, chosen = -1, blocks = new Map(), pending = new Map(), generation = 0, expected = -1;
    const head = el("div", { class: "grid-head", role: "row", id: `${box.id}-head` }), body = el("div", { class: "grid-rows" }), spacer = el("div", { class: "grid-spacer" });
    const view = el("div", { class: "grid-view", tabindex: "0", role: "grid", "aria-owns": head.id, "aria-label": o.label }, spacer, body);
    box.classList.add("grid");
    box.replaceChildren(head, view);
    const widths = o.columns.map((c) => c.width ? (typeof c.width === "number" ? `${c.width}px` : c.width) : "minmax(80px, 1fr)").join(" ");
    const space = () => ({ "grid-template-columns": widths });
    function drawHead() {
      for (const [k, v] of Object.entries(space())) head.style.setProperty(k, v);
      head.replaceChildren(...o.columns.map((c) => {
        const at = o.sorted && c.sort && o.sorted.sort === c.sort;
        return el("span", { class: c.number ? "number" : null, role: "columnheader", "aria-sort": at ? (o.sorted.desc ? "descending" : "ascending") : null },
          c.sort && o.onSort ? el("button", { type: "button", class: "sort", onclick: () => o.onSort(c.sort, at ? !o.sorted.desc : true) }, c.title, at ? (o.sorted.desc ? " ↓" : " ↑") : "") : c.title);
      }));
    }
    // What is said instead of rows stands in a row, too: a grid has nothing else.
    const said = () => { if (body.firstElementChild.className === "empty") body.replaceChildren(el("div", { role: "row" }, el("div", { role: "gridcell" }, ...body.childNodes))); };
    const visible = () => Math.max(1, Math.floor(view.clientHeight / ROW)), lastTop = () => Math.max(0, total - visible());
    const height = () => Math.min(total * ROW, MAX_HEIGHT), scaled = () => total * ROW > MAX_HEIGHT;
    function setTop(row, fromScroll) {
      top = Math.min(lastTop(), Math.max(0, row));
      if (!fromScroll) {
        view.scrollTop = scaled() ? (top / Math.max(1, lastTop())) * (height() - view.clientHeight) : top * ROW;
        expected = view.scrollTop;  // the event that follows is ours
      }
      draw();
    }
    view.addEventListener("scroll", () => {
      if (view.scrollTop === expected) return;
      expected = -1;
      setTop(scaled() ? view.scrollTop / Math.max(1, height() - view.clientHeight) * lastTop() : view.scrollTop / ROW, true);
    });
    view.addEventListener("wheel", (e) => { if (scaled() && !e.shiftKey) { e.preventDefault(); setTop(top + e.deltaY / ROW); } }, { passive: false });
    function need(block) {
      if (blocks.has(block) || pending.has(block)) return;
      const control = new AbortController(), mine = generation;
      pending.set(block, control);
      o.load(block * o.block, o.block, control.signal).then((got) => {
        if (mine !== generation) return;
        const list = Array.isArray(got.rows) ? got.rows : P.rows(got.rows);
        blocks.set(block, list);
        while (blocks.size > 24) blocks.delete(blocks.keys().next().value);
        if (got.total !== undefined && got.total !== total) { total = got.total; resize(); }
        draw();
      }, (error) => { if (mine === generation && error.name !== "AbortError") { P.failed(body, error, () => reload(true)); said(); } }).finally(() => { if (pending.get(block) === control) pending.delete(block); });
    }
    const ask = P.debounce(() => {
      const first = Math.floor(top / o.block), last = Math.floor((top + visible()) / o.block);
      for (const [b, control] of pending) if (b < first - 1 || b > last + 1) { control.abort(); pending.delete(b); }
      for (let b = first; b <= last; b += 1) if (b * o.block < total || b === 0) need(b);
    }, 40);
    const rowAt = (i) => { const b = blocks.get(Math.floor(i / o.block)); return b ? b[i % o.block] : undefined; };
    function draw() {
      ask();
      view.setAttribute("aria-rowcount", String(total));
      if (total === 0) { if (blocks.has(0)) { P.empty(body, o.empty || "Nothing in this range."); said(); } body.style.transform = ""; return; }
      const first = Math.floor(top), lines = [];
      for (let i = first; i < Math.min(total, first + visible() + 2); i += 1) {
        const row = rowAt(i);
        lines.push(el("div", { class: ["grid-row", i === chosen ? "selected" : "", row && o.rowClass ? o.rowClass(row) : ""].join(" ").trim(), role: "row", id: `${box.id}-row-${i}`, "data-row": i, "aria-rowindex": i + 1, "aria-selected": i === chosen ? "true" : "false", style: space() },
          o.columns.map((c) => el("span", { class: [c.number ? "number" : "", c.mono ? "mono" : ""].join(" ").trim() || null, role: "gridcell", title: row && typeof row[c.name] === "string" ? row[c.name] : null }, row ? content(c, row) : el("i", { class: "wait" })))));
      }
      body.replaceChildren(...lines);
      body.style.transform = `translateY(${view.scrollTop - (top - first) * ROW}px)`;
      if (chosen >= first && chosen < first + lines.length) view.setAttribute("aria-activedescendant", `${box.id}-row-${chosen}`);
    }
    const told = P.debounce((i) => { const row = rowAt(i); if (row && o.onSelect) o.onSelect(row, i); }, 80);
    function select(i, quiet) {
      if (!total) return;
      chosen = Math.min(total - 1, Math.max(0, i));
      if (chosen < top) setTop(chosen); else if (chosen > top + visible() - 1) setTop(chosen - visible() + 1); else draw();
      if (!quiet) { if (rowAt(chosen)) told(chosen); else setTimeout(() => told(chosen), 250); }
    }
    view.addEventListener("click", (e) => { const r = e.target.closest(".grid-row"); if (r && !e.target.closest("button, a")) { select(Number(r.dataset.row)); } });
    view.addEventListener("dblclick", (e) => { const r = e.target.closest(".grid-row"); if (r && o.onOpen && rowAt(Number(r.dataset.row))) o.onOpen(rowAt(Number(r.dataset.row)), Number(r.dataset.row)); });
    view.addEventListener("keydown", (e) => {
      const page = visible() - 1, to = { ArrowDown: chosen + 1, ArrowUp: chosen - 1, j: chosen + 1, k: chosen - 1, PageDown: chosen + page, PageUp: chosen - page, Home: 0, End: total - 1 }[e.key];
      if (to !== undefined && !e.ctrlKey && !e.metaKey && e.target === view) { e.preventDefault(); e.stopPropagation(); select(to); }
      if (e.key === "Enter" && e.target === view && chosen >= 0 && o.onOpen && rowAt(chosen)) { e.preventDefault(); o.onOpen(rowAt(chosen), chosen); }  // else the same key presses what gets the focus
    });
    function resize() { spacer.style.height = `${height()}px`; if (top > lastTop()) setTop(lastTop()); }
    const watcher = new ResizeObserver(() => { resize(); draw(); });
    watcher.observe(view);
    // Ask for everything again; `keep` stays where it is, else it goes to the top and selects nothing.
    function reload(keep) {
      generation += 1;
      for (const control of pending.values()) control.abort();
      pending = new Map(); blocks = new Map();
      if (!keep) { top = 0; chosen = -1; view.scrollTop = 0; total = 0; body.replaceChildren(); resize(); }
      drawHead();
      ask();
    }
    // The first block as it is now, and how many rows there are; of the others nothing is known any more.
    function put(list, count, keep) {
      generation += 1;
      for (const control of pending.values()) control.abort();
      pending = new Map(); blocks = new Map([[0, list]]); total = count;
      if (!keep) { chosen = -1; top = 0; view.scrollTop = 0; }
      resize();
      drawHead();
      draw();
    }
    function setTotal(count) { if (count !== total) { total = count; resize(); draw(); } }
    reload(false);
    return { reload, put, setTotal, view, get top() { return top; }, select, redraw: () => { drawHead(); draw(); }, set: (more) => Object.assign(o, more), row: rowAt, get selected() { return chosen; }, get total() { return total; }, destroy: () => { generation += 1; watcher.disconnect(); } };
  };
})();
