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
