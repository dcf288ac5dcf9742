"use strict";
// Figures are drawn when they come into view, so that a page with a hundred of them opens at once.
(() => {
  const config = {
    displaylogo: false,
    displayModeBar: matchMedia("(hover: none)").matches ? false : "hover",
    showSendToCloud: false, // a report stays where it is
    plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };
  const boxes = [...document.querySelectorAll(".plot")];

  const size = (box) => {
    const layout = box.designed;
    const meta = layout.meta || {};
    const style = getComputedStyle(box.parentElement);
    const room = Math.floor(
      box.parentElement.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight),
    );
    const width = Math.max(Math.min(layout.width || room, room), meta.min_width_px || 0);
    const height = layout.height || 450;
    const scale = meta.keep_aspect && layout.width ? width / layout.width : 1;
    // Margins do not shrink with the figure, so a square one keeps a little more than its share.
    return { width, height: Math.round(scale < 1 ? height * scale + 40 * (1 - scale) : height) };
  };

  const fit = (box) => {
    const found = size(box);
    box.style.width = `${found.width}px`;
    return found;
  };

  const failed = (box, error) => {
    box.textContent = `This figure could not be drawn: ${error.message || error}`;
    box.style.minHeight = "";
  };

  const draw = (box) => {
    if (box.designed) return;
    try {
      const figure = JSON.parse(document.getElementById(box.dataset.figure).textContent);
      box.designed = { ...figure.layout };
      const layout = { ...figure.layout, ...fit(box), autosize: false };
      box.textContent = "";
      box.style.minHeight = "";
      Plotly.newPlot(box, figure.data, layout, config).catch((error) => failed(box, error));
    } catch (error) {
      box.designed = box.designed || {};
      failed(box, error);
    }
  };

  const seen = new IntersectionObserver(
    (entries) => entries.filter((e) => e.isIntersecting).forEach((e) => draw(e.target)),
    { rootMargin: "600px" },
  );
  boxes.forEach((box) => seen.observe(box));

  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      boxes.filter((box) => box.data).forEach((box) => Plotly.relayout(box, fit(box)));
    }, 150);
  });

  // Paper has no folds to open, nothing to scroll, and two figures a line.
  const paper = { narrow: 320, wide: 660 }; // px
  let closed = [];
  addEventListener("beforeprint", () => {
    if (!document.body.classList.contains("print-all")) return; // the summary has no figures
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((details) => (details.open = true));
    for (const box of boxes) {
      draw(box);
      const room = paper[box.parentElement.classList.contains("wide") ? "wide" : "narrow"];
      box.style.zoom = Math.min(1, room / box.offsetWidth);
    }
  });
  addEventListener("afterprint", () => {
    closed.forEach((details) => (details.open = false));
    boxes.forEach((box) => (box.style.zoom = ""));
  });

  // The filter row: which rows of the tables are shown.
  const form = document.querySelector(".filter");
  const rows = [...document.querySelectorAll("[data-row]")];
  const parts = (row) => (row.matches("[data-verdict]") ? [row] : [...row.querySelectorAll("[data-verdict]")]);
  const sift = () => {
    const [verdict, data, text] = ["verdict", "data", "text"].map(
      (name) => form.querySelector(`[data-filter=${name}]`).value.trim(),
    );
    const fits = (part) =>
      (!verdict || ` ${part.dataset.verdict} `.includes(` ${verdict} `)) &&
      (!data || part.dataset.data === data);
    let shown = 0;
    for (const row of rows) {
      const words = row.dataset.text.toLowerCase();
      const named = text.toLowerCase().split(/\s+/).every((word) => words.includes(word));
      const fitting = named ? parts(row).filter(fits) : [];
      parts(row).forEach((part) => part !== row && (part.hidden = !fitting.includes(part)));
      row.hidden = !fitting.length;
      shown += fitting.length;
    }
    for (const whole of document.querySelectorAll("[data-whole]")) {
      const own = rows.filter((row) => row.dataset.part === whole.dataset.whole);
      whole.hidden = own.every((row) => row.hidden);
    }
    form.querySelector("output").textContent =
      verdict || data || text ? `${shown} case${shown === 1 ? "" : "s"}` : "";
  };
  const every = (open) =>
    document.querySelectorAll("details.case").forEach((details) => (details.open = open));
  form.hidden = false;
  form.addEventListener("input", sift);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("click", (event) => {
    const what = event.target.dataset.do;
    if (what) every(what === "expand");
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || /^(input|select|textarea)$/i.test(event.target.tagName)) return;
    event.preventDefault();
    form.querySelector("input").focus();
  });

  // A link into a closed case opens it.
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let node = target; node; node = node.parentElement) {
      if (node.tagName === "DETAILS") node.open = true;
    }
    target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();

  // Contents: folded away on a narrow screen, and marking where the reader is.
  const toc = document.querySelector(".toc details");
  const narrow = matchMedia("(max-width: 1099px)");
  const fold = () => (toc.open = !narrow.matches);
  narrow.addEventListener("change", fold);
  fold();
  toc.addEventListener("click", (event) => {
    if (narrow.matches && event.target.closest("a")) toc.open = false;
  });
  const links = new Map(
    [...toc.querySelectorAll("a")].map((a) => [decodeURIComponent(a.hash.slice(1)), a]),
  );
  const here = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((e) => e.isIntersecting)) {
        toc.querySelectorAll("[aria-current]").forEach((a) => a.removeAttribute("aria-current"));
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    },
    { rootMargin: "-10% 0px -80% 0px" },
  );
  document.querySelectorAll("main > section").forEach((section) => here.observe(section));
})();
