// The keys of every page: g and a letter opens a page, Ctrl+Enter sends, Esc cancels, ? shows the help.
// sqRoutes, the routes by their letters, is set before this script.
(() => {
  let isAfterG = false;
  const isTyping = (element) =>
    element && (element.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(element.tagName));
  const press = (selector) => {
    const found = [...document.querySelectorAll(selector)].find((one) => one.offsetParent !== null && !one.disabled);
    if (found) found.click();
    return Boolean(found);
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      if (press(".sq-send")) event.preventDefault();
      return;
    }
    if (event.key === "Escape" && !document.querySelector(".q-dialog, .q-menu")) {
      press(".sq-cancel");
      return;
    }
    if (isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (isAfterG && Object.hasOwn(sqRoutes, event.key)) {
      window.location.assign(sqRoutes[event.key]);
      event.preventDefault();
    } else if (event.key === "?") {
      press("#sq-help");
    }
    isAfterG = event.key === "g" && !isAfterG;
  });
})();

// A shared link that is pasted into the address bar of its own page changes the fragment alone.
window.addEventListener("hashchange", () => {
  if (window.location.hash.startsWith("#share=")) window.location.reload();
});
