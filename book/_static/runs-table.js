// The table of all runs: filter by words and by columns, sort by a click on a heading. Without this script it is a plain table.
(function () {
  "use strict";
  const table = document.getElementById("runs");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
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

  function sort(button) {
    const heading = button.closest("th");
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.cells[heading.cellIndex].dataset.value ?? row.cells[heading.cellIndex].textContent;
    const number = rows.every((row) => value(row) === "" || !Number.isNaN(Number(value(row))));
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      const order = number ? Number(x) - Number(y) : x.localeCompare(y);
      return down ? -order : order;
    });
    body.append(...rows);
  }

  words.addEventListener("input", show);
  choices.forEach((choice) => choice.addEventListener("change", show));
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(button));
  }
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
