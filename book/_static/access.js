// What a screen reader, a keyboard or a reader without a server needs and the generated pages lack.
(function () {
  "use strict";
  // A page opened as a file may not read others, so its search shows titles without excerpts.
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  // Entries of the literature and their marks together are no list.
  for (const list of document.querySelectorAll(".citation-list")) list.removeAttribute("role");
  // What scrolls by itself can be reached, to be scrolled with the arrow keys.
  function reach() {
    for (const box of document.querySelectorAll("article :is(table, pre, div.math, .cell_output)")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    }
  }
  window.addEventListener("resize", reach);
  window.addEventListener("load", reach);
})();
