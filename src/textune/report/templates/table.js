"use strict";
// Makes tables of class "search" searchable and sortable. Without it they are plain tables.
for (const table of document.querySelectorAll("table.search")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const words = rows.map((row) => row.textContent.toLowerCase());

  const label = document.createElement("label");
  const field = document.createElement("input");
  const count = document.createElement("span");
  field.type = "search";
  count.setAttribute("role", "status");
  count.className = "muted";
  label.append("Search ", field);
  const tools = document.createElement("p");
  tools.className = "tools";
  tools.append(label, " ", count);
  table.closest(".tall").before(tools);
  field.addEventListener("input", () => {
    const asked = field.value.toLowerCase();
    let shown = 0;
    rows.forEach((row, index) => {
      row.hidden = !words[index].includes(asked);
      shown += row.hidden ? 0 : 1;
    });
    count.textContent = `${shown} of ${rows.length} rows`;
  });

  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const compare = (a, b) => {
        const [one, other] = [key(a), key(b)];
        const difference = Number(one) - Number(other);
        return Number.isNaN(difference) ? one.localeCompare(other) : difference;
      };
      rows.slice().sort((a, b) => (down ? compare(b, a) : compare(a, b))).forEach((row) => body.append(row));
    });
  });
}
