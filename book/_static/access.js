// What a screen reader or a keyboard needs and the generated pages lack.
(function () {
  "use strict";
  // The arrows that open a part of the contents have no name.
  for (const summary of document.querySelectorAll("summary:has(> .toctree-toggle)")) {
    const part = summary.closest("li").querySelector("a").textContent.trim();
    summary.setAttribute("aria-label", `pages under ${part}`);
  }
  // Sphinx sets out the arguments of a long signature as a list of definitions, which they are not.
  for (const part of document.querySelectorAll("dt > dl, dt > dl > dd")) part.setAttribute("role", "none");
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
