"use strict";

// A list of bars, one button for each: what the model expects.

(() => {
  const { el, put, reach, repeat, roving } = Bevia.dom;

  /** @typedef {import("./../views").Bar} Bar */

  /**
   * Return a group of bars, which the arrow keys walk through.
   * @param {string} label
   */
  function group(label) {
    const root = el("div", { class: "bars", role: "group", "aria-label": label });
    roving(root, "button");
    return root;
  }

  /**
   * @param {HTMLElement} root
   * @param {Bar[]} bars
   * @param {number} [most] the value of a bar of full width
   */
  function draw(root, bars, most = 1) {
    const rows = repeat(root, bars.length, () =>
      el(
        "button",
        { type: "button", class: "bar" },
        el("span", {}, el("bdi", { class: "glyph" }), el("span", { class: "unseen" })),
        el("span", { class: "track" }, el("span", { class: "fill" }), el("span", { class: "ghost" })),
        el("span", { class: "value" }),
        el("span", { class: "mark" }),
      ),
    );
    root.classList.toggle(
      "wide",
      bars.some(({ label }) => label.length > 2),
    );
    rows.forEach((row, index) => {
      const bar = bars[index];
      const [label, track, value, mark] = row.children;
      put(label.children[0], bar.label);
      put(label.children[1], bar.name === bar.label ? ": " : ` ${bar.name}: `);
      put(value, bar.text);
      put(mark, bar.mark || "");
      const [fill, ghost] = /** @type {HTMLElement[]} */ ([...track.children]);
      fill.style.width = `${100 * Math.min(1, bar.value / most)}%`;
      ghost.style.left = `${100 * Math.min(1, (bar.ghost ?? 0) / most)}%`;
      ghost.hidden = bar.ghost === undefined || Math.abs(bar.ghost - bar.value) < 5e-4;
      row.classList.toggle("marked", Boolean(bar.mark));
      row.classList.toggle("out", bar.value === 0 && bar.ghost !== undefined);
      row.dataset.number = bar.number || "";
      row.disabled = !bar.number;
    });
    if (
      !rows.some((row) => row.tabIndex === 0 && !row.disabled)
      || rows.filter((row) => row.tabIndex === 0).length > 1
    ) {
      reach(
        root,
        "button",
        rows.find((row) => !row.disabled),
      );
    }
  }

  Bevia.bars = { draw, group };
})();
