// What a screen reader, a keyboard or a reader without a server needs and the generated pages lack.
(function () {
  "use strict";
  // A page opened as a file may not read others, so its search shows titles without excerpts.
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  // Entries of the literature and their marks together are no list.
  for (const list of document.querySelectorAll(".citation-list")) list.removeAttribute("role");
  // What scrolls by itself can be reached, to be scrolled with the arrow keys, and says at which edges there is more.
  const BOXES = "article :is(table, pre, div.math, mjx-container[display], .cell_output, .pst-scrollable-table-container)";

  function look(box) {
    const hidden = box.scrollWidth - box.clientWidth;
    const scrolls = hidden > 1 && /auto|scroll/.test(getComputedStyle(box).overflowX);
    if (scrolls && !box.hasAttribute("tabindex")) box.tabIndex = 0;
    const more = [box.scrollLeft > 1 && "left", box.scrollLeft < hidden - 1 && "right"].filter(Boolean);
    if (scrolls) box.dataset.more = more.join(" ");
    else delete box.dataset.more;
  }

  const sizes = new ResizeObserver((changes) => changes.forEach((change) => look(change.target)));
  const watch = () => document.querySelectorAll(BOXES).forEach((box) => sizes.observe(box));
  watch();
  window.addEventListener("load", async () => {
    await window.MathJax?.startup?.promise; // formulas are there from then on
    watch();
  });
  const scrolled = (event) => event.target instanceof Element && event.target.matches(BOXES) && look(event.target);
  document.addEventListener("scroll", scrolled, { capture: true, passive: true });
})();
