"""The examples run as they stand and print what they promise."""

import pathlib
import runpy

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def test_cross_validation_cuts_each_fold_for_itself(capsys):
    runpy.run_path(str(EXAMPLES / "cross_validation.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    cuts = [line for line in lines if "cut in folds" in line]
    assert any(line.count(",") < 4 for line in cuts)  # not all folds at once
    folds = [line for line in lines if line.startswith("fold ")]
    assert len(folds) == 5
    for line in folds:
        assert float(line.split("accuracy ")[1].split("%")[0]) > 90
