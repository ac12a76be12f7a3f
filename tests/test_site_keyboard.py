"""The site without a mouse, in a real browser: what has the focus is seen, and drawers open."""

import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

from browser import BROWSER, opened

DOCS = Path(__file__).parents[1] / "docs"
# At the width of a telephone: what takes the focus and is not in view; then each drawer by keys.
SCRIPT = """<style>* { transition: none !important; }</style><script>
const press = (key) => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const stops = () => [...document.querySelectorAll("a[href], button, input, [tabindex='0']")];
const outside = () => stops().filter((each) => {
  each.focus();
  const { left, right } = each.getBoundingClientRect();
  return document.activeElement === each && (left < 0 || right > innerWidth);
}).map((each) => each.outerHTML);
addEventListener("load", () => {
  const found = { outside: outside() };
  for (const name of ["nav-overlay-icon", "toc-header-icon"]) {
    const drawer = document.querySelector(name[0] === "n" ? ".sidebar-drawer" : ".toc-drawer");
    const button = document.querySelector("." + name);
    const state = () => [
      getComputedStyle(drawer).visibility, drawer.contains(document.activeElement),
      document.activeElement === button, button.ariaExpanded];
    const seen = (found[name] = []);
    for (const key of ["Enter", "Escape", " "]) {
      if (key !== "Escape") button.focus();
      press(key);
      seen.push(state());
    }
    document.querySelector(".header-center a").focus();
    seen.push(state());
  }
  document.documentElement.setAttribute("data-found", JSON.stringify(found));
});
</script>"""


def seen_in(tmp_path):
    """What a browser found on a page of two headings, built as the site is."""
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    (source / "index.md").write_text("# One\n\n```{toctree}\nother\n```\n\n## Two\n\n## Three\n")
    (source / "other.md").write_text("# Other\n")
    sphinx = [sys.executable, "-m", "sphinx", "-W", "-q", "-c", DOCS, source, site]
    subprocess.run(sphinx, check=True, timeout=120)
    page = site / "index.html"
    page.write_text(page.read_text().replace("</head>", SCRIPT + "</head>"))
    narrow = "--window-size=420,800"
    dom, _ = opened(page, tmp_path / "profile", narrow, milliseconds=20_000)
    return json.loads(unescape(re.search(r'data-found="([^"]*)"', dom)[1]))


if BROWSER:  # elsewhere there is nothing to open a page in

    def test_keys_open_and_close_the_drawers_and_the_focus_stays_in_view(tmp_path):
        found = seen_in(tmp_path)
        assert found["outside"] == []
        for name in ("nav-overlay-icon", "toc-header-icon"):
            opened, escaped, again, left = found[name]
            assert opened == again == ["visible", True, False, "true"]
            assert escaped == ["hidden", False, True, "false"]
            assert left == ["hidden", False, False, "false"]
