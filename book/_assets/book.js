// What a page does once it is open: boxes that scroll can be reached by the keyboard.
"use strict";
(() => {
  // From disk no page may read another one, so hits of the book's own search are shown without a summary.
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  const boxes = ".scroll-box, .pst-scrollable-table-container, div.highlight pre, .cell_output pre, mjx-container[display]";
  const name = (box) => box.closest("figure") ? "figure" : box.querySelector("table") ? "table"
    : box.matches("mjx-container") ? "equation" : "text";
  const reach = (box) => {
    const scrolls = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
    if (scrolls) {
      box.tabIndex = 0;
      box.dataset.reached = "";
      if (box.matches("div")) {
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", `${name(box)}, scrolls sideways`);
      }
    } else if ("reached" in box.dataset) {
      for (const attribute of ["tabindex", "role", "aria-label", "data-reached"]) box.removeAttribute(attribute);
    }
  };
  const all = () => document.querySelectorAll(boxes).forEach(reach);
  addEventListener("load", () => {
    all();
    new ResizeObserver(all).observe(document.body);
    document.addEventListener("toggle", all, true); // a fold opens
    window.MathJax?.startup?.promise?.then(all);
  });
})();
