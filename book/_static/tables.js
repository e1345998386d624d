// Every table of data sorts by a click on a heading, and the rows of a wide one are cards on a phone (book.css). Without
// this script it is a plain table.
(function () {
  "use strict";
  // A number, and what may follow it in a cell: a unit, a spread, a count of seeds.
  const NUMBER = /^[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?(?=$|[\s%±×(])/i;
  const text = (row, i) => (row.cells[i].dataset.value ?? row.cells[i].textContent).trim().replace("−", "-");
  const number = (value) => Number((value.match(NUMBER) ?? ["NaN"])[0].replaceAll(",", ""));

  function sort(table, heading) {
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = Array.from(table.tBodies[0].rows, (row) => ({ row, text: text(row, heading.cellIndex) }));
    // Words such as "not run" may stand among numbers; they come last.
    const numbers = rows.some((r) => NUMBER.test(r.text)) && rows.every((r) => NUMBER.test(r.text) || !/\d/.test(r.text));
    const known = (r) => !numbers || NUMBER.test(r.text);
    rows.sort((a, b) => {
      if (known(a) !== known(b)) return known(a) ? -1 : 1;
      const both = numbers && known(a);
      const order = both ? number(a.text) - number(b.text) : a.text.localeCompare(b.text, "en", { numeric: true });
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows.map((r) => r.row));
  }

  // As cards a table is no table to a screen reader, unless its parts say what they are.
  const ROLES = { thead: "rowgroup", tbody: "rowgroup", tr: "row", th: "columnheader", td: "cell" };
  const LONG = 20; // characters that half a phone holds in a line

  function nameCells(table) {
    const names = Array.from(table.tHead.rows[0].cells, (heading) => heading.textContent.trim());
    table.classList.add("cards");
    table.setAttribute("role", "table");
    for (const part of table.querySelectorAll(Object.keys(ROLES).join())) part.setAttribute("role", ROLES[part.localName]);
    for (const row of table.tBodies[0].rows) {
      Array.from(row.cells).forEach((cell, i) => {
        const words = cell.textContent.trim();
        cell.dataset.label = names[i] ?? "";
        cell.classList.toggle("long", words.length > LONG);
        cell.classList.toggle("none", words === "" || words === "–");
      });
    }
  }

  for (const table of document.querySelectorAll("article table")) {
    // A form is no table of data; what is unfolded under a figure is data as such.
    if (table.tHead?.rows.length !== 1 || table.closest("form, .demo, .provenance")) continue;
    if (table.tHead.rows[0].cells.length > 3 || table.matches(".claims")) nameCells(table);
  }

  for (const table of document.querySelectorAll("table.dataframe")) {
    if (table.tHead?.rows.length !== 1 || table.tBodies[0].rows.length < 2) continue;
    for (const heading of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => sort(table, heading));
    }
  }
})();
