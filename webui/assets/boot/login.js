// A one-time link has its token behind the #, which is never sent: this takes it from there and posts it.
(function () {
  "use strict";
  const form = document.getElementById("form");
  const found = /^#token=([A-Za-z0-9_-]+)$/.exec(location.hash);
  if (!form || !found) return;
  history.replaceState(null, "", location.pathname + location.search);
  form.elements.token.value = found[1];
  if (form.getAttribute("action") !== "/login") return;
  for (const input of form.querySelectorAll("[required]")) input.required = false;
  form.submit();
})();
