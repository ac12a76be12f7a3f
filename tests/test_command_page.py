"""What docs/command_line.md shows of commands is what they print, but for spaces at line ends."""

import itertools
from pathlib import Path

from test_site import blocks, run

PAGE = Path(__file__).parents[1] / "docs" / "command_line.md"


def lines_of(text):
    return [line.rstrip() for line in text.rstrip().splitlines()]


def test_commands_print_what_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = 0
    for (info, content), (following, output) in itertools.pairwise([*blocks(PAGE), ("", "")]):
        if info == "python":
            exec(compile(content, f"<{PAGE.name}>", "exec"), {})
        elif info == "sh":
            printed = run(content)
            if following == "none":
                assert lines_of(printed) == lines_of(output)
                shown += 1
    assert shown == 3
    made = ["run.csv", "runs.csv", "torch-plateau-replay.png", "torch-plateau-sweep.png"]
    assert sorted(each.name for each in tmp_path.iterdir()) == made
