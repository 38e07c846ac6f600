// Keys of the demo: j and k go to the next and the earlier hit, r and w mark it as right or wrong;
// Enter or a click enlarges it, and Escape or another click ends that.
(() => {
  if (window.csktKeys) return; // one listener a page, however many demos
  window.csktKeys = true;
  const enlarge = (figure) => {
    for (const other of document.querySelectorAll(".cskt-large"))
      if (other !== figure) other.classList.remove("cskt-large");
    figure?.classList.toggle("cskt-large");
  };
  document.addEventListener("click", (event) =>
    enlarge(event.target.closest?.(".cskt-card figure")));
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable], .jp-Notebook .cm-editor");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const cards = [...document.querySelectorAll(".cskt-demo .cskt-card")];
    const now = cards.findIndex((card) => card.contains(document.activeElement));
    const step = { j: 1, k: -1 }[event.key];
    const button = { r: ".cskt-right", w: ".cskt-wrong" }[event.key];
    if (step && cards.length) {
      const next = Math.min(Math.max(now + step, 0), cards.length - 1);
      cards[next].querySelector("figure").focus();
    } else if (button && now >= 0) {
      cards[now].querySelector(button).click();
    } else if (event.key === "Enter" && event.target.matches?.(".cskt-card figure")) {
      enlarge(event.target);
    } else if (event.key === "Escape") {
      enlarge(null);
      return;
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }, true);
})();
