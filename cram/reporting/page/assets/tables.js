// Tables that are sorted by a button in each heading: ascending, descending, then as they were.

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

// What a row is sorted by: a number, or text. Empty cells come last in either order.
function orderOf(row, column) {
  const cell = row.cells[column];
  const text = cell?.dataset.order ?? cell?.textContent.trim() ?? "";
  if (text === "" || text === "–" || text === "None") return null;
  const number = Number(text);
  return Number.isNaN(number) ? text : number;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === "number") return -1;
  if (typeof b === "number") return 1;
  return collator.compare(a, b);
}

function sortTable(table, rows, column, order) {
  const headings = table.tHead.rows[0].cells;
  for (const heading of headings) heading.removeAttribute("aria-sort");
  let sorted = rows;
  if (order) {
    headings[column].setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const keys = new Map(rows.map((row) => [row, orderOf(row, column)]));
    sorted = rows.toSorted((first, second) => {
      const [a, b] = [keys.get(first), keys.get(second)];
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * compare(a, b);
    });
  }
  table.tBodies[0].append(...sorted);
}

function makeSortable(table) {
  const rows = [...table.tBodies[0].rows];
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = make("button", { type: "button", class: "sort" }, ...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const order = { ascending: "descending", descending: null }[heading.getAttribute("aria-sort")];
      const next = order === undefined ? "ascending" : order;
      sortTable(table, rows, column, next);
      keepEntry("orders", table.id, next && [column, next]);
    });
  });
  const kept = state.orders?.[table.id];
  if (kept && kept[0] < table.tHead.rows[0].cells.length) sortTable(table, rows, ...kept);
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
