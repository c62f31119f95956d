// Before anything is drawn: the colours that the reader chose last time, if they can be kept.
(function () {
  "use strict";
  try {
    var chosen = window.localStorage.getItem("tritier-theme");
    if (chosen === "light" || chosen === "dark") {
      document.documentElement.setAttribute("data-theme", chosen);
    }
  } catch (error) {
    // Storage is forbidden for this page: the system's colours it is.
  }
})();
