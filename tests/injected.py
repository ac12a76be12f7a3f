"""Faults at every point of a call in turn, and what a call must be then: all done, or not begun.

A fault is one exception at the k-th point: a line of the package's Python or the return of a C
function to it, where Ctrl-C comes, or an operation of torch that makes a tensor, where memory ends.
"""

import linecache
import sys
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import torch_plateau

PACKAGE = str(Path(torch_plateau.__file__).parent)


class AtPoint:
    """What raises from the k-th point on, and says whether it did."""

    def __init__(self, k):
        self.left, self.raised = k, False

    def reached(self):
        self.left -= 1
        self.raised = self.left < 0
        return self.raised


class Interrupt(AtPoint):
    """One KeyboardInterrupt, before a line of the package, or as a C function returns to one."""

    def __enter__(self):
        sys.settrace(self._call)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)
        sys.settrace(None)

    def _call(self, frame, *_):
        return self._line if frame.f_code.co_filename.startswith(PACKAGE) else None

    def _line(self, frame, event, _):
        # CPython looks for signals after calls: never between a block and the end of its `with`
        if event == "line" and not is_with(frame):
            self._raise_there()
        return self._line

    def _profile(self, frame, event, _):
        if event == "c_return" and frame.f_code.co_filename.startswith(PACKAGE):
            self._raise_there()

    def _raise_there(self):
        if self.reached():
            self.__exit__()
            raise KeyboardInterrupt


def is_with(frame):
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip().startswith("with ")


class DeviceFull(AtPoint, TorchDispatchMode):
    """torch.OutOfMemoryError where an operation makes a tensor in memory of its own.

    Once memory is full it stays so until the call is over: there is none to put things back with.
    """

    def __init__(self, k):
        AtPoint.__init__(self, k)
        TorchDispatchMode.__init__(self)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if storages(out) - storages((args, kwargs)) and self.reached():
            raise torch.OutOfMemoryError("injected")
        return out


def storages(tree):
    leaves = torch.utils._pytree.tree_leaves(tree)
    return {each.untyped_storage()._cdata for each in leaves if isinstance(each, torch.Tensor)}


def plain(tree):
    """What can be compared: numbers, words and, of tensors, their type and values."""
    if isinstance(tree, dict):
        return {str(name): plain(each) for name, each in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [plain(each) for each in tree]
    if isinstance(tree, torch.Tensor):
        return [str(tree.dtype), repr(tree.tolist())]
    return repr(tree)
