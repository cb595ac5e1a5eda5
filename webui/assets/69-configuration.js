// The Configuration page: what the engine may be told, as forms. Changes are gathered, shown, and saved together; the
// server checks them as the engine would. `P.conf` is what its other files share.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el, SEVERITIES = ["low", "medium", "high", "critical"];
  let form = null, draft = {}, firing = null, disk = null, seen = null;

  // --- what a key is called, and its unit: [title, help, {mib, choices}] ------------------------------------------
  const KEYS = {
    capture: {
      interfaces: ["Interfaces", "Between commas; empty: that of the default route"], bpf_filter: ["Filter", "BPF, as for tcpdump; empty: everything"],
      snaplen: ["Bytes of each frame", "What is beyond is not captured"], promiscuous: ["Promiscuous", "Also frames for other machines"],
      buffer_bytes: ["Ring of the kernel", "MiB for each interface; more survives longer bursts", { mib: true }], nanoseconds: ["Nanoseconds", "Ask for them; not every interface has them"], fanout: ["Threads per interface", "They share it by flow"],
    },
    frames: { mode: ["Raw frames", "Kept beside the rows", { choices: { full: "Whole", head: "Their beginning", off: "Not kept" } }], head_bytes: ["Bytes of the beginning", "With the mode above only"], limit_bytes: ["Room for raw frames", "MiB; the oldest go", { mib: true }] },
    lake: { publish_s: ["Rows are visible after", "seconds"], segment_rows: ["Rows of a segment", "At most"] },
    flows: { idle_s: ["A flow ends when quiet for", "seconds"], active_s: ["A long one is written in parts of", "seconds"], linger_s: ["After both sides closed it", "seconds"], max_flows: ["Flows at once", "384 bytes each"] },
    applications: { enabled: ["Recognise applications", "Off: no payload is looked at"], budget: ["Budget of parsers", "Share of one core, 0 to 1"] },
    alerts: {
      cooldown_s: ["An incident goes on for", "seconds after its last finding"], min_severity: ["Least severity", "What is below is only counted", { choices: SEVERITIES }],
      budget_per_hour: ["New incidents an hour", "Above low; the rest is summed up in one"], low_budget_per_hour: ["New low ones an hour", "The rest is summed up in one"], update_s: ["Changes are written every", "seconds, at most"],
    },
    detection: { enabled: ["Look for attacks", "Rules, signatures, lists and alerts, all together"] },
    scoring: {
      enabled: ["Score packets", "By the sensor's own model"], threshold: ["Threshold", "Packets from here on count as unusual, 0 to 1"], alert: ["Alert on it", "Incidents of kind packet_score, low"], alerts_per_hour: ["Sources an hour", "At most, that become incidents"],
      retrain_minutes: ["Train again after", "minutes; 0: never"], training: ["Learns from", "", { choices: { reservoir: "All packets since the last model", window: "The last minutes" } }], window_minutes: ["Those minutes", "With the choice above only"], learn_during_incidents: ["Learn during incidents", "What an attack looks like becomes usual"],
    },
    anomaly: { enabled: ["Watch hosts", "Alerts about windows of hosts that are unlike the usual"], method: ["Method", "", { choices: { maxz: "Largest deviation", hbos: "Histograms", iforest: "Isolation forest" } }], per_hour: ["Alerts an hour", "At most"], learn_minutes: ["Learns for", "minutes before the first is told"], margin: ["Margin", "0: the method's own"] },
    signatures: { enabled: ["Look at payloads", "With the signatures below"], starter: ["Starter set", "The signatures that come with the program"], home: ["Home networks", "$HOME_NET, between commas"], budget: ["Budget", "Share of one core, 0 to 1"], join_bytes: ["Bytes joined", "Searched across segments, of each direction"] },
    intel: { enabled: ["Lists", "Of addresses, networks, domains, fingerprints"], refresh_minutes: ["Fetch again after", "minutes; 0: only the file on disk"], max_age_days: ["Not used when older than", "days; 0: any age"], repeat_s: ["Repeat a hit after", "seconds"] },
    retention: Object.fromEntries([["enabled", ["Delete what is old", "Off: nothing goes but raw frames"]],
      ...["frames", "packets", "applications", "flows", "windows", "rollups", "alerts"].flatMap((t) => [[`${t}_days`, [`${t === "frames" ? "Raw frames" : t[0].toUpperCase() + t.slice(1)} are kept`, "days; 0: for ever"]], [`${t}_gib`, ["at most", "GiB; 0: any size"]]]),
      ["min_free_percent", ["Free on the disk, at least", "% of it; else the oldest goes first"]], ["min_free_gib", ["which is at most", "GiB"]]]),
    notify: { queue: ["Messages that wait", "For each target, at most"], give_up_h: ["Given up after", "hours"] },
  };
  const words = (name) => { const t = name.replace(/_/g, " ").replace(/per s$/, "per second").replace(/ s$/, ", s"); return (t[0].toUpperCase() + t.slice(1)).replace(/\b(syn|ack|udp|icmp|dns|arp|ssh|http|ftp|dhcp|pps|tcp|ip|rst|ttl)s?\b/gi, (w) => w.toUpperCase().replace(/S$/, (x) => w.length > 3 ? "s" : x)); };
  const admin = () => P.may("admin") && form.writable;

  // --- the draft -----------------------------------------------------------------------------------------------------
  const current = (section, key) => section.startsWith("rules.") ? form.rules.find((r) => r.name === section.slice(6)).keys.find((k) => k.name === key) : form.sections[section].keys.find((k) => k.name === key);
  const value = (section, key) => draft[section] && key in draft[section] ? draft[section][key] : current(section, key).value;
  function change(section, key, to) {
    const now = current(section, key), same = JSON.stringify(to) === JSON.stringify(now.value);
    if (same) { if (draft[section]) { delete draft[section][key]; if (!Object.keys(draft[section]).length) delete draft[section]; } } else (draft[section] = draft[section] || {})[key] = to;
    bar();
  }
  const changed = () => Object.entries(draft).flatMap(([s, keys]) => Object.keys(keys).map((k) => [s, k]));
  function bar(problem) {
    const box = P.byId("configuration-bar"), list = changed();
    if (!box) return;
    box.hidden = !list.length;
    if (!list.length) return;
    const later = list.filter(([s, k]) => !s.startsWith("rules.") && !current(s, k).live).map(([s, k]) => `${s}.${k}`);
    const effect = !form.running ? "They hold from the engine's next start." : !later.length ? "The running engine takes them over at once." : later.length === list.length ? "They hold from the engine's next start." : `At once, but ${later.join(", ")} from the engine's next start.`;
    box.replaceChildren(el("div", { class: "conf-bar-text" }, el("strong", {}, `${list.length} ${list.length === 1 ? "change" : "changes"} not saved`), el("span", { class: "muted" }, effect), problem ? el("span", { class: "conf-problem", role: "alert" }, problem) : null),
      P.button("Discard", () => { draft = {}; draw(); bar(); }), P.button("Save", save, { class: "button primary", id: "configuration-save" }));
  }
  async function save() {
    const button = P.byId("configuration-save");
    button.disabled = true;
    try {
      const done = await P.feed.post("settings", { etag: form.etag, changes: draft, tell: true });
      if (done.error) { bar(done.error); return; }
      draft = {};
      const parts = [done.applied.length ? `the engine uses ${done.applied.join(", ")} now` : "", done.waits.length ? `${done.waits.join(", ")} from its next start` : !done.running ? "it holds from the engine's next start" : ""];
      P.toast(`Saved. ${parts.filter(Boolean).join("; ")}`.trim(), { seconds: 8 });
      await load();
    } catch (error) { bar(error.message); }
  }

  // --- fields ----------------------------------------------------------------------------------------------------------
  function input(section, k, about, id) {
    const more = about[2] || {}, now = value(section, k.name), off = !admin(), label = about[0];
    const set = (to) => change(section, k.name, to);
    if (typeof k.value === "boolean") return toggle(now, (on) => set(on), label, off, id);
    if (more.choices) {
      const options = Array.isArray(more.choices) ? more.choices.map((c) => [c, c]) : Object.entries(more.choices);
      return el("select", { class: "field", id, disabled: off, onchange: (e) => set(e.target.value) }, options.map(([v, text]) => el("option", { value: v, selected: v === now }, text)));
    }
    const numeric = typeof k.value === "number", scale = more.mib ? 1048576 : 1, shown = numeric ? String(now / scale) : Array.isArray(now) ? now.join(", ") : now;
    return el("input", { class: numeric ? "field number" : "field mono", id, disabled: off, value: shown, inputmode: numeric ? "decimal" : null, autocomplete: "off", spellcheck: "false", "aria-describedby": `${id}-help`, oninput: (e) => {
      const text = e.target.value.trim(), n = Number(text);
      const bad = numeric && (text === "" || !Number.isFinite(n));
      e.target.setAttribute("aria-invalid", String(bad));
      if (!bad) set(numeric ? n * scale : Array.isArray(k.value) ? text.split(",").map((t) => t.trim()).filter(Boolean) : text);
    } });
  }
  function toggle(on, act, label, off, id) {
    return el("button", { type: "button", role: "switch", class: "switch", id, "aria-checked": String(Boolean(on)), "aria-label": label, disabled: off, onclick: (e) => { const to = e.currentTarget.getAttribute("aria-checked") !== "true"; e.currentTarget.setAttribute("aria-checked", String(to)); act(to); } }, el("i", {}));
  }
  function usual(k, more) {
    if (JSON.stringify(k.value) === JSON.stringify(k.default) || typeof k.value === "boolean") return "";
    const text = Array.isArray(k.default) ? k.default.join(", ") || "none" : typeof k.default === "number" && more && more.mib ? String(k.default / 1048576) : String(k.default) || "empty";
    return `usual: ${text}`;
  }
  function fields(section, only) {
    const names = KEYS[section];
    return el("div", { class: "conf-fields" }, form.sections[section].keys.filter((k) => names[k.name] && (!only || only.includes(k.name))).map((k) => {
      const id = `configuration-${section}-${k.name}`, about = names[k.name];
      return el("div", { class: "conf-field" }, el("label", { for: id }, about[0]), input(section, k, about, id),
        el("span", { class: "note", id: `${id}-help` }, [about[1], usual(k, about[2])].filter(Boolean).join(" · "), !k.live && form.running ? el("span", { class: "conf-later" }, "next start") : null));
    }));
  }
  const group = (title, ...inside) => el("div", { class: "conf-group" }, el("h3", {}, title), inside);
  const put = (name, ...inside) => { const box = P.byId(`configuration-${name}-body`); if (box) box.replaceChildren(...inside.flat().filter(Boolean)); };
  const side = (name, ...inside) => { const box = P.byId(`configuration-${name}-side`); if (box) box.replaceChildren(...inside.filter(Boolean)); };

  // --- rules -----------------------------------------------------------------------------------------------------------
  const opened = new Set();
  const kinds = () => value("alerts", "kind");
  function severityOf(name, to) {
    const old = kinds().find((k) => k.name === name), rest = kinds().filter((k) => k.name !== name), entry = Object.assign({ name, cooldown_s: 0, severity: "" }, old, { severity: to });
    change("alerts", "kind", entry.severity || entry.cooldown_s ? [...rest, entry] : rest);
  }
  function fires(name) {
    if (!firing) return ["–", ""];
    const i = firing.kinds.kind.indexOf(name), n = i < 0 ? 0 : firing.kinds.alerts[i], days = firing.days;
    return [n ? `${F.text(n / days)} a day` : "none", n ? `${F.count(n)} alerts in ${days <= 1 ? "the last day" : `${days.toFixed(days < 7 ? 1 : 0)} days`}, the last ${F.when(firing.kinds.last[i])}` : "No alert of this kind in the last 7 days"];
  }
  function rule(r) {
    const section = `rules.${r.name}`, id = `configuration-rule-${r.name}`, enabled = r.keys.find((k) => k.name === "enabled"), set = kinds().find((k) => k.name === r.name), [often, why] = fires(r.name), open = opened.has(r.name), others = r.keys.filter((k) => k.name !== "enabled");
    const own = others.filter((k) => JSON.stringify(k.value) !== JSON.stringify(k.default)).length;
    return el("li", { class: "conf-rule", "data-rule": r.name },
      el("div", { class: "conf-rule-line" },
        toggle(value(section, "enabled"), (on) => change(section, "enabled", on), `Rule ${r.name}`, !admin()),
        el("button", { type: "button", class: "conf-rule-name", "aria-expanded": String(open), "aria-controls": id, onclick: () => { if (!opened.delete(r.name)) opened.add(r.name); rules(); document.querySelector(`[data-rule="${r.name}"] .conf-rule-name`).focus(); } }, P.icon(open ? "chevron" : "chevron-right"), words(r.name), own || !enabled.value ? el("span", { class: "conf-own" }, !enabled.value ? "off" : `${own} changed`) : null),
        el("span", { class: "conf-rule-about note", title: r.about.split("\n\n")[0] }, r.about.replace(/\s+/g, " ")),
        P.may("viewer") && firing && firing.kinds.kind.includes(r.name) ? el("a", { class: "conf-fires link", href: `/alerts?kind=${r.name}`, title: why }, often) : el("span", { class: "conf-fires muted", title: why }, often),
        el("select", { class: "field", disabled: !admin(), "aria-label": `Severity of ${r.name}`, onchange: (e) => severityOf(r.name, e.target.value) }, el("option", { value: "", selected: !set || !set.severity }, "Its own"), SEVERITIES.map((s) => el("option", { value: s, selected: Boolean(set && set.severity === s) }, s)))),
      open ? el("div", { class: "conf-rule-more", id }, el("p", { class: "muted" }, r.about.replace(/([^\n])\n([^\n])/g, "$1 $2")),
        el("div", { class: "conf-fields" }, others.map((k) => el("div", { class: "conf-field" }, el("label", { for: `${id}-${k.name}` }, words(k.name)), input(section, k, [words(k.name), ""], `${id}-${k.name}`), el("span", { class: "note", id: `${id}-${k.name}-help` }, usual(k) || "the usual value"))))) : null);
  }
  function rules() {
    const on = form.rules.filter((r) => value(`rules.${r.name}`, "enabled")).length;
    side("rules", el("span", { class: "note" }, `${on} of ${form.rules.length} on`), P.iconButton("download", "Export the rules as CSV", () => P.csv("rules", ["rule", "enabled", "alerts_per_day", "parameters"], form.rules.map((r) => [r.name, value(`rules.${r.name}`, "enabled"), fires(r.name)[0], r.keys.filter((k) => k.name !== "enabled").map((k) => `${k.name}=${k.value}`).join(" ")]))));
    put("rules", el("div", { class: "conf-rule-line conf-rule-head note", "aria-hidden": "true" }, el("span", {}, "On"), el("span", {}, "Rule"), el("span", {}, ""), el("span", { class: "conf-fires" }, "Fires"), el("span", {}, "Severity")), el("ul", { class: "conf-rules" }, form.rules.map(rule)));
  }

  // --- what is not to become an alert --------------------------------------------------------------------------------
  const LISTS = ["kinds", "src", "dst", "address", "ports", "domains"];
  const told = (s) => [...LISTS.filter((k) => s[k] && s[k].length).map((k) => `${k} ${s[k].join(", ")}`), s.time ? `${s.time} ${s.timezone}` : ""].filter(Boolean).join(" · ");
  function suppressions() {
    const list = value("alerts", "suppress");
    return group("Never an alert", list.length ? el("ul", { class: "conf-list" }, list.map((s, i) => el("li", {}, el("span", { class: "mono" }, told(s)), el("span", { class: "note" }, s.reason), admin() ? P.iconButton("trash", `Remove: ${told(s)}`, () => { change("alerts", "suppress", list.filter((_, n) => n !== i)); alerts(); }) : null))) : el("p", { class: "muted" }, "Nothing is left out. What is usual here can be: a scanner of yours, a backup at night."),
      admin() ? P.button("Leave out …", () => leaveOut(list)) : null);
  }
  function leaveOut(list) {
    const field = (key, label, hint) => [el("label", { for: `conf-s-${key}` }, label), el("input", { id: `conf-s-${key}`, placeholder: hint, autocomplete: "off" })], of = (key) => P.byId(`conf-s-${key}`).value.trim(), many = (key) => of(key).split(",").map((t) => t.trim()).filter(Boolean);
    P.modal("Leave out findings", [el("p", { class: "muted" }, "All that is given must hold; of several between commas, one."), el("div", { class: "fields" }, field("kinds", "Kinds", "port_scan"), field("src", "Source", "10.0.0.5, 10.1.0.0/16"), field("dst", "Destination", ""), field("address", "Either end", ""), field("ports", "Ports", "8080"), field("domains", "Domains", "*.example.com"), field("time", "Time of day", "22:00-06:00"), field("timezone", "Zone of it", "UTC"), field("reason", "Reason", "backup"))],
      [{ text: "Cancel" }, { text: "Add", primary: true, act: () => {
        const entry = Object.fromEntries(["kinds", "src", "dst", "address", "domains"].map((k) => [k, many(k)]).filter(([, v]) => v.length));
        if (many("ports").length) entry.ports = many("ports").map(Number);
        for (const k of ["time", "timezone", "reason"]) if (of(k)) entry[k] = of(k);
        change("alerts", "suppress", [...list, entry]); alerts();
      } }]);
  }
  const alerts = () => put("alerts", fields("detection"), fields("alerts"), suppressions());

  // --- everything -------------------------------------------------------------------------------------------------------
  function files(title, list) { return list.length ? group(title, el("ul", { class: "conf-list" }, list.map((f) => el("li", {}, el("span", { class: "mono" }, f))))) : null; }
  function storage() {
    const line = (name, text) => [el("dt", {}, name), el("dd", {}, text)];
    const known = disk ? el("dl", { class: "conf-facts" }, line("Lake", F.bytes(disk.lake)), line("of it raw frames", F.bytes(disk.frames)), line("Free on its disk", `${F.bytes(disk.free)} of ${F.bytes(disk.total)}`), line("Grows", disk.grows_per_day === null ? "not known yet" : `${F.bytes(disk.grows_per_day)} a day`), line("Full in", disk.days_left === null ? "not known yet" : disk.days_left > 3650 ? "more than ten years" : `${disk.days_left} days`)) : el("p", { class: "muted" }, "…");
    put("storage", known, group("Raw frames", fields("frames")), group("How long it is kept", fields("retention")), group("Rows", fields("lake")), group("Flows", fields("flows")));
  }
  function draw() {
    const file = P.byId("configuration-file");
    if (!form || !file) return;
    const state = form.error ? form.error : !form.writable ? form.problem : !P.may("admin") ? "You may read it; an admin may change it." : form.running ? "Changes reach the running engine." : "No engine runs: changes hold from its next start.";
    file.replaceChildren(el("div", { class: "note" }, "File"), el("div", { class: "mono conf-path" }, form.file), el("p", { class: form.error || !form.writable ? "conf-problem" : "muted" }, state),
      form.waits.length ? el("p", { class: "conf-waits" }, `Waits for the engine's next start: ${form.waits.join(", ")}.`) : "");
    put("capture", fields("capture"), group("Applications", fields("applications")));
    storage(); rules(); alerts();
    put("scoring", group("Packets", fields("scoring")), group("Hosts", fields("anomaly")));
    const f = form.files, none = !Object.values(f).some((l) => l.length);
    put("signatures", fields("signatures"), group("Lists", fields("intel")), files("Signature files", f.signatures), files("Lists", f.intel), files("Sigma rules", f.sigma), files("Rules in Python", f.rules), files("Rules in SQL", f.sql), el("p", { class: "muted" }, none ? "No files of your own. Name them in the file itself: [signatures] files, [intel] lists, [sigma] files." : "Which files are used is set in the file itself."));
    if (P.conf.notifications) P.conf.notifications();
    bar();
  }
  async function load() {
    try { form = await P.feed.ask("settings", { range: null, filter: null }); draw(); } catch (error) { for (const name of ["capture", "storage", "rules", "alerts", "scoring", "signatures", "notifications"]) P.failed(`configuration-${name}-body`, error, load); }
  }
  P.conf = { get form() { return form; }, SEVERITIES, value, change, fields, group, put, side, toggle, admin, load, words };

  P.page("configuration", {
    mount(page) {
      page.painted = true;
      form = null; draft = {};
      for (const box of page.root.querySelectorAll(".conf-body")) P.loading(box, 3);
      const quiet = { range: null, filter: null };
      Promise.allSettled([load(), P.feed.ask("firing", quiet).then((f) => { firing = f; }), P.feed.ask("health", { range: "5m", filter: null }).then((h) => { disk = h.disk; }), P.conf.people(page)]).then(() => { if (page.root.isConnected) { if (form) { storage(); rules(); } page.root.dataset.painted = "true"; } });
      const links = [...page.root.querySelectorAll("[data-section]")], cards = P.byId("configuration-cards");
      const mark = (name) => links.forEach((a) => { if (a.dataset.section === name) a.setAttribute("aria-current", "true"); else a.removeAttribute("aria-current"); });
      links.forEach((a) => a.addEventListener("click", (e) => { e.preventDefault(); const card = P.byId(`configuration-${a.dataset.section}`); cards.scrollTop = card.offsetTop - cards.offsetTop; card.setAttribute("tabindex", "-1"); card.focus({ preventScroll: true }); mark(a.dataset.section); }));
      const follow = () => { const at = cards.scrollTop + 60, over = links.filter((a) => P.byId(`configuration-${a.dataset.section}`).offsetTop - cards.offsetTop <= at), end = cards.scrollTop + cards.clientHeight >= cards.scrollHeight - 2; mark((end ? links[links.length - 1] : over[over.length - 1] || links[0]).dataset.section); };
      cards.addEventListener("scroll", P.debounce(follow, 60));
      mark(links[0].dataset.section);
      seen = (e) => { if (changed().length) { e.preventDefault(); } };
      window.addEventListener("beforeunload", seen);
    },
    paint() { if (form) { rules(); P.conf.repaint(); } },
    unmount() { window.removeEventListener("beforeunload", seen); if (changed().length) P.toast("Changes of the configuration were not saved.", { level: "bad" }); draft = {}; },
  });
})();
