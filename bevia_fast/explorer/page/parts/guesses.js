"use strict";

// A grid of best guesses: each cell a character, shaded by its probability. Rows are stages, or frames of the film.

(() => {
  const { el, put, reach, repeat, roving } = Bevia.dom;

  /** @typedef {import("./../views").Row} Row */

  /** What is in a cell. @type {WeakMap<Element, string>} */
  const written = new WeakMap();

  /** The chosen cell that was drawn last. @type {WeakMap<Element, Element>} */
  const seen = new WeakMap();

  /**
   * Scroll the box of a grid sideways, so that a cell is seen; the page stays where it is.
   * @param {HTMLElement} cell
   */
  function reveal(cell) {
    const box = cell.closest(".scroll");
    if (!box || box.scrollWidth <= box.clientWidth) return;
    const place = cell.getBoundingClientRect();
    const inside = box.getBoundingClientRect();
    if (place.left < inside.left + 100 || place.right > inside.right) {
      box.scrollLeft += place.left - (inside.left + inside.right) / 2;
    }
  }

  /**
   * Return a grid in a box that scrolls sideways where it is narrow.
   * @param {string} label
   * @param {string} corner what the rows are
   * @param {(row: number, column: number) => void} chosen
   */
  function make(label, corner, chosen) {
    const table = el("div", { class: "guesses", role: "grid", "aria-label": label });
    roving(table, ".cell", select);
    table.addEventListener("click", (event) => {
      const cell = /** @type {HTMLElement} */ (event.target).closest(".cell");
      if (cell) select(/** @type {HTMLElement} */ (cell));
    });

    /** @param {HTMLElement} cell */
    function select(cell) {
      chosen(Number(cell.dataset.row), Number(cell.dataset.column));
    }

    const box = el("div", { class: "scroll" }, table);
    return { box, table, corner };
  }

  /**
   * @param {ReturnType<typeof make>} grid
   * @param {import("./../views").App} app
   * @param {Row[]} rows
   * @param {{row: number, column: number, truth: (column: number) => number}} cursor
   */
  function draw({ table, corner }, app, rows, cursor) {
    const { tokens } = app.scene;
    const { brief, names } = app.glyphs;
    const theme = Bevia.colors.dark();
    const lines = repeat(table, rows.length + 1, () => el("div", { role: "row", class: "line" }));
    lines.forEach((line, index) => {
      const cells = repeat(line, tokens.length + 1, (column) =>
        column
          ? el("div", {
              role: index ? "gridcell" : "columnheader",
              class: index ? "cell" : "over",
              tabindex: index ? -1 : null,
            })
          : el("div", { role: index ? "rowheader" : "columnheader", class: "side" }),
      );
      const row = rows[index - 1];
      put(cells[0], row ? row.label : corner);
      line.classList.toggle("here", index - 1 === cursor.row);
      for (let column = 0; column < tokens.length; column++) {
        const cell = cells[column + 1];
        if (!row) {
          put(cell, brief[tokens[column]]);
          cell.classList.toggle("here", column === cursor.column);
          continue;
        }
        const token = row.tokens[row.start + column];
        const p = row.p[row.start + column];
        const here = column === cursor.column && index - 1 === cursor.row;
        const right = token === cursor.truth(column);
        // a typed key changes few of the cells, and a large grid takes long to write
        const content = [token, p, right, here, theme, row.label].join();
        if (written.get(cell) === content) continue;
        written.set(cell, content);
        put(cell, brief[token]);
        Bevia.colors.paint(cell, p);
        cell.dataset.row = String(index - 1);
        cell.dataset.column = String(column);
        cell.classList.toggle("right", right);
        cell.classList.toggle("chosen", here);
        cell.setAttribute("aria-selected", String(here));
        cell.setAttribute(
          "aria-label",
          `${row.label}, after position ${column}: ${names[token]}, probability ${Bevia.glyphs.probability(p)}`,
        );
      }
    });
    const chosen = /** @type {HTMLElement} */ (lines[cursor.row + 1].children[cursor.column + 1]);
    reach(table, ".cell", chosen);
    if (seen.get(table) !== chosen) reveal(chosen);
    seen.set(table, chosen);
  }

  Bevia.guesses = { draw, make };
})();
