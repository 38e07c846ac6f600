// A click on the head of a column sorts a table of class "sortable": numbers by value, text by its letters.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.style.cssText = "all: unset; cursor: pointer; text-decoration: underline dotted";
      button.addEventListener("focus", () => { button.style.outline = "2px solid"; });
      button.addEventListener("blur", () => { button.style.outline = ""; });
      head.replaceChildren(button);
      button.addEventListener("click", () => sort(table, head, column));
    });
  }

  function sort(table, head, column) {
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => (descending ? -1 : 1) * compare(text(a, column), text(b, column)));
    table.tBodies[0].append(...rows);
  }

  const text = (row, column) => row.cells[column].textContent.trim();

  function compare(a, b) {
    const [x, y] = [parseFloat(a), parseFloat(b)];
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? -1 : 1;
    return Number.isNaN(x) ? a.localeCompare(b) : x - y;
  }
});
