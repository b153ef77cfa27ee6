"use strict";

// Elements, without HTML: whatever a run brings along reaches the page as text only.

(() => {
  const SVG = "http://www.w3.org/2000/svg";

  /** @typedef {string | Node | null | undefined | false} Child */
  /** @typedef {Record<string, string | number | boolean | null | undefined | ((event: any) => void)>} Attributes */

  /**
   * @param {Element} element
   * @param {Attributes} attributes
   */
  function assign(element, attributes) {
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === "function") element.addEventListener(name, value);
      else if (value === null || value === undefined || value === false) element.removeAttribute(name);
      else element.setAttribute(name, value === true ? "" : String(value));
    }
  }

  /**
   * Make an element. Functions among the attributes listen to the event of that name.
   * @template {keyof HTMLElementTagNameMap} K
   * @param {K} tag
   * @param {Attributes} [attributes]
   * @param {...Child} children
   * @returns {HTMLElementTagNameMap[K]}
   */
  function el(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    assign(element, attributes);
    element.append(...present(children));
    return element;
  }

  /**
   * Make an element of a drawing.
   * @template {keyof SVGElementTagNameMap} K
   * @param {K} tag
   * @param {Attributes} [attributes]
   * @param {...Child} children
   * @returns {SVGElementTagNameMap[K]}
   */
  function svg(tag, attributes = {}, ...children) {
    const element = document.createElementNS(SVG, tag);
    assign(element, attributes);
    element.append(...present(children));
    return element;
  }

  /** @param {Child[]} children */
  function present(children) {
    return /** @type {(string | Node)[]} */ (children.filter((child) => child || child === ""));
  }

  /**
   * Return an element of the page.
   * @param {string} id
   */
  function byId(id) {
    const found = document.getElementById(id);
    if (!found) throw new Error(`the page has no element ${id}`);
    return found;
  }

  /**
   * Let the arrow keys, Home and End move the focus within a group of which Tab reaches one element (a "roving
   * tabindex"). Up and down go to the nearest element above or below.
   * @param {HTMLElement} group
   * @param {string} selector of the elements
   * @param {(element: HTMLElement) => void} [moved] is called with the element that an arrow key reached
   */
  function roving(group, selector, moved) {
    group.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const all = /** @type {HTMLElement[]} */ ([...group.querySelectorAll(selector)]);
      const now = all.indexOf(/** @type {HTMLElement} */ (document.activeElement));
      if (now < 0) return;
      const next = target(all, now, event.key);
      if (next < 0) return;
      event.preventDefault();
      reach(group, selector, all[next]);
      all[next].focus();
      if (moved) moved(all[next]);
    });
    group.addEventListener("focusin", (event) => {
      const element = /** @type {HTMLElement} */ (event.target);
      if (element.matches(selector)) reach(group, selector, element);
    });
  }

  /**
   * Make `element` the one of its group that Tab reaches.
   * @param {HTMLElement} group
   * @param {string} selector
   * @param {HTMLElement | undefined} element
   */
  function reach(group, selector, element) {
    for (const other of /** @type {NodeListOf<HTMLElement>} */ (group.querySelectorAll(selector))) {
      const wanted = other === element ? 0 : -1;
      if (other.tabIndex !== wanted) other.tabIndex = wanted;
    }
  }

  /**
   * Return the index that a key leads to, or -1.
   * @param {HTMLElement[]} all
   * @param {number} now
   * @param {string} key
   */
  function target(all, now, key) {
    const last = all.length - 1;
    if (key === "ArrowRight") return Math.min(now + 1, last);
    if (key === "ArrowLeft") return Math.max(now - 1, 0);
    if (key === "Home") return 0;
    if (key === "End") return last;
    if (key !== "ArrowDown" && key !== "ArrowUp") return -1;
    const from = all[now].getBoundingClientRect();
    const x = from.left + from.width / 2;
    const sign = key === "ArrowDown" ? 1 : -1;
    let best = now;
    let distance = Infinity;
    all.forEach((element, index) => {
      const place = element.getBoundingClientRect();
      const down = sign * (place.top - from.top);
      if (down < from.height / 2) return;
      const away = 100 * down + Math.abs(place.left + place.width / 2 - x);
      if (away < distance) [best, distance] = [index, away];
    });
    return best;
  }

  /**
   * Give an element the wanted number of children, made by `make`, and return them. Children that exist are kept, so
   * that a focus stays where it is.
   * @template {HTMLElement} E
   * @param {HTMLElement} parent
   * @param {number} count
   * @param {(index: number) => E} make
   * @returns {E[]}
   */
  function repeat(parent, count, make) {
    while (parent.children.length > count) parent.children[parent.children.length - 1].remove();
    while (parent.children.length < count) parent.append(make(parent.children.length));
    return /** @type {E[]} */ ([...parent.children]);
  }

  /**
   * @param {Element} element
   * @param {string} text
   */
  function put(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  /** @param {...Child} children */
  const card = (...children) => el("div", { class: "card" }, ...children);

  /** @param {...Child} children */
  const caption = (...children) => el("p", { class: "caption" }, ...children);

  /**
   * Make a value that a click explains.
   * @param {string} number its address
   * @param {string} text
   */
  function numeral(number, text) {
    return el("button", { type: "button", class: "value", "data-number": number }, text);
  }

  Bevia.dom = { assign, byId, caption, card, el, numeral, put, reach, repeat, roving, svg };
})();
