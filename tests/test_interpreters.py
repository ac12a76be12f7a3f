"""Interpreters that cannot be supported are refused when the package is imported."""

import subprocess
import sys

import pytest

SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
code = '''
try:
    import {module}
except ImportError as error:
    print(error, flush=True)
'''
interpreters.run_string(interpreters.create(), code)
"""
FREE_THREADED = """
import sys
sys._is_gil_enabled = lambda: {enabled}
try:
    import torch_plateau
    print("imported")
except ImportError as error:
    print(error)
"""


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["torch_plateau", "torch_plateau._core"])
def test_a_subinterpreter_is_refused_and_does_not_wait_for_ever(module):
    answer = run(SUBINTERPRETER.format(module=module))
    assert answer.startswith("torch_plateau: expected the main interpreter, got a subinterpreter")


@pytest.mark.parametrize("enabled", [True, False])
def test_python_that_runs_without_its_lock_is_refused(enabled):
    answer = run(FREE_THREADED.format(enabled=enabled))
    assert answer == "imported" if enabled else "set PYTHON_GIL=1" in answer
