"""docs/pictures.py makes every picture that pages show, and pages show every one that it makes."""

import re
import runpy
from pathlib import Path

import pytest
from matplotlib.image import imread

DOCS = Path(__file__).parents[1] / "docs"
KEPT = DOCS / "pictures"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    runpy.run_path(str(DOCS / "pictures.py"))["main"](folder)
    return folder


def test_what_is_made_is_kept_and_shown(made):
    pages = [page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md")]
    shown = {name for page in pages for name in re.findall(r"pictures/(\w+\.png)\)", page)}
    assert shown
    assert {each.name for each in made.iterdir()} == {each.name for each in KEPT.iterdir()} == shown


def test_what_is_kept_is_small_and_what_the_script_makes(made):
    for picture in made.iterdir():
        assert (KEPT / picture.name).stat().st_size < 60_000
        new, old = imread(picture), imread(KEPT / picture.name)
        assert new.shape == old.shape
        assert abs(new - old).mean() < 0.02, f"{picture.name}: run docs/pictures.py"
