"use strict";
// Tables: a click on the head of a column sorts by it, a second one in the other direction.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rows = [...table.tBodies[0].rows];
      const numeric = rows.every((row) => row.cells[column].dataset.value !== undefined || !row.cells[column].textContent);
      rows.sort((a, b) => {
        const [left, right] = [value(a), value(b)];
        if (!numeric) return direction * left.localeCompare(right, undefined, { numeric: true });
        // Empty cells stay at the end.
        if (left === "" || right === "") return (left === "") - (right === "");
        return left === right ? 0 : direction * (Number(left) < Number(right) ? -1 : 1);
      });
      table.tBodies[0].append(...rows);
    });
  });
}
// Pictures: the separate pictures become a comparison with a movable border.
for (const figure of document.querySelectorAll(".comparison")) {
  const source = (key) => [...figure.querySelectorAll(".pictures img")].find((image) => image.dataset.key === key);
  const part = (name) => figure.querySelector("." + name);
  const [frame, before, after, points] = ["frame", "before", "after", "points"].map(part);
  const [left, right, range, toggle, stage] = ["left", "right", "range", "toggle", "stage"].map(part);
  const show = () => {
    const [first, second] = [source(left.value), source(right.value)];
    before.src = first.src;
    before.alt = first.alt;
    after.src = second.src;
    after.alt = second.alt;
    frame.style.setProperty("--border", range.value + "%");
    range.setAttribute("aria-valuetext", range.value + "% " + left.value);
    if (!toggle) return;
    points.hidden = !toggle.checked;
    points.src = source(stage.value).src;
    points.alt = source(stage.value).alt;
  };
  for (const control of [left, right, range, toggle, stage]) control?.addEventListener("input", show);
  show();
  frame.style.width = Number(source(left.value).getAttribute("width")) < 300 ? "30rem" : "";
  part("interactive").hidden = false;
  figure.querySelector("details").open = false;
}
