"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const text = (node) => node.textContent.trim();
  const remember = (value) => { try { localStorage.setItem("sparsecbm-theme", value); } catch (error) { /* a file may have no storage */ } };
  const recalled = () => { try { return localStorage.getItem("sparsecbm-theme"); } catch (error) { return null; } };

  // Theme: follows the system until the reader chooses.
  const toggle = document.getElementById("theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { toggle.textContent = dark() ? "Light theme" : "Dark theme"; };
  const asked = location.hash === "#dark" || location.hash === "#light" ? location.hash.slice(1) : null;
  const start = asked || recalled();
  if (start === "dark" || start === "light") root.dataset.theme = start;
  toggle.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; remember(root.dataset.theme); label(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  label();

  // Tables: sort by any column, search, and show the first rows until asked for all.
  for (const box of document.querySelectorAll("[data-table]")) {
    const table = box.querySelector("table");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const words = new Map(rows.map((row) => [row, text(row).toLowerCase()]));
    const search = box.querySelector("input[type=search]");
    const status = box.querySelector("[role=status]");
    const more = box.querySelector("button.more");
    const first = Number(box.dataset.first) || rows.length;
    let all = rows.length <= first;
    const show = () => {
      const wanted = (search ? search.value : "").trim().toLowerCase();
      let matching = 0, shown = 0;
      for (const row of Array.from(body.rows)) {
        const fits = !wanted || words.get(row).includes(wanted);
        if (fits) matching += 1;
        row.hidden = !fits || (!all && matching > first);
        if (!row.hidden) shown += 1;
      }
      if (status) status.textContent = wanted || shown < rows.length ? `${shown} of ${rows.length} shown` : `${rows.length} in all`;
      if (more) { more.hidden = rows.length <= first; more.textContent = all ? `Show the first ${first}` : `Show all ${rows.length}`; }
    };
    const value = (row, column) => {
      const cell = row.cells[column];
      if (cell.dataset.value !== undefined) return cell.dataset.value === "" ? null : Number(cell.dataset.value);
      return text(cell);
    };
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.disabled = false;
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const number = typeof value(rows[0], column) !== "string";
        const down = before ? before === "ascending" : number;
        table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const sign = down ? -1 : 1;
        const sorted = rows.map((row, place) => [value(row, column), place, row]).sort((a, b) => {
          if (a[0] === null || b[0] === null) return (a[0] === null) - (b[0] === null) || a[1] - b[1];
          const order = typeof a[0] === "string" ? a[0].localeCompare(b[0]) : a[0] - b[0];
          return sign * order || a[1] - b[1];
        });
        for (const [, , row] of sorted) body.append(row);
        show();
      });
    });
    if (search) search.addEventListener("input", show);
    if (more) more.addEventListener("click", () => { all = !all; show(); });
    addEventListener("beforeprint", () => { for (const row of rows) row.hidden = false; });
    addEventListener("afterprint", show);
    show();
  }

  // Explained pictures: search over file names, classes and concepts.
  const find = document.getElementById("find");
  const cards = Array.from(document.querySelectorAll(".card"));
  const found = document.getElementById("found");
  if (find) {
    const words = cards.map((card) => (text(card) + " " + (card.querySelector("img") ? card.querySelector("img").alt : "")).toLowerCase());
    const filter = () => {
      const wanted = find.value.trim().toLowerCase();
      let shown = 0;
      cards.forEach((card, place) => { card.hidden = Boolean(wanted) && !words[place].includes(wanted); if (!card.hidden) shown += 1; });
      found.textContent = wanted ? `${shown} of ${cards.length} pictures` : "";
    };
    find.addEventListener("input", filter);
  }
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
})();
