// The terms of an equation (dcil/lab/demos/terms.py): a line of buttons, each of which explains itself below the line on
// hover or focus. Without this script they are a list.
(function () {
  "use strict";
  document.querySelectorAll(".demo.terms").forEach((demo, i) => {
    const rows = Array.from(demo.querySelectorAll("dl > div"));

    function explain(chosen) {
      for (const row of rows) row.classList.toggle("chosen", row === chosen);
    }

    rows.forEach((row, j) => {
      const term = row.querySelector(".term");
      const button = document.createElement("button");
      button.type = "button";
      button.className = "term";
      button.setAttribute("aria-label", term.dataset.name);
      button.append(...term.childNodes);
      term.replaceWith(button);
      const words = row.querySelector("dd");
      words.id = `term-${i}-${j}`;
      button.setAttribute("aria-describedby", words.id);
      for (const event of ["mouseenter", "focus", "click"]) button.addEventListener(event, () => explain(row));
    });
    demo.classList.add("live");
    explain(rows[0]);
  });

  // MathJax makes each formula a stop of the Tab key; here the terms alone are stops.
  window.addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    for (const formula of document.querySelectorAll(".demo.terms [tabindex]")) formula.removeAttribute("tabindex");
  });
})();
