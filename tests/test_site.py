"""The site builds without a warning, and every block of code on its pages runs as it stands."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from foreign import PROVIDED, foreign_modules
from torch_plateau.cli import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md"))
GUIDES = [DOCS / "quick_start.md", *DOCS.glob("guides/*.md"), *DOCS.glob("moving/*.md")]
EXTRAS = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
# What is shown and cannot be run here, or is run by other tests.
ELSEWHERE = (
    *("pip install", "torchrun", "nox", "python examples/", "python3 -m venv", "python bench"),
    *("torch-plateau bench", "torch-plateau demo"),
)


def blocks(page):
    """The fenced blocks of a page in order: what they are in, and what they say."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    return [(token.info, token.content) for token in tokens if token.type == "fence"]


def has_code(page):
    return any(info in ("python", "sh") for info, _ in blocks(page))


CODE = [page for page in PAGES if has_code(page)]


@pytest.fixture
def torch_as_it_was():
    """What a page may set for itself is as it was for the next."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


# Keras' own reading of a rate on torch
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.usefixtures("torch_as_it_was")
@pytest.mark.parametrize("page", CODE, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_code_of_a_page_runs_in_order_and_prints_what_is_shown(
    page, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for (info, content), (following, shown) in itertools.pairwise([*blocks(page), ("", "")]):
        if info == "python":
            exec(compile(content, f"<{page.name}>", "exec"), names)
            printed = capsys.readouterr().out
        elif info == "sh":
            printed = run(content)
        else:
            continue
        if following == "text":
            assert without_blanks(printed) == without_blanks(shown)


def without_blanks(text):
    """Lines without what tables are padded with at their ends."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def run(content):
    """Run the lines that are commands of ours; the others must be such as are run elsewhere."""
    printed = ""
    for line in content.replace("\\\n", "").splitlines():
        command = line.split("#")[0].strip()
        if command.startswith(ELSEWHERE) or not command:
            continue
        if command.startswith("torch-plateau "):
            result = CliRunner().invoke(app, shlex.split(command)[1:])
            assert result.exit_code in (0, 1), result.output
            printed += result.output
        else:
            pytest.fail(f"nobody runs {command!r}")
    return printed


def used_by(page):
    """The packages of others that the code of a page needs, by their names on an index."""
    modules = set()
    for info, content in blocks(page):
        if info == "sh" and re.search("^torch-plateau (?!demo|bench)", content, re.MULTILINE):
            modules.add("typer")
        if info == "python":
            modules |= foreign_modules(content)
    installed = {module: name for name, module in PROVIDED.items()}
    return {installed.get(module, module) for module in modules}


def installed_by(page):
    """What the commands of a page install, those of extras too."""
    commands = [content for info, content in blocks(page) if info == "sh"]
    lines = [line for content in commands for line in content.splitlines() if "pip " in line]
    found = {word for line in lines for word in shlex.split(line, comments=True)}
    while True:
        extras = {name for word in found for name in re.findall(r"\[([^]]*)\]", word)} & set(EXTRAS)
        more = found | {each for name in extras for each in EXTRAS[name]}
        if more == found:
            return {re.split(r"[\[>=]", word)[0] for word in found}
        found = more


@pytest.mark.parametrize("page", CODE, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_says_how_to_install_what_its_code_uses(page):
    assert used_by(page) <= installed_by(page)


def test_a_guide_begins_with_what_to_install():
    for page in GUIDES:
        first = next(content for info, content in blocks(page) if info in ("python", "sh"))
        assert "pip install" in first, page


def test_the_site_builds_without_a_warning_and_finds_words(tmp_path):
    """With -W each warning is an error: a dead link, a page in no list, a name without a target."""
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    env = {**os.environ, "KERAS_BACKEND": "torch"}
    done = subprocess.run([*sphinx, DOCS, tmp_path], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "searchindex.js").read_text()  # which the search box reads, from disk too
    assert "lanelr" in index
    remote = re.compile(r"""(?:src|href)=["'](https?://[^"']+\.(?:js|css))""")
    loaded = {url for page in tmp_path.rglob("*.html") for url in remote.findall(page.read_text())}
    assert not loaded, "the site must work without a network"
