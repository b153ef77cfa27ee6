"use strict";

// The page: opens the data, keeps the state, and lets the views draw it.

(() => {
  const { byId, el, put } = Bevia.dom;
  const { whole } = Bevia.glyphs;

  /** @typedef {import("./views").App} App */
  /** @typedef {import("./views").ViewName} ViewName */

  const LATER = 200; // milliseconds until the address follows: browsers count how often it changes

  /** @param {import("./types").Data} data */
  function start(data) {
    const { header } = data;
    const scenes = Bevia.scenes.open(data);
    const state = Bevia.state.read(hash(), header);
    /** @type {Set<string>} */
    const built = new Set();
    let waiting = 0;

    /** @type {App} */
    const app = {
      data,
      header,
      state,
      scenes,
      scene: scenes.of(state),
      hovered: -1,
      last: Math.max(0, header.film.length - 1),
      half: header.tensors["model/wte.weight"].dtype === "float16",
      glyphs: Bevia.glyphs.of(header.alphabet, header.pieces),
      set(change) {
        const old = app.state;
        app.state = Bevia.state.fitting({ ...old, ...change }, header);
        app.hovered = -1;
        if (app.state.view !== old.view) window.scrollTo({ top: 0 });
        app.redraw();
        clearTimeout(waiting);
        waiting = setTimeout(() => keep(Bevia.state.write(app.state, header)), LATER);
      },
      explain(number) {
        app.set({ number });
        const found = Bevia.numbers.explain(app, number);
        if (found) app.announce(`${found.title}, ${found.of}: ${Bevia.glyphs.number(found.value)} ${found.unit}`);
      },
      announce: (text) => put(byId("live"), text),
      hover(position) {
        if (position === app.hovered) return;
        app.hovered = position;
        if (app.state.view !== "attention") return;
        Bevia.text.update(app);
        Bevia.views.attention.update(app);
      },
      redraw,
    };

    function redraw() {
      theme(app.state.theme);
      app.scene = scenes.of(app.state);
      if (app.scene.frame !== app.state.frame) app.state = { ...app.state, frame: app.scene.frame };
      const { view } = app.state;
      tabs(view);
      Bevia.text.update(app);
      Bevia.filmbar.update(app);
      const shown = Bevia.views[view];
      if (!built.has(view)) shown.build(byId(`view-${view}`), app);
      built.add(view);
      shown.update(app);
      Bevia.views.number.dock(app);
      Bevia.tour.update(app);
    }

    byId("loading").remove();
    byId("text-card").hidden = false;
    facts(app);
    Bevia.text.build(app);
    Bevia.filmbar.build(app);
    Bevia.tour.build(app);
    listen(app);
    redraw();
    performance.mark("ready");
    document.documentElement.dataset.ready = "true";
    // what a first key would wait for
    setTimeout(() => app.scene.trace(), 300);
  }

  /**
   * Show the panel of a view, and mark its tab.
   * @param {ViewName} view
   */
  function tabs(view) {
    for (const tab of /** @type {NodeListOf<HTMLElement>} */ (byId("tabs").querySelectorAll("[role=tab]"))) {
      const on = tab.dataset.view === view;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      byId(`view-${tab.dataset.view}`).hidden = !on;
    }
    document.body.dataset.view = view;
  }

  /**
   * Say which model this is, and what the page leaves out.
   * @param {App} app
   */
  function facts({ header, data }) {
    const { config } = header;
    const count = Object.entries(header.tensors)
      .filter(([name]) => name.startsWith("model/"))
      .reduce((sum, [name]) => sum + data.header.tensors[name].shape.reduce((product, size) => product * size, 1), 0);
    const size = count < 1e5 ? whole(count) : `${(count / 1e6).toFixed(1)} million`;
    byId("facts").replaceChildren(
      el("bdi", {}, header.run),
      ` · ${size} parameters · ${config.layers} ${config.layers === 1 ? "layer" : "layers"} × ${config.heads} ${config.heads === 1 ? "head" : "heads"} · ${whole(header.step)} steps`,
    );
    const options = Object.entries(header.train_config)
      .map(([name, value]) => `${name.replace(/_/g, " ")} ${value}`)
      .join(" · ");
    byId("notes").append(
      ...header.notes.map((note) => el("p", {}, note)),
      el(
        "p",
        {},
        `${config.norm}-norm · ${config.activation} · ${config.dim} channels · context of ${config.ctx} characters · vocabulary of ${config.vocab} · ${config.tie ? "tied" : "untied"} head · ${config.bias ? "with" : "without"} biases · ${header.dtype}, ${header.backend} kernels`,
      ),
      options ? el("p", {}, `Training: ${options}`) : el("p"),
      el("p", {}, `Made by ${header.program} on ${header.made}. This file asks nothing of any network.`),
    );
    document.title = `${header.run} · bevia-fast explorer`;
  }

  /** @param {App} app */
  function listen(app) {
    Bevia.dom.roving(byId("tabs"), "[role=tab]", (tab) =>
      app.set({ view: /** @type {ViewName} */ (tab.dataset.view) }),
    );
    byId("tabs").addEventListener("click", (event) => {
      const tab = /** @type {HTMLElement} */ (event.target).closest("[role=tab]");
      if (tab) app.set({ view: /** @type {ViewName} */ (/** @type {HTMLElement} */ (tab).dataset.view) });
    });
    document.addEventListener("click", (event) => {
      const found = /** @type {HTMLElement} */ (event.target).closest("[data-number]");
      const address = found ? /** @type {HTMLElement} */ (found).dataset.number : "";
      if (address) app.explain(address);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && app.state.number && app.state.view !== "number") app.set({ number: "" });
    });
    byId("skip").addEventListener("click", () => byId("main").focus());
    byId("theme").addEventListener("click", () => app.set({ theme: Bevia.colors.dark() ? "light" : "dark" }));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => app.redraw());
    let resizing = 0;
    window.addEventListener("resize", () => {
      cancelAnimationFrame(resizing);
      resizing = requestAnimationFrame(() => app.redraw());
    });
    window.addEventListener("hashchange", () => {
      app.state = Bevia.state.read(hash(), app.header);
      app.redraw();
    });
  }

  /** @param {string} chosen */
  function theme(chosen) {
    const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    put(byId("theme"), dark ? "☀ Light" : "☾ Dark");
    byId("theme").setAttribute("aria-label", `Change to the ${dark ? "light" : "dark"} theme`);
  }

  // In a sandboxed frame, such as a notebook's, the address may be out of reach.
  function hash() {
    try {
      return location.hash;
    } catch {
      return "";
    }
  }

  /** @param {string} text */
  function keep(text) {
    try {
      history.replaceState(null, "", text || location.pathname + location.search);
    } catch {
      // then the state is not kept
    }
  }

  /** @param {unknown} error */
  function failed(error) {
    const text = error instanceof Error ? error.message : String(error);
    put(byId("loading"), `This page cannot be shown: ${text}. A newer browser may help.`);
    byId("loading").hidden = false;
  }

  Bevia.data
    .read(document)
    .then(start)
    .catch((error) => {
      if (document.getElementById("loading")) failed(error);
      else throw error;
    });
})();
