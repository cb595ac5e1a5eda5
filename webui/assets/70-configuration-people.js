// The rest of the Configuration page: notifications, GeoIP, users, sessions, tokens, the audit log, versions.
(function () {
  "use strict";
  const P = window.packetlake, F = P.format, el = P.el, C = P.conf, ROLES = ["viewer", "operator", "admin"], quiet = { range: null, filter: null };
  let people = [], lines = [], more = true, sent = {};

  const input = (id, label, attributes) => [el("label", { for: id }, label), el("input", { id, autocomplete: "off", ...attributes })];
  const choose = (id, label, options, chosen) => [el("label", { for: id }, label), el("select", { id }, options.map((o) => el("option", { value: o, selected: o === chosen }, o)))];
  const of = (id) => P.byId(id).value.trim();
  const table = (columns, rows, empty) => { const box = el("div", { class: "scroll conf-table", tabindex: "0", role: "region", "aria-label": columns[0].title }); P.table(box, { columns, rows, empty, actions: [] }); return box; };
  // A change of people; an error stays where it was asked for.
  async function act(path, body, then) {
    try { const done = await P.feed.post(path, body); await then(done); return true; } catch (error) { P.toast(error.message, { level: "bad" }); return false; }
  }

  // --- notifications ---------------------------------------------------------------------------------------------------
  const targets = () => C.value("notify", "targets");
  function edit(known) {
    const t = known || { name: "", url: "", min_severity: "medium", kinds: [], on_close: false, burst: 10 };
    const url = known && known.url_file ? el("p", { class: "muted" }, `Its URL is in the file ${known.url_file}.`) : null;
    P.modal(known ? `Target ${known.name}` : "New target", [el("div", { class: "fields" }, input("conf-t-name", "Name", { value: t.name }),
      url ? [el("span", {}, "URL"), url] : input("conf-t-url", "URL", { type: "password", autocomplete: "new-password", placeholder: known && known.url ? `${known.url} (leave empty to keep it)` : "slack://…, mailtos://…, jsons://…" }),
      choose("conf-t-severity", "From severity", C.SEVERITIES, t.min_severity), input("conf-t-kinds", "Only kinds", { value: t.kinds.join(", "), placeholder: "all" }), input("conf-t-burst", "Messages a minute", { value: t.burst, inputmode: "numeric" }),
      el("label", { for: "conf-t-close" }, "Also when it ends"), C.toggle(t.on_close, () => {}, "Also when it ends", false, "conf-t-close")), el("p", { class: "muted" }, "More messages in a minute become one. URLs are those of apprise; a secret in them is never shown again.")],
    [{ text: "Cancel" }, { text: known ? "Change" : "Add", primary: true, act: () => {
      const entry = { name: of("conf-t-name"), min_severity: of("conf-t-severity"), kinds: of("conf-t-kinds").split(",").map((k) => k.trim()).filter(Boolean), on_close: P.byId("conf-t-close").getAttribute("aria-checked") === "true", burst: Number(of("conf-t-burst")) };
      if (P.byId("conf-t-url") && of("conf-t-url")) entry.url = of("conf-t-url");
      if (known) entry.was = known.was || known.name;
      if (!entry.name || (!known && !entry.url)) { P.toast("A target needs a name and a URL.", { level: "bad" }); return false; }
      C.change("notify", "targets", known ? targets().map((x) => x === known ? entry : x) : [...targets(), entry]);
      notifications();
      return true;
    } }]);
  }
  async function test(name, button) {
    button.disabled = true;
    sent[name] = { text: "sending …" };
    notifications();
    try { const r = await P.feed.post("settings/test", { target: name }); sent[name] = r.sent ? { text: "sent", level: "ok" } : { text: r.problem, level: "bad" }; } catch (error) { sent[name] = { text: error.message, level: "bad" }; }
    notifications();
  }
  const scheme = (t) => t.url ? (t.url.includes("***") ? t.url : `${t.url.split("://")[0]}://***`) : t.url_file ? `in ${t.url_file}` : "as before";
  function notifications() {
    const list = targets(), saved = new Set(C.form.sections.notify.keys.find((k) => k.name === "targets").value);
    const rows = list.map((t) => ({ t, name: t.name, url: scheme(t), severity: t.min_severity, kinds: t.kinds.join(", ") || "all", state: sent[t.name] }));
    C.put("notifications", list.length ? table([
      { name: "name", title: "Target", width: 130 }, { name: "url", title: "URL", mono: true },
      { name: "severity", title: "From", width: 110, format: (s) => el("span", { class: "severity", "data-severity": s }, s) }, { name: "kinds", title: "Kinds" },
      { name: "state", title: "Test", width: "26%", format: (s, r) => el("span", { class: "conf-test", "data-level": s ? s.level : "", role: "status", title: s ? s.text : "" }, s ? s.text : saved.has(r.t) ? "not tested" : "save it to test it") },
      { name: "acts", title: "", width: 170, format: (_, r) => C.admin() ? el("span", { class: "conf-acts" }, P.button("Send test", (e) => test(r.name, e.currentTarget), { disabled: !saved.has(r.t) }), P.iconButton("edit", `Change ${r.name}`, () => edit(r.t)), P.iconButton("trash", `Remove ${r.name}`, () => { C.change("notify", "targets", list.filter((x) => x !== r.t)); notifications(); })) : "" },
    ], rows) : el("p", { class: "muted" }, "Nobody is told of alerts. A target is Slack, e-mail, a webhook, or anything else that apprise knows."),
    C.admin() ? P.button("Add a target", () => edit(null)) : null, C.group("Messages", C.fields("notify")));
  }

  // --- GeoIP -------------------------------------------------------------------------------------------------------------
  async function geoip(address) {
    try {
      const g = await P.feed.ask("settings/geoip", { ...quiet, ip: address || null }), line = (name, text) => [el("dt", {}, name), el("dd", {}, text || "–")];
      const field = el("input", { class: "field mono", id: "configuration-geoip-ip", placeholder: "8.8.8.8", value: address || "", autocomplete: "off", "aria-label": "Address to look up", onkeydown: (e) => { if (e.key === "Enter") geoip(e.target.value.trim()); } });
      const found = g.problem ? el("span", { class: "conf-problem", role: "alert" }, g.problem) : g.found ? el("span", { role: "status", class: "conf-found" }, g.found.network ? `${g.found.ip}: ${[g.found.city, g.found.country].filter(Boolean).join(", ") || "no place"} (${g.found.network})` : `${g.found.ip} is not in the database`) : null;
      C.put("geoip", g.database ? el("dl", { class: "conf-facts" }, line("Database", g.database), line("Kind", g.type), line("Built", g.built), g.asn_database ? line("Networks", g.asn_database) : null, g.attribution ? line("By", g.attribution) : null) : null,
        g.advice ? el("p", { class: g.database ? "conf-problem" : "muted" }, g.advice) : null, el("div", { class: "conf-line" }, field, P.button("Check", () => geoip(field.value.trim()), { id: "configuration-geoip-check" }), found));
    } catch (error) { P.failed("configuration-geoip-body", error, () => geoip(address)); }
  }

  // --- users, sessions, tokens ---------------------------------------------------------------------------------------------
  async function users() {
    try { people = (await P.feed.ask("users", quiet)).users; } catch (error) { P.failed("configuration-users-body", error, users); return; }
    C.put("users", table([
      { name: "name", title: "User", format: (n) => n === P.user ? `${n} (you)` : n },
      { name: "role", title: "Role", width: 150, format: (role, r) => el("select", { class: "field", "aria-label": `Role of ${r.name}`, onchange: async (e) => { if (!await act(`users/${encodeURIComponent(r.name)}/role`, { role: e.target.value }, () => P.toast(`${r.name} is ${e.target.value} now`))) users(); } }, ROLES.map((o) => el("option", { value: o, selected: o === role }, o))) },
      { name: "acts", title: "", width: 330, format: (_, r) => el("span", { class: "conf-acts" }, P.button("Password …", () => password(r.name)), P.button("End sessions", () => act("sessions/revoke", { user: r.name }, (d) => { P.toast(`${d.ended} ${d.ended === 1 ? "session" : "sessions"} ended`); return sessions(); })), P.iconButton("trash", `Remove ${r.name}`, () => remove(r.name))) },
    ], people), P.button("Add a user", add));
  }
  const twelve = { type: "password", autocomplete: "new-password", minlength: "12" };
  function add() {
    P.modal("New user", el("div", { class: "fields" }, input("conf-u-name", "Name", {}), choose("conf-u-role", "Role", ROLES, "viewer"), input("conf-u-password", "Password", { ...twelve, placeholder: "at least 12 characters" })),
      [{ text: "Cancel" }, { text: "Add", primary: true, act: () => act("users", { name: of("conf-u-name"), role: of("conf-u-role"), password: P.byId("conf-u-password").value }, users) }]);
  }
  function password(name) {
    P.modal(`Password of ${name}`, [el("div", { class: "fields" }, input("conf-u-password", "New password", { ...twelve, placeholder: "at least 12 characters" })), el("p", { class: "muted" }, "All sessions of this user end.")],
      [{ text: "Cancel" }, { text: "Set", primary: true, act: () => act(`users/${encodeURIComponent(name)}/password`, { password: P.byId("conf-u-password").value }, () => P.toast(`${name} has a new password`)) }]);
  }
  function remove(name) {
    P.modal(`Remove ${name}?`, el("p", {}, "The user's sessions and tokens go with it. This cannot be undone."), [{ text: "Cancel" }, { text: "Remove", primary: true, act: () => act(`users/${encodeURIComponent(name)}/remove`, {}, () => Promise.all([users(), tokens(), sessions()])) }]);
  }
  async function sessions() {
    let list;
    try { list = (await P.feed.ask("sessions", quiet)).sessions; } catch (error) { P.failed("configuration-sessions-body", error, sessions); return; }
    C.put("sessions", table([
      { name: "user", title: "User", width: 120 }, { name: "address", title: "From", mono: true, width: 130 }, { name: "agent", title: "Browser" },
      { name: "begun_s", title: "Since", width: 168, mono: true, format: (v) => F.dateTime(v * 1e6) }, { name: "used_s", title: "Last used", width: 168, mono: true, format: (v) => F.dateTime(v * 1e6) },
      { name: "id", title: "", width: 100, format: (id, r) => r.own ? el("span", { class: "muted" }, "this one") : P.button("End", () => act("sessions/revoke", { id }, sessions), { "aria-label": `End the session of ${r.user} from ${r.address}` }) },
    ], list, "Nobody is signed in."));
  }
  async function tokens() {
    let list;
    try { list = (await P.feed.ask("tokens", quiet)).tokens; } catch (error) { P.failed("configuration-tokens-body", error, tokens); return; }
    C.put("tokens", list.length ? table([
      { name: "label", title: "For" }, { name: "user", title: "User", width: 140 }, { name: "role", title: "Role", width: 110 }, { name: "expires", title: "Until", width: 168, mono: true, format: (v) => F.dateTime(v * 1e6) },
      { name: "id", title: "", width: 100, format: (id, r) => P.button("Revoke", () => act(`tokens/${id}/remove`, {}, tokens), { "aria-label": `Revoke the token ${r.label || id}` }) },
    ], list) : el("p", { class: "muted" }, "Scripts ask /api/v1 with a token instead of a password; /api/v1/openapi.json describes it."), P.button("New token", token));
  }
  function token() {
    P.modal("New token", el("div", { class: "fields" }, choose("conf-k-user", "User", people.map((p) => p.name), P.user), choose("conf-k-role", "At most", ROLES, "viewer"), input("conf-k-days", "Days", { value: "90", inputmode: "numeric" }), input("conf-k-label", "For", { placeholder: "nightly report" })),
      [{ text: "Cancel" }, { text: "Make", primary: true, act: () => act("tokens", { user: of("conf-k-user"), role: of("conf-k-role"), days: Number(of("conf-k-days")) || 0, label: of("conf-k-label") }, async (done) => {
        await tokens();
        P.modal("The token", [el("p", {}, "It is shown this once. Keep it as you keep a password."), el("pre", { class: "sql mono", id: "conf-k-token", tabindex: "0" }, done.token)], [{ text: "Copy", act: () => { P.copy(done.token); return false; } }, { text: "Done", primary: true }]);
      }) }]);
  }

  // --- the audit log ---------------------------------------------------------------------------------------------------------
  const facts = (l) => Object.entries(l).filter(([k, v]) => !["time", "event", "user", "address"].includes(k) && v !== null && v !== "").map(([k, v]) => `${k}: ${v}`).join(" · ");
  async function audit(anew) {
    if (anew) lines = [];
    try {
      const got = (await P.feed.ask("audit", { ...quiet, limit: 50, before: lines.length })).lines;
      lines.push(...got);
      more = got.length === 50;
    } catch (error) { P.failed("configuration-audit-body", error, () => audit(true)); return; }
    drawAudit();
  }
  function drawAudit() {
    C.side("audit", P.iconButton("refresh", "Load the audit log again", () => audit(true)), P.iconButton("download", "Export what is shown as CSV", () => P.csv("audit", ["time", "event", "user", "address", "facts"], lines.map((l) => [l.time, l.event, l.user, l.address, facts(l)]))));
    C.put("audit", table([
      { name: "time", title: "Time", width: 168, mono: true, format: (v) => F.dateTime(Date.parse(v) * 1000) }, { name: "event", title: "What", width: 150 }, { name: "user", title: "Who", width: 110 }, { name: "address", title: "From", width: 120, mono: true },
      { name: "facts", title: "More", format: (_, l) => el("span", { class: "mono", title: facts(l) }, facts(l)) },
    ], lines, "Nothing yet."), more ? P.button("Older", () => audit(false)) : null);
  }

  async function about() {
    try {
      const a = await P.feed.ask("settings/about", quiet);
      C.side("about", el("span", { class: "note" }, `PacketLake ${a.version} · Apache-2.0`));
      C.put("about", table([{ name: "name", title: "Made with" }, { name: "version", title: "Version", width: 140, mono: true }, { name: "licence", title: "Licence", width: "40%" }], a.parts));
    } catch (error) { P.failed("configuration-about-body", error, about); }
  }
  C.notifications = notifications;
  C.people = () => { sent = {}; return Promise.all([geoip(""), about(), ...(P.may("admin") ? [users(), sessions(), tokens(), audit(true)] : [])]); };
  C.repaint = () => { if (P.may("admin")) { sessions(); tokens(); drawAudit(); } };
})();
