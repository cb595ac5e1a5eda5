// What lies over the page: menus, dialogs, a drawer at the right, short messages with undo. All close with Escape and
// give the focus back.
(function () {
  "use strict";
  const P = window.packetlake, el = P.el;
  let open = null, titles = 0;

  function closeMenu() { if (open) { const m = open; open = null; m.remove(); if (m.packetlakeFrom && m.packetlakeFrom.isConnected) m.packetlakeFrom.setAttribute("aria-expanded", "false"); } }
  // items: [{text, icon, act, href, download, note}] or "-" for a line. At an element, or at {x, y}.
  function menu(at, items, label) {
    closeMenu();
    const box = el("div", { class: "menu", role: "menu", "aria-label": label || "Menu" }, items.filter(Boolean).map((item) => {
      if (item === "-") return el("hr", {});
      if (item.note) return el("div", { class: "menu-note" }, item.note);
      const inside = [item.icon ? P.icon(item.icon) : null, el("span", {}, item.text)];
      const act = () => { closeMenu(); if (item.act) item.act(); };
      return item.href ? el("a", { role: "menuitem", href: item.href, download: item.download, onclick: () => setTimeout(closeMenu) }, inside) : el("button", { type: "button", role: "menuitem", onclick: act }, inside);
    }));
    document.body.append(box);
    const r = at.getBoundingClientRect ? at.getBoundingClientRect() : { left: at.x, right: at.x, bottom: at.y, top: at.y };
    const left = Math.min(r.left, innerWidth - box.offsetWidth - 8), below = r.bottom + 4 + box.offsetHeight < innerHeight;
    box.style.left = `${Math.max(8, left)}px`;
    box.style.top = `${below ? r.bottom + 4 : Math.max(8, r.top - box.offsetHeight - 4)}px`;
    open = box;
    if (at.setAttribute) { box.packetlakeFrom = at; at.setAttribute("aria-expanded", "true"); }
    const first = box.querySelector("[role=menuitem]");
    if (first) first.focus();
    box.addEventListener("keydown", (e) => {
      const all = [...box.querySelectorAll("[role=menuitem]")], i = all.indexOf(document.activeElement);
      const to = { ArrowDown: i + 1, ArrowUp: i - 1, Home: 0, End: all.length - 1 }[e.key];
      if (to !== undefined) { e.preventDefault(); all[(to + all.length) % all.length].focus(); }
      if (e.key === "Escape" || e.key === "Tab") { e.preventDefault(); e.stopPropagation(); closeMenu(); if (at.focus) at.focus(); }
    });
    return box;
  }
  document.addEventListener("pointerdown", (e) => { if (open && !open.contains(e.target)) closeMenu(); }, true);
  window.addEventListener("resize", closeMenu);

  // A native dialog: it keeps the focus inside and closes with Escape. `body` is an element or a list.
  function dialog(kind, title, body, actions, onclose) {
    const id = `packetlake-title-${++titles}`;
    const box = el("dialog", { class: kind, "aria-labelledby": id },
      el("div", { class: "dialog-head" }, el("h2", { id }, title), P.iconButton("close", "Close", () => box.close())),
      el("div", { class: "dialog-body" }, body),
      actions && actions.length ? el("div", { class: "dialog-foot" }, actions) : null);
    document.body.append(box);
    box.addEventListener("close", () => { box.remove(); if (onclose) onclose(); });
    box.addEventListener("pointerdown", (e) => { if (e.target === box) box.close(); });
    return box;
  }
  // modal(title, body, [{text, act, primary}]): act may return false or a promise of it to stay open.
  function modal(title, body, actions) {
    const buttons = (actions || []).map((a) => P.button(a.text, async () => { if (!a.act || (await a.act()) !== false) box.close(); }, { class: a.primary ? "button primary" : "button" }));
    const box = dialog("modal", title, body, buttons);
    box.showModal();
    return box;
  }
  let drawn = null;
  // One drawer at a time; the page behind stays usable. Returns {box, body, close}. The one before goes at once: the
  // event that a closed dialog sends comes later.
  function drawer(title, body, onclose) {
    if (drawn) { drawn.close(); drawn.remove(); }
    const box = dialog("drawer", title, body, null, () => { if (drawn === box) drawn = null; if (onclose) onclose(); });
    box.show();
    drawn = box;
    return { box, body: box.querySelector(".dialog-body"), close: () => box.close() };
  }
  document.addEventListener("keydown", (e) => { if (e.key === "Escape" && drawn && !open && !document.querySelector("dialog.modal[open]")) drawn.close(); });
  P.on("leave", () => { closeMenu(); if (drawn) drawn.close(); });

  // toast("Acknowledged", {undo: () => ..., level: "bad"}).
  function toast(text, options) {
    const o = Object.assign({ seconds: 6 }, options);
    let host = document.querySelector(".toasts");
    if (!host) { host = el("div", { class: "toasts", "aria-live": "polite" }); document.body.append(host); }
    const box = el("div", { class: "toast", "data-level": o.level || "" }, el("span", {}, text),
      o.undo ? P.button("Undo", () => { box.remove(); o.undo(); }, { class: "link" }) : null, P.iconButton("close", "Dismiss", () => box.remove()));
    host.append(box);
    setTimeout(() => box.remove(), o.seconds * 1000);
    return box;
  }
  async function copy(text) {
    try { await navigator.clipboard.writeText(text); toast("Copied", { seconds: 2 }); } catch (e) { toast("The browser does not allow copying here.", { level: "bad" }); }
  }
  P.menu = menu; P.modal = modal; P.drawer = drawer; P.toast = toast; P.copy = copy; P.closeMenu = closeMenu;

  // --- states of a card ----------------------------------------------------------------------------------------
  // empty(box, "No packets match.", [{text, act}]), with the two ways out that are always right when none is given.
  P.empty = function (target, text, actions) {
    const box = P.byId(target);
    if (!box) return;
    const usual = [P.url.filter() ? { text: "Clear filter", act: () => P.url.setTerms([]) } : null, P.url.live() ? { text: "Newest packets", act: () => P.url.setRange(P.url.range() + "@newest") } : null];
    const list = (actions || usual).filter(Boolean);
    box.replaceChildren(el("div", { class: "empty" }, el("span", {}, text), list.length ? el("span", {}, list.map((a) => P.button(a.text, a.act, { class: "link" }))) : null));
  };
  P.failed = function (target, error, retry) {
    const box = P.byId(target);
    if (box) box.replaceChildren(el("div", { class: "empty", role: "alert" }, el("span", {}, error.message || String(error)), retry ? P.button("Retry", retry, { class: "link" }) : null));
  };
  P.loading = function (target, lines) {
    const box = P.byId(target);
    if (box) box.replaceChildren(el("div", { class: "skeleton", "aria-hidden": "true" }, Array.from({ length: lines || 6 }, () => el("i", {}))));
  };

  // --- the menu of a card: exports, the SQL, a table -------------------------------------------------------------
  document.addEventListener("click", (event) => {
    const from = event.target.closest(".card-menu");
    if (!from) return;
    const { question, exports, part } = from.dataset, more = part ? { part } : {};
    const names = { csv: "CSV", parquet: "Parquet", arrow: "Arrow" }, items = P.asTable.items(from);
    if (!question) { menu(from, items.length ? items : [{ note: "Nothing is shown." }], "Export"); return; }
    if (items.length) items.push("-");
    for (const format of (exports || "").split(" ").filter(Boolean)) {
      if (format === "pcap") { if (P.may("operator")) items.push({ text: "Export pcap …", icon: "download", act: () => P.exportPcap() }); }
      else items.push({ text: `Export ${names[format] || format}`, icon: "download", href: P.feed.exportUrl(question, format, more), download: `${question}.${format}` });
    }
    if (exports) items.push("-");
    items.push({ text: "Show the SQL", icon: "sql", act: () => showSql(question, more) });
    menu(from, items, "Export or explain");
  });
  async function showSql(question, more) {
    const view = drawer("The SQL of what is shown", el("div", { class: "muted" }, "…"));
    try {
      const response = await fetch(P.feed.explainUrl(question, more), { cache: "no-store" });
      if (!response.ok) throw new Error(`The server answered ${response.status}.`);
      const text = await response.text(), told = text.startsWith("{") ? JSON.parse(text) : { sql: text };
      const all = typeof told.sql === "string" ? { "": told.sql } : told.sql, parts = more && all[more.part] ? { "": all[more.part] } : all;
      view.body.replaceChildren(el("p", { class: "muted" }, "It runs as it stands in `engine sql`, in a notebook, or on the SQL page."),
        ...Object.entries(parts).map(([name, sql]) => el("section", {}, name ? el("h3", {}, name) : null, el("pre", { class: "sql mono", tabindex: "0" }, sql),
          el("div", { class: "row-buttons" }, P.button("Copy", () => copy(sql)), document.querySelector("[data-nav=sql]") ? P.button("Open on the SQL page", () => { view.close(); P.url.go("/sql", { q: sql }); }) : null))));
    } catch (error) { P.failed(view.body, error, () => { view.close(); showSql(question, more); }); }
  }
  P.showSql = showSql;
  // A pcap of the present range and filter: first how much it would be. `more` are parameters for the API.
  P.exportPcap = async function (more) {
    const note = el("p", {}, "Counting …"), params = Object.assign({ range: P.url.range(), filter: P.url.filter() }, more);
    const box = modal("Export packets", [note], [{ text: "Cancel" }, { text: "Download pcap", primary: true, act: () => { location.assign(P.feed.address("pcap", params)); } }]);
    const go = box.querySelector(".primary");
    go.disabled = true;
    try {
      const told = await P.feed.ask("pcap", Object.assign({ estimate: 1 }, more));
      const lost = told.not_stored + told.gone, tooMuch = told.bytes > told.most;
      note.textContent = `${P.format.count(told.frames)} packets, ${P.format.bytes(told.bytes)}.${lost ? ` Of ${P.format.count(lost)} more the bytes are not kept.` : ""}${tooMuch ? ` More than ${P.format.bytes(told.most)}: choose a shorter range or a narrower filter, or use engine export.` : ""}`;
      go.disabled = !told.frames || tooMuch;
    } catch (error) { note.textContent = error.message; }
  };
})();
