// Furo opens its two drawers by labels of hidden boxes, which no key reaches: make them buttons.
const shown = (element) => element.offsetParent; // null where it, or what holds it, is not
addEventListener("DOMContentLoaded", () => {
  for (const [id, name] of [["__navigation", ".sidebar-drawer"], ["__toc", ".toc-drawer"]]) {
    const box = document.getElementById(id);
    const drawer = document.querySelector(name);
    const buttons = [...document.querySelectorAll(`label[for="${id}"]:not(.overlay)`)];
    const close = () => box.checked && box.click();
    const tell = () => buttons.forEach((button) => (button.ariaExpanded = box.checked));
    tell();
    drawer.ariaLabel = id === "__toc" ? "On this page" : "Pages";
    box.addEventListener("change", () => {
      tell();
      if (box.checked) [...drawer.querySelectorAll("a")].find(shown)?.focus();
    });
    for (const button of buttons) {
      Object.assign(button, { role: "button", tabIndex: 0, ariaLabel: box.ariaLabel });
      button.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        box.click();
      });
    }
    drawer.addEventListener("click", (event) => event.target.closest("a") && close());
    document.addEventListener("focusin", (event) => drawer.contains(event.target) || close());
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !box.checked) return;
      close();
      buttons.find(shown)?.focus({ preventScroll: true });
    });
  }
});
