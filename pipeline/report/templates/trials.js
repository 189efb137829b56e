// The table of a sweep's trials: a click on a heading sorts by it, a word in the field keeps the rows that have it.
const trials = document.getElementById("trial-table");

if (trials) {
  const body = trials.tBodies[0];
  const rows = [...body.rows];
  const field = document.getElementById("trial-filter");
  const headings = [...trials.tHead.rows[0].cells];
  const number = (text) => (text === "–" ? NaN : Number(text.replaceAll(",", "")));

  // Numbers by their size, with those that are none at the end; any other texts by their letters.
  function compare(one, other, direction) {
    const [a, b] = [number(one), number(other)];
    if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
    return direction * (Number.isNaN(a) ? one.localeCompare(other) : a - b);
  }

  function sort(place) {
    const descending = headings[place].ariaSort === "ascending";
    for (const heading of headings) if (heading.ariaSort) heading.ariaSort = "none";
    headings[place].ariaSort = descending ? "descending" : "ascending";
    const text = (row) => row.cells[place].textContent.trim();
    rows.sort((one, other) => compare(text(one), text(other), descending ? -1 : 1));
    body.append(...rows);
  }

  // Words that a row must have, each as PATH=VALUE or any text in it.
  function matches(row, word) {
    const [path, value] = word.split("=");
    const place = headings.findIndex((heading) => heading.textContent.trim() === path);
    if (value !== undefined && place >= 0) return row.cells[place].textContent.trim() === value;
    return row.textContent.includes(word);
  }

  function filter() {
    const words = field.value.split(/[\s,]+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => matches(row, word));
    const shown = rows.filter((row) => !row.hidden).length;
    document.getElementById("trial-count").textContent = `${shown} of ${rows.length}`;
  }

  headings.forEach((heading, place) => heading.querySelector("button")?.addEventListener("click", () => sort(place)));
  field.addEventListener("input", filter);
  filter();
}
