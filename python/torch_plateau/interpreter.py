"""Interpreters that the core cannot run in, refused by importing this before anything else.

In a subinterpreter the import of torch, or of the core, would wait for ever.
"""

import importlib
import sys

__all__ = ["check_lock"]

# Python 3.13 and later; earlier ones.
_MODULES = ("_interpreters", "_xxsubinterpreters")


def check_is_main() -> None:
    """Raise ImportError in a subinterpreter."""
    for name in _MODULES:
        try:
            known = importlib.import_module(name)
        except ImportError:
            continue
        if known.get_current() != known.get_main():
            raise ImportError(
                "torch_plateau: expected the main interpreter, got a subinterpreter, in which "
                "neither torch nor the compiled core can be used; use a process of its own"
            )
        return


def check_lock() -> None:
    """Raise ImportError where Python runs without its lock, after the core was imported.

    A free-threaded Python takes its lock up again when the core is imported, unless it was told not
    to.
    """
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise ImportError(
            "torch_plateau: expected Python with its interpreter lock (GIL), which orders threads "
            "here, got one that runs without; set PYTHON_GIL=1, or leave PYTHON_GIL and -X gil out"
        )


check_is_main()
