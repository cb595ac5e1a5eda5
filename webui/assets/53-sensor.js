// Which sensor, where several write into the lake: a term of the filter, so that links, exports and SQL have it too.
(function () {
  "use strict";
  const P = window.packetlake, el = P.el;
  let names = [];

  // The one that the filter names, "" for all, null when it says something that this list cannot.
  function chosen() {
    const terms = P.url.sensorTerms();
    return !terms.length ? "" : terms.length === 1 ? names.find((n) => terms[0] === `sensor=${P.url.quoted(n)}`) ?? null : null;
  }
  function choose(name) {
    P.url.setTerms([...(name ? [`sensor=${P.url.quoted(name)}`] : []), ...P.url.terms().filter((t) => !P.url.ofSensor(t))]);
  }
  function draw() {
    const box = P.byId("shell-sensor");
    if (!box) return;
    box.hidden = names.length < 2;
    if (box.hidden) return;
    const now = chosen(), options = [["", "All sensors"], ...names.map((n) => [n, n]), ...(now === null ? [["?", "As filtered"]] : [])];
    const list = box.querySelector("select") || el("select", { class: "field", "aria-label": "Sensor", title: "Sensor", onchange: (e) => { if (e.target.value !== "?") choose(e.target.value); } });
    if ([...list.options].map((o) => o.value).join("\n") !== options.map(([v]) => v).join("\n")) list.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
    list.value = now === null ? "?" : now;
    if (!list.parentNode) box.replaceChildren(list);
  }
  P.on("state", (s) => { if (s && s.sensors) { names = s.sensors; draw(); } });
  P.on("url", draw);
})();
