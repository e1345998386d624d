// The table of all runs: filter by words and by columns. Without this script it is a plain table.
(function () {
  "use strict";
  const table = document.getElementById("runs");
  if (!table) return;
  const rows = Array.from(table.tBodies[0].rows);
  const words = document.getElementById("runs-words");
  const count = document.getElementById("runs-count");
  const choices = Array.from(document.querySelectorAll("select[data-runs]"));
  document.getElementById("runs-form").hidden = false;

  function show() {
    const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.dataset.text;
      const fits = asked.every((word) => text.includes(word)) &&
        choices.every((c) => !c.value || row.dataset[c.dataset.runs] === c.value);
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    count.textContent = shown + " of " + rows.length + " runs";
  }

  words.addEventListener("input", show);
  choices.forEach((choice) => choice.addEventListener("change", show));
  // A link to a run opens it.
  function open() {
    const row = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const details = row && row.querySelector("details");
    if (details) details.open = true;
  }
  window.addEventListener("hashchange", open);
  show();
  open();
})();
