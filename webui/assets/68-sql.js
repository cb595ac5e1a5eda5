// The SQL page: an editor with completion, what was saved and what ran, the schema, and the result as table or chart.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el;
  const START = "-- Who sent most in the last five minutes. Ctrl+Enter runs this.\nSELECT src_ip, dst_ip, app, count(*) AS packets, sum(wirelen) AS bytes\nFROM packets\nWHERE ts >= (SELECT max(ts) FROM packets) - INTERVAL 5 MINUTES\nGROUP BY ALL\nORDER BY bytes DESC\nLIMIT 100";
  const FIELDS = { src_ip: "src", dst_ip: "dst", ip: "host", client_ip: "host", server_ip: "host", address: "host", src: "src", dst: "dst", src_port: "sport", dst_port: "dport", port: "port", app: "app", server_name: "sni", flow_id: "flow" };
  const NARROW = 170, NUMBER = /^(u?int|float|double|decimal)/, TIME = /^timestamp/;
  let editor = null, grid = null, result = null, running = null, started = 0, timer = 0, book = { saved: [], history: [] }, schema = null, ran = "", zone = "";

  // --- the editor ---------------------------------------------------------------------------------------------------
  const theme = () => document.documentElement.dataset.theme === "dark" ? "ace/theme/cloud_editor_dark" : "ace/theme/cloud_editor";
  async function makeEditor(page) {
    await P.load("/assets/ace/ace.js");
    for (const name of ["ext-language_tools", "mode-sql", "theme-cloud_editor", "theme-cloud_editor_dark", "ext-searchbox"]) await P.load(`/assets/ace/${name}.js`);
    if (!page.root.isConnected) return;
    window.ace.config.set("basePath", "/assets/ace");
    editor = window.ace.edit("sql-editor", {
      mode: "ace/mode/sql", theme: theme(), fontSize: 12.5, showPrintMargin: false, tabSize: 2, useSoftTabs: true, wrap: true,
      enableBasicAutocompletion: true, enableLiveAutocompletion: true, fontFamily: "JetBrains Mono, monospace", highlightActiveLine: true, useWorker: false, scrollPastEnd: 0,
    });
    editor.completers = [{ getCompletions: complete, identifierRegexps: [/[\w.]/] }];
    editor.commands.addCommand({ name: "run", bindKey: { win: "Ctrl-Enter", mac: "Command-Enter" }, exec: run });
    editor.commands.addCommand({ name: "leave", bindKey: "Esc", exec: () => { editor.blur(); P.byId("sql-run").focus(); } });  // Tab indents: this is the way out
    const text = editor.textInput.getElement();
    text.setAttribute("aria-label", "SQL. Escape leaves the editor.");
    editor.session.on("change", () => { unmark(); P.remember("sql", editor.getValue().slice(0, 20000)); });
    const asked = page.query.q;
    editor.setValue(asked || P.recall("sql", "") || START, -1);
    editor.focus();
    P.byId("sql-run").disabled = false;
    if (asked) run();
  }
  // Columns of the tables that the text names come first, those of all others after.
  function complete(_editor, session, position, _prefix, done) {
    if (!schema) { done(null, []); return; }
    const text = session.getValue().toLowerCase(), found = [], before = session.getLine(position.row).slice(0, position.column), dotted = /(\w+)\.\w*$/.exec(before);
    const item = (caption, meta, score, value, about) => ({ caption, value: value || caption, meta, score, docText: about || undefined });
    for (const t of schema.tables) {
      const used = new RegExp(`\\b${t.name}\\b`).test(text), own = dotted && dotted[1].toLowerCase() === t.name;
      if (dotted && !own) continue;
      if (!dotted) found.push(item(t.name, t.stored ? "table" : "view", 900));
      if (used || own) for (const c of t.columns) found.push(item(c.name, `${t.name} · ${c.type.toLowerCase()}`, own ? 1000 : 800, own ? `${t.name}.${c.name}` : c.name, c.about));
    }
    if (!dotted) {
      for (const f of schema.functions) found.push(item(f.call, "function", 500, f.name + "("));
      for (const w of WORDS) found.push(item(w, "SQL", 300));
    }
    done(null, found);
  }
  const WORDS = "SELECT FROM WHERE GROUP BY ALL ORDER BY DESC LIMIT HAVING JOIN LEFT JOIN ON USING AS AND OR NOT IN BETWEEN LIKE IS NULL CASE WHEN THEN ELSE END WITH DISTINCT count(*) sum( avg( min( max( quantile_cont( approx_count_distinct( date_trunc( time_bucket( INTERVAL EXPLAIN ANALYZE DESCRIBE SUMMARIZE QUALIFY PIVOT UNNEST".split(/ (?!BY|ALL$|JOIN)/);

  // --- running ------------------------------------------------------------------------------------------------------
  function status(text) { P.setText("sql-status", text); }
  function unmark() {
    P.byId("sql-error").hidden = true;
    if (editor) { editor.session.clearAnnotations(); for (const [id, m] of Object.entries(editor.session.getMarkers(false) || {})) if (m.clazz === "sql-wrong") editor.session.removeMarker(Number(id)); }
  }
  function busy(on) {
    P.byId("sql-run").disabled = on;
    P.byId("sql-cancel").hidden = !on;
    clearInterval(timer);
    if (on) { started = performance.now(); timer = setInterval(() => status(`running, ${((performance.now() - started) / 1000).toFixed(1)} s`), 200); }
  }
  async function run() {
    if (!editor || running) return;
    const sql = editor.getSelectedText().trim() || editor.getValue(), offset = editor.getSelectedText().trim() ? editor.getSelectionRange().start.row : 0, id = crypto.randomUUID ? crypto.randomUUID() : `r${Date.now()}`;
    unmark();
    running = id;
    busy(true);
    if (!result) P.loading("sql-result", 8);
    try {
      const answer = await P.feed.post("sql", { sql, id, tell: true });
      if (running !== id) return;
      if (answer.error) { failed(answer, offset); return; }
      result = answer; ran = sql;
      status(`${F.count(answer.count)} ${answer.count === 1 ? "row" : "rows"} · ${F.duration(answer.ms / 1000)}${answer.truncated ? ` · only the first ${F.count(answer.count)} are shown; the export has all` : ""}`);
      show();
    } catch (error) {
      if (running !== id) return;
      failed(error, offset);
    } finally {
      if (running === id) { running = null; if (P.byId("sql-run")) { busy(false); loadBook(); } }
    }
  }
  function failed(error, offset) {
    status("");
    if (!result) show();
    const box = P.byId("sql-error"), message = error.error || error.message, found = / — line (\d+)/.exec(message), line = error.line || (found && Number(found[1]));
    box.hidden = false;
    box.textContent = message.replace(/^SQL: /, "").replace(/ — line \d+/, ` — line ${line + offset}`) + (line && !found ? ` — line ${line + offset}` : "");
    if (!line || !editor) return;
    const row = Math.min(editor.session.getLength(), line + offset) - 1;
    editor.session.setAnnotations([{ row, column: 0, text: message, type: "error" }]);
    const Range = window.ace.require("ace/range").Range;
    editor.session.addMarker(new Range(row, 0, row, 1), "sql-wrong", "fullLine");
    editor.scrollToLine(row, true, false);
  }
  // Until the server knows of it: it may not have begun yet.
  async function cancel() {
    const id = running;
    for (let tries = 0; id && running === id && tries < 20; tries += 1) {
      try { if ((await P.feed.post("sql/cancel", { id })).cancelled) return; } catch (e) { P.toast(e.message, { level: "bad" }); return; }
      await new Promise((done) => setTimeout(done, 250));
    }
  }

  // --- the result ---------------------------------------------------------------------------------------------------
  function shown(value, type) {
    if (value === null || value === undefined) return "";
    if (TIME.test(type)) return `${F.day(value)} ${F.clockUs(value)}`;
    if (typeof value === "object") return JSON.stringify(value);
    return String(value);
  }
  function value(column, raw, text) {
    const field = FIELDS[column.name.toLowerCase()];
    if (raw === null || raw === undefined) return el("span", { class: "muted" }, "NULL");
    if (!field || text === "") return text;
    return el("button", { type: "button", class: "pivot", title: "What else is there about it", onclick: (e) => { e.stopPropagation(); P.valueMenu(e.currentTarget, field, raw); } }, text);
  }
  const widthOf = (column, i) => {
    let most = column.name.length + 1;
    for (const row of result.rows.slice(0, 200)) most = Math.max(most, shown(row[i], column.type).length);
    return Math.min(420, Math.max(64, Math.round(most * 7.2) + 22));
  };
  function show() {
    const box = P.byId("sql-result"), view = P.tab("sql-view");
    P.byId("sql-export").disabled = !result || !result.columns.length;
    P.byId("sql-chart-view").hidden = view !== "chart";
    box.hidden = view === "chart";
    if (grid) { grid.destroy(); grid = null; }
    if (!result) { P.empty(box, "No result yet. Write a query, or take one from the left, and press Run.", [{ text: "Run", act: run }]); P.byId("sql-axes").replaceChildren(); P.empty("sql-chart", "No result yet.", []); return; }
    if (view === "chart") { axes(); return; }
    if (!result.columns.length) { P.empty(box, "Done. It has no rows to show.", []); return; }
    if (!result.rows.length) { P.empty(box, `No rows. Columns: ${result.columns.map((c) => c.name).join(", ")}.`, []); return; }
    const inner = el("div", { class: "sql-grid", id: "sql-grid" });
    box.replaceChildren(inner);
    // Long values give way down to NARROW; what does not fit then scrolls sideways.
    const widths = result.columns.map(widthOf);
    inner.style.minWidth = `${widths.reduce((sum, w) => sum + Math.min(w, NARROW), 24)}px`;
    const columns = result.columns.map((c, i) => ({ name: c.name, title: c.name, mono: true, number: NUMBER.test(c.type), width: `minmax(${Math.min(widths[i], NARROW)}px, ${widths[i]}fr)`, format: (_, row) => value(c, row[i], shown(row[i], c.type)) }));
    grid = P.grid(inner, { columns, label: "Result", load: async (offset, limit) => ({ total: result.rows.length, rows: result.rows.slice(offset, offset + limit) }), onOpen: open });
  }
  // All of one row, each value in full.
  function open(row) {
    P.drawer("Row", el("div", { class: "fields sql-row" }, result.columns.flatMap((c, i) => [el("span", { class: "muted" }, c.name), el("span", { class: "mono" }, value(c, row[i], shown(row[i], c.type)))])));
  }

  // --- the chart ----------------------------------------------------------------------------------------------------
  let chosen = {};
  function axes() {
    const names = result.columns.map((c) => c.name), numbers = result.columns.map((c, i) => [c, i]).filter(([c]) => NUMBER.test(c.type)).map(([, i]) => i);
    const box = P.byId("sql-axes");
    if (!result.rows.length || !numbers.length) { box.replaceChildren(); P.empty("sql-chart", result.rows.length ? "A chart needs a column of numbers." : "No rows.", []); return; }
    const time = result.columns.findIndex((c) => TIME.test(c.type)), other = names.findIndex((_, i) => !numbers.includes(i));
    const usual = { x: time >= 0 ? time : other >= 0 ? other : 0, y: numbers[numbers.length - 1], kind: time >= 0 ? "line" : "bar" };
    const known = names.join("\0");
    if (chosen.known !== known) chosen = { known, ...usual };
    const select = (label, key, options) => el("label", {}, label, el("select", { class: "field", "aria-label": label, onchange: (e) => { chosen[key] = key === "kind" ? e.target.value : Number(e.target.value); draw(); } },
      options.map(([v, text]) => el("option", { value: v, selected: String(chosen[key]) === String(v) }, text))));
    box.replaceChildren(select("Type", "kind", [["bar", "Bars"], ["line", "Line"], ["scatter", "Points"]]), select("x", "x", names.map((n, i) => [i, n])), select("y", "y", numbers.map((i) => [i, names[i]])));
    draw();
  }
  // Of names, as many as there is room for, and the beginning of long ones.
  function ticks(x) {
    const every = Math.ceil(x.length / 24), some = x.filter((_, i) => i % every === 0);
    return { tickvals: some, ticktext: some.map((t) => t.length > 18 ? `${t.slice(0, 17)}…` : t) };
  }
  function draw() {
    const c = result.columns[chosen.x], y = result.columns[chosen.y], most = chosen.kind === "bar" ? 60 : 10000, rows = result.rows.slice(0, most), box = P.byId("sql-chart");
    if (box.querySelector(".empty")) { box.replaceChildren(); box.packetlakeFigure = null; }
    const x = rows.map((r) => TIME.test(c.type) ? (r[chosen.x] === null ? null : F.iso(r[chosen.x]).slice(0, 23)) : NUMBER.test(c.type) ? r[chosen.x] : P.chart.plain(shown(r[chosen.x], c.type)).slice(0, 40));
    const colour = P.token("--c-tls"), values = rows.map((r) => r[chosen.y] === null ? null : Number(r[chosen.y]));
    const trace = chosen.kind === "bar" ? { type: "bar", x, y: values, marker: { color: colour } }
      : { type: "scatter", mode: chosen.kind === "line" ? "lines" : "markers", x, y: values, line: { color: colour, width: 1.5 }, marker: { color: colour, size: 6 } };
    const kind = TIME.test(c.type) ? "date" : NUMBER.test(c.type) ? "linear" : "category";
    P.chart.plot(box, [{ ...trace, name: P.chart.plain(y.name), hovertemplate: "%{x}: %{y:,.6~g}<extra></extra>" }], {
      hovermode: "closest", margin: { l: 60, r: 16, t: 12, b: 74 },
      xaxis: { type: kind, title: { text: P.chart.plain(c.name), font: { size: 11.5 }, standoff: 8 }, automargin: true, ...(kind === "category" ? ticks(x) : { nticks: 10 }), tickangle: kind === "category" && rows.length > 8 ? -35 : 0 },
      yaxis: { title: { text: P.chart.plain(y.name), font: { size: 11.5 } }, automargin: true, nticks: 6, tickformat: "~s" },
    });
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", `${y.name} by ${c.name}, ${rows.length} ${rows.length === 1 ? "value" : "values"}`);
    P.byId("sql-axes").querySelectorAll(".note").forEach((n) => n.remove());
    if (rows.length < result.rows.length) P.byId("sql-axes").append(el("span", { class: "note" }, `the first ${F.count(rows.length)} of ${F.count(result.rows.length)} rows`));
  }

  // --- exports: the server runs it again, whole -----------------------------------------------------------------------
  function exports(at) {
    const item = (format, text) => ({ text, icon: "download", act: () => download(format) });
    P.menu(at, [item("csv", "CSV"), item("parquet", "Parquet"), item("arrow", "Arrow"), "-", { text: "Copy the SQL", icon: "copy", act: () => P.copy(ran) }], "Export the result");
  }
  async function download(format) {
    status("exporting …");
    try {
      const response = await fetch("/api/v1/sql", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ sql: ran, format }) });
      if (!response.ok) throw new Error((await response.json()).error);
      const url = URL.createObjectURL(await response.blob()), link = el("a", { href: url, download: `query.${format}` });
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
      status(`exported as ${format}`);
    } catch (error) { status(""); P.toast(error.message, { level: "bad" }); }
  }

  // --- the lists at the left --------------------------------------------------------------------------------------------
  async function loadBook() { try { book = await P.feed.ask("sql/book", { range: null, filter: null }); list(); } catch (e) { P.failed("sql-list", e, loadBook); } }
  function put(sql) { if (editor) { editor.setValue(sql, -1); editor.focus(); } }
  function insert(text) { if (editor) { editor.insert(text); editor.focus(); } }
  function list() {
    const box = P.byId("sql-list"), of = P.tab("sql-list"), search = P.byId("sql-search-text");
    if (!box) return;
    const words = search ? search.value.trim().toLowerCase() : "", holds = (text) => !words || text.toLowerCase().includes(words);
    if (of === "schema") { tree(box, words, holds); return; }
    const items = (of === "saved" ? book.saved : book.history).filter((q) => holds(`${q.name || ""} ${q.sql}`));
    if (!items.length) { P.empty(box, words ? "Nothing found." : of === "saved" ? "Nothing saved yet." : "Nothing has run yet.", of === "saved" && !words ? [{ text: "Save this query", act: save }] : []); return; }
    box.replaceChildren(el("ul", { class: "sql-queries" }, items.map((q) => el("li", {},
      el("button", { type: "button", class: "sql-query-item", onclick: () => put(q.sql), title: q.sql.slice(0, 1000) },
        el("span", { class: q.name ? "" : "mono" }, q.name || q.sql.replace(/^(\s*--.*\n)+/, "").replace(/\s+/g, " ").slice(0, 90)),
        el("span", { class: "note" }, q.name ? q.sql.replace(/^(\s*--.*\n)+/, "").replace(/\s+/g, " ").slice(0, 60) : q.error ? "failed" : `${F.count(q.rows)} rows · ${F.duration(q.ms / 1000)} · ${F.when(q.at_us)}`)),
      q.name ? P.iconButton("trash", `Remove ${q.name}`, () => forget(q)) : null))), of === "history" && !words ? P.button("Clear the history", () => change("clear", {}), { class: "link" }) : "");
  }
  const opened = new Set(["packets"]);
  function tree(box, words, holds) {
    if (!schema) { P.loading(box, 10); return; }
    const lines = [];
    for (const t of schema.tables) {
      const columns = t.columns.filter((c) => holds(`${t.name}.${c.name}`));
      if (!columns.length) continue;
      const open = words ? columns.length <= 60 : opened.has(t.name);
      lines.push(el("li", {},
        el("div", { class: "sql-table-line" },
          el("button", { type: "button", class: "icon-button sql-fold", "aria-expanded": String(open), "aria-label": `Columns of ${t.name}`, onclick: () => { if (!opened.delete(t.name)) opened.add(t.name); list(); } }, P.icon(open ? "chevron" : "chevron-right")),
          el("button", { type: "button", class: "sql-name mono", title: `Insert ${t.name}`, onclick: () => insert(t.name) }, t.name), el("span", { class: "note" }, t.stored ? String(t.columns.length) : "view")),
        open ? el("ul", {}, columns.map((c) => el("li", {}, el("button", { type: "button", class: "sql-column", title: c.about ? `${c.about}` : `Insert ${c.name}`, onclick: () => insert(c.name) }, el("span", { class: "mono" }, c.name), el("span", { class: "note" }, c.type.toLowerCase()))))) : null));
    }
    const functions = schema.functions.filter((f) => holds(f.name));
    if (functions.length) lines.push(el("li", {}, el("div", { class: "sql-table-line" }, el("button", { type: "button", class: "icon-button sql-fold", "aria-expanded": String(Boolean(words) || opened.has("\0f")), "aria-label": "Functions", onclick: () => { if (!opened.delete("\0f")) opened.add("\0f"); list(); } }, P.icon(words || opened.has("\0f") ? "chevron" : "chevron-right")), el("span", { class: "sql-name" }, "Functions"), el("span", { class: "note" }, String(functions.length))),
      words || opened.has("\0f") ? el("ul", {}, functions.map((f) => el("li", {}, el("button", { type: "button", class: "sql-column", title: f.call, onclick: () => insert(f.call) }, el("span", { class: "mono" }, f.name))))) : null));
    if (!lines.length) { P.empty(box, "Nothing found.", []); return; }
    const kept = box.scrollTop;
    box.replaceChildren(el("ul", { class: "sql-tree" }, lines));
    box.scrollTop = kept;
  }
  async function change(word, body) {
    try { book = await P.feed.post(`sql/book/${word}`, body); list(); return true; } catch (error) { P.toast(error.message, { level: "bad" }); return false; }
  }
  function save() {
    if (!editor) return;
    const first = /^--\s*(.+)/.exec(editor.getValue()), name = el("input", { class: "field", id: "sql-save-name", maxlength: "80", value: first ? first[1].slice(0, 60) : "", autocomplete: "off" });
    const box = P.modal("Save this query", el("label", { class: "fields" }, "Name", name), [{ text: "Cancel" }, { text: "Save", primary: true, act: async () => { const done = await change("save", { name: name.value, sql: editor.getValue() }); if (done) { P.setTab("sql-list", "saved"); list(); } return done; } }]);
    name.addEventListener("keydown", (e) => { if (e.key === "Enter") box.querySelector(".primary").click(); });
    name.select();
  }
  async function forget(query) {
    if (await change("remove", { name: query.name })) P.toast(`Removed ${query.name}`, { undo: () => change("save", query) });
  }

  const themed = new MutationObserver(() => { if (editor) editor.setTheme(theme()); });
  P.page("sql", {
    mount(page) {
      page.painted = true;
      result = null; running = null; zone = P.url.zone();
      P.byId("sql-run").disabled = true;
      P.byId("sql-run").addEventListener("click", run);
      P.byId("sql-cancel").addEventListener("click", cancel);
      P.byId("sql-save").addEventListener("click", save);
      P.byId("sql-export").addEventListener("click", (e) => exports(e.currentTarget));
      P.byId("sql-search").replaceChildren(el("input", { id: "sql-search-text", class: "field", type: "search", placeholder: "Find", "aria-label": "Find in the list", oninput: P.debounce(list, 120) }));
      P.onTab("sql-list", list);
      P.onTab("sql-view", show);
      themed.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
      show(); list(); loadBook();
      P.feed.ask("sql/schema", { range: null, filter: null }).then((s) => { schema = s; list(); }, (e) => P.failed("sql-list", e));
      makeEditor(page).then(() => { page.root.dataset.painted = "true"; }, (e) => P.failed("sql-editor", e, () => P.feed.now()));
    },
    paint() { if (grid && zone !== P.url.zone()) grid.redraw(); zone = P.url.zone(); if (result && P.tab("sql-view") === "chart") draw(); list(); },
    unmount() {
      if (running) cancel();
      clearInterval(timer);
      themed.disconnect();
      if (grid) grid.destroy();
      if (editor) editor.destroy();
      editor = grid = running = null;
    },
  });
})();
