// What a screen reader or a keyboard needs and the generated pages lack.
(function () {
  "use strict";
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
