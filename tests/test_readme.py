"""What the README shows must run as it stands there."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = re.findall(r"<!-- ci:(\w+) -->\n```sh\n(.*?)\n```", README, re.DOTALL)


# torch.compile imports a module of torch that warns of itself
@pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores:UserWarning")  # and on a GPU of this
@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_every_python_block_runs_by_itself(block, capsys):
    names = {}
    exec(compile(block, "<a block of README.md>", "exec"), names)
    capsys.readouterr()
    made = [value for name, value in names.items() if name in ("lanes", "scheduler")]
    assert made, "the block builds neither lanes nor a scheduler"


def test_the_first_screen_lowers_the_rates_of_impatient_lanes():
    names = {}
    exec(PYTHON[0], names)
    cuts = names["lanes"].num_reductions[:4090].view(-1, 10).double().mean(0)  # by patience
    assert cuts[0] == 5  # from 1e-3 to 1e-8, where the next change would be below eps
    assert (cuts.diff() <= 0).all()


def test_set_up_is_two_commands_of_one_line_with_pinned_versions():
    assert [name for name, _ in SHELL] == ["demo", "test"]
    for _, command in SHELL:
        assert "\n" not in command
        assert "-c constraints.txt" in command


def headings(page):
    """What links to the headings of a page end with."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("name", ["README", "CONTRIBUTING", "SECURITY", "benchmarks/README"])
def test_every_linked_file_and_heading_exists(name):
    page = ROOT / f"{name}.md"
    links = re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8"))
    assert links
    for path, heading in links:
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not heading or heading in headings(target), heading
