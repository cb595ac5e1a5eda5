// Before anything is drawn: the theme of last time, or that of the system.
(function () {
  let theme = null;
  try { theme = localStorage.getItem("packetlake-theme"); } catch (e) { /* storage is off: follow the system */ }
  if (theme !== "light" && theme !== "dark") {
    theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  }
  document.documentElement.dataset.theme = theme;
})();
