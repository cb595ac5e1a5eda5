// The range: quick ones, from-to, Live, and the zone of every time on the page.
(function () {
  "use strict";
  const P = window.packetlake, el = P.el, F = P.format;

  function draw() {
    const range = P.url.range(), live = P.url.live(), button = P.byId("shell-live");
    if (!button) return;
    let quick = false;
    for (const b of document.querySelectorAll("[data-range]")) {
      const on = b.dataset.range === range.split("@")[0] && !P.url.absolute();
      quick = quick || on;
      b.setAttribute("aria-pressed", String(on));
    }
    const both = P.url.absolute(), custom = P.byId("shell-custom");
    custom.setAttribute("aria-pressed", String(!quick));
    custom.textContent = both ? F.span(both[0], both[1]) : quick ? "Custom" : range;
    custom.title = both ? `${F.dateTime(both[0])} – ${F.dateTime(both[1])} ${F.zone(both[1])}` : "From and to";
    button.setAttribute("aria-pressed", String(live));
    button.querySelector("span:last-child").textContent = live ? "Live" : range.endsWith("@newest") ? "Newest" : "Paused";
    P.setText("shell-zone", P.url.zone() === "utc" ? "UTC" : "Local");
    P.byId("shell-zone").title = `Times are in ${F.zone()}. Click for ${P.url.zone() === "utc" ? "this browser's zone" : "UTC"}.`;
  }
  function pick(at) {
    const both = P.url.absolute(), end = both ? both[1] : P.url.moment(), start = both ? both[0] : end - P.url.seconds() * 1e6;
    const from = el("input", { type: "datetime-local", step: "1", id: "shell-from", value: F.toInput(start) }), to = el("input", { type: "datetime-local", step: "1", id: "shell-to", value: F.toInput(end) });
    const problem = el("p", { class: "problem", role: "alert" });
    const go = (text) => { box.close(); P.url.setRange(text); };
    const box = P.modal("Time range", [
      el("div", { class: "quick" }, Object.keys(P.url.QUICK).map((q) => P.button(q, () => go(q))), P.button("Newest packets", () => go("5m@newest")), P.button("Everything", () => go("all"))),
      el("div", { class: "fields" }, el("label", { for: "shell-from" }, `From (${F.zone()})`), from, el("label", { for: "shell-to" }, `To (${F.zone()})`), to), problem,
    ], [{ text: "Cancel" }, { text: "Apply", primary: true, act: () => {
      const a = F.fromInput(from.value), b = F.fromInput(to.value);
      if (!(a < b)) { problem.textContent = "The end must be later than the beginning."; return false; }
      P.url.setAbsolute(a, b);
      return true;
    } }]);
    box.classList.add("range-picker");
    from.focus();
    return at;
  }
  document.addEventListener("click", (event) => {
    const b = event.target.closest("button");
    if (!b) return;
    if (b.dataset.range) P.url.setRange(b.dataset.range);
    else if (b.id === "shell-custom") pick(b);
    else if (b.id === "shell-live") P.url.toggleLive();
    else if (b.id === "shell-zone") { P.url.set({ tz: P.url.zone() === "utc" ? "local" : "utc" }, true); P.emit("repaint"); }
  });
  P.pickRange = () => pick();
  P.on("frame", draw);
  P.on("url", draw);
})();
