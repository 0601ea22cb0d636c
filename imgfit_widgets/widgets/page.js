// What a page has to do itself, once for all panels in it: who gets the keys.
if (!window.imgfitKeys) {
  window.imgfitKeys = true;

  // A press on a map, or on a button above it, gives the map the keyboard. bqplot's figure takes it
  // when the pointer comes in, but a held drag, which keeps the browser from doing so, would leave it
  // where it was, and JupyterLab takes it for the notebook.
  const toMap = (event) => {
    const tools = event.target.closest?.(".imgfit-map-toolbar");
    const map = tools?.closest(".imgfit-map-viewer") ?? event.target.closest?.(".imgfit-sky");
    const figure = map?.querySelector(".bqplot");
    if (!figure || (tools && event.type === "pointerdown")) return;
    setTimeout(() => {
      figure.setAttribute("tabindex", -1);
      figure.focus({ preventScroll: true });
    });
  };
  for (const kind of ["pointerdown", "pointerup"]) document.addEventListener(kind, toMap, true);

  window.addEventListener("keydown", (event) => {
    const panel = event.target.closest?.(".imgfit");
    if (!panel) return;
    const map = event.target.closest(".imgfit-sky");
    const command = event.ctrlKey || event.metaKey || event.altKey;
    const undo = !event.altKey && ["z", "y"].includes(event.key.toLowerCase());
    const ours = map && (command ? undo : event.key !== "Tab");
    // bqplot keeps every key to itself: Ctrl-S would save nothing and Tab go nowhere.
    if (map && !ours) event.preventDefault = event.stopPropagation = () => {};
    // A key of the panels must not be one of JupyterLab's, whose letters cut and insert cells.
    if (command && !ours) panel.removeAttribute("data-lm-suppress-shortcuts");
    else panel.setAttribute("data-lm-suppress-shortcuts", "true");
  }, true);
}
