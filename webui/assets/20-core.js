// The namespace, elements, and what is remembered in this browser.
window.packetlake = (function () {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";

  // Every text from a packet goes in as a text node: nothing here parses HTML.
  function el(tag, options, ...children) {
    const node = tag === "svg" || tag === "polyline" || tag === "path" ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(options || {})) {
      if (value === undefined || value === null || value === false) continue;
      if (name === "class") node.setAttribute("class", value);
      else if (name === "style") for (const [k, v] of Object.entries(value)) node.style.setProperty(k, v);
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
    return node;
  }
  const byId = (id) => typeof id === "string" ? document.getElementById(id) : id;
  function setText(id, value) { const n = byId(id); if (n && n.textContent !== value) n.textContent = value; }
  const icon = (name) => el("span", { class: "icon", style: { "--icon": `url("/assets/icons/${name}.svg")` }, "aria-hidden": "true" });
  const iconButton = (name, label, onclick, more) => el("button", Object.assign({ type: "button", class: "icon-button", title: label, "aria-label": label, onclick }, more), icon(name));
  const button = (text, onclick, more) => el("button", Object.assign({ type: "button", class: "button", onclick }, more), text);

  function recall(name, otherwise) {
    try { const v = localStorage.getItem("packetlake-" + name); return v === null ? otherwise : v; } catch (e) { return otherwise; }
  }
  function remember(name, value) { try { localStorage.setItem("packetlake-" + name, value); } catch (e) { /* storage is off */ } }

  const tokens = new Map();
  // A colour of the theme. Charts need its value, everything else uses var().
  function token(name) {
    if (!tokens.has(name)) tokens.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
    return tokens.get(name);
  }
  new MutationObserver(() => tokens.clear()).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });

  const scripts = new Map();
  // A script of ours that only some pages need: resolves when it is there.
  function load(url) {
    if (!scripts.has(url)) {
      scripts.set(url, new Promise((done, failed) => {
        document.head.append(el("script", { src: url, onload: () => done(), onerror: () => { scripts.delete(url); failed(new Error(`${url} did not load`)); } }));
      }));
    }
    return scripts.get(url);
  }

  // Columns to rows, where a row is easier: {a: [1, 2], b: [3, 4]} -> [{a: 1, b: 3}, {a: 2, b: 4}].
  function rows(columns) {
    const names = Object.keys(columns || {});
    return names.length ? columns[names[0]].map((_, i) => Object.fromEntries(names.map((n) => [n, columns[n][i]]))) : [];
  }
  const debounce = (f, ms) => { let timer = 0; return (...a) => { clearTimeout(timer); timer = setTimeout(() => f(...a), ms); }; };

  // Paint a box anew, and give the focus back to the value in it that had it: lists are painted each second.
  function keepFocus(box, paint) {
    const had = box.contains(document.activeElement) ? document.activeElement : null, same = had && [had.dataset.field, had.dataset.value, had.textContent].join("|");
    paint();
    if (!had || had.isConnected) return;
    const again = [...box.querySelectorAll("button, a, [tabindex]")].find((n) => [n.dataset.field, n.dataset.value, n.textContent].join("|") === same);
    if (again) again.focus({ preventScroll: true });
  }

  const listeners = {};
  const on = (event, f) => { (listeners[event] = listeners[event] || []).push(f); };
  const emit = (event, value) => { for (const f of listeners[event] || []) f(value); };
  return { keepFocus, el, byId, setText, icon, iconButton, button, recall, remember, token, load, rows, debounce, on, emit };
})();
