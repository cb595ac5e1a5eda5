// The filter box: a chip for each term (click removes, Alt-click negates), completion from the lake while typing.
(function () {
  "use strict";
  const P = window.packetlake, el = P.el;
  let box = null, input = null, list = null, problem = null, suggestions = [], at = -1, asking = null;

  function build() {
    input = el("input", { id: "shell-filter-text", type: "text", role: "combobox", autocomplete: "off", autocapitalize: "none", spellcheck: "false", "aria-label": "Filter, for example proto=tcp host=10.0.0.7", "aria-expanded": "false", "aria-controls": "shell-filter-list", "aria-autocomplete": "list", placeholder: "Filter, e.g. proto=tcp  host=10.20.1.14" });
    list = el("ul", { id: "shell-filter-list", class: "complete", role: "listbox", hidden: true });
    problem = el("span", { class: "filter-problem", role: "alert", hidden: true });
    box.replaceChildren(P.icon("search"), el("span", { class: "chips" }), input, problem, list);
    input.addEventListener("input", suggest);
    input.addEventListener("focus", suggest);
    input.addEventListener("blur", () => setTimeout(hide, 150));
    input.addEventListener("keydown", key);
    box.addEventListener("click", (e) => { if (e.target === box) input.focus(); });
    draw();
  }
  function draw() {
    if (!box) return;
    const chips = P.url.terms().map((term) => el("button", {
      type: "button", class: /^[-!]/.test(term) ? "chip negated" : "chip", title: "Click removes, Alt-click negates", "aria-label": `Filter ${term}: remove`,
      onclick: (e) => { if (e.altKey) P.url.negate(term); else P.url.remove(term); input.focus(); },
    }, term, el("span", { class: "chip-x", "aria-hidden": "true" }, "×")));
    box.querySelector(".chips").replaceChildren(...chips);
    input.placeholder = chips.length ? "" : "Filter, e.g. proto=tcp  host=10.20.1.14";
    fault("");
  }
  function fault(text) { problem.hidden = !text; problem.textContent = text; input.setAttribute("aria-invalid", String(Boolean(text))); }

  function hide() { list.hidden = true; at = -1; input.setAttribute("aria-expanded", "false"); input.removeAttribute("aria-activedescendant"); }
  const suggest = P.debounce(async () => {
    if (asking) asking.abort();
    asking = new AbortController();
    try {
      const told = await P.feed.ask("complete", { text: input.value, cursor: input.selectionStart, range: null, filter: null }, { signal: asking.signal });
      suggestions = P.rows(told.suggestions).map((s) => ({ text: s.text, about: s.about, start: told.start, end: told.end }));
      if (document.activeElement === input) show();
    } catch (e) { if (e.name !== "AbortError") hide(); }
  }, 120);
  function show() {
    at = -1;
    list.replaceChildren(...suggestions.slice(0, 12).map((s, i) => el("li", { id: `shell-complete-${i}`, role: "option", "aria-selected": "false", onpointerdown: (e) => { e.preventDefault(); take(i); } },
      el("span", { class: "mono" }, s.text), el("span", { class: "muted" }, s.about))));
    list.hidden = !suggestions.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
  }
  function mark(to) {
    const all = [...list.children];
    if (!all.length) return;
    at = (to + all.length) % all.length;
    all.forEach((li, i) => li.setAttribute("aria-selected", String(i === at)));
    all[at].scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", `shell-complete-${at}`);
  }
  // A suggestion replaces the part of the text it is for.
  function take(i) {
    const { text, start, end } = suggestions[i], at = start + text.length;
    input.value = input.value.slice(0, start) + text + input.value.slice(end);
    input.setSelectionRange(at, at);
    if (/[=<>]$/.test(text)) suggest(); else apply();
  }
  // Checked by the server before it becomes the filter, so that a slip never empties the page.
  async function apply() {
    const text = input.value.trim();
    hide();
    if (!text) return;
    try {
      const told = await P.feed.ask("complete", { text, range: null, filter: null });
      if (told.error) { fault(told.error.replace(/^filter: /, "")); return; }
      const added = P.url.split(told.canonical);
      input.value = "";
      P.url.setTerms([...P.url.terms().filter((t) => !added.includes(t) && !added.includes(P.url.opposite(t))), ...added]);
    } catch (error) { fault(error.message); }
  }
  function key(e) {
    if (e.key === "ArrowDown" || e.key === "ArrowUp") { e.preventDefault(); mark(at + (e.key === "ArrowDown" ? 1 : at < 0 ? 0 : -1)); }
    else if (e.key === "Enter") { e.preventDefault(); if (at >= 0) take(at); else apply(); }
    else if (e.key === "Tab" && at >= 0) { e.preventDefault(); take(at); }
    else if (e.key === "Escape") { if (list.hidden) { input.value = ""; input.blur(); } else hide(); e.stopPropagation(); fault(""); }
    else if (e.key === "Backspace" && input.selectionStart === 0 && input.selectionEnd === 0) { const t = P.url.terms(); if (t.length) P.url.remove(t[t.length - 1]); }
  }
  P.on("frame", () => { box = P.byId("shell-filter"); build(); });
  P.on("url", draw);
})();
