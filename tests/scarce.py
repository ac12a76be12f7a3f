"""Memory that is used up at each allocation of a call in turn: all done, or not begun.

``python tests/scarce.py MOST [PART OF A NAME ...]`` tries so many points of each call: what the
core asks of C++ fails (``new``), and what is asked for objects of Python (``python``). Where that
is in the middle of torch or of pybind11 it may end the process, so calls are made in a child, and
in a new one behind such a point.
"""

import ctypes
import gc
import itertools
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import torch

from subjects import SUBJECTS
from torch_plateau import _core
from torn import FOREIGN, is_whole, ways_on

KINDS = {"new": 1, "python": 2}
ENDLESS = 10**9
# Steps of torch's optimizers and schedules, which are half taken.
TORCHS = (*FOREIGN, "step_schedule")


def hunted(*arguments):
    """Run this file; return what it found of each call."""
    done = preloaded(*map(str, arguments), capture_output=True, text=True)
    assert done.stdout.startswith("{"), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def preloaded(*arguments, **options):
    """Run this file with a library preloaded that is compiled for that."""
    source = Path(__file__).parent / "sanitize" / "scarce.cpp"
    flags = ("-std=c++17", "-O1", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}")
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/libscarce.so"
        subprocess.run([os.environ.get("CXX", "c++"), *flags, source, "-o", library], check=True)
        env = {**os.environ, "LD_PRELOAD": library}
        return subprocess.run([sys.executable, __file__, *arguments], env=env, **options)


class Scarce:
    """Where the k-th allocation fails."""

    def __init__(self, library, kind):
        self.library, self.kind = library, KINDS[kind]

    def after(self, k, call):
        """Make a call; return how many allocations it needed, or what it raised."""
        raised = None
        gc.disable()
        try:
            self.library.scarce_arm(self.kind, k)
            call()
        except BaseException as error:
            raised = error
        left = self.library.scarce_disarm()
        gc.enable()
        return k - left, left < 0, raised


def trials(scarce, name, points, say):
    """Try these points of a call; say of each that it begins, and what was wrong."""
    build, act, *_ = SUBJECTS[name]
    ways = ways_on(name)
    for k in points:
        thing = build()
        say(k, "begins")
        _, failed, raised = scarce.after(k, lambda thing=thing: act(thing))
        if scarce.kind == KINDS["new"] and not isinstance(raised, MemoryError | None):
            say(k, f"raises {raised!r}")
        new = raised is None and name.startswith("new ")
        if failed and not new and not is_whole(name, ways, thing):
            say(k, f"torn by {raised!r}")


def in_child(work):
    """Do work in a child; return its status, and what it said line by line."""
    read, write = os.pipe()
    with tempfile.TemporaryFile() as log:
        child = os.fork()
        if child == 0:
            os.close(read)
            os.dup2(log.fileno(), 2)
            try:
                work(lambda *words: os.write(write, (json.dumps(words) + "\n").encode()))
                os._exit(0)
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}".encode())
                os._exit(1)
        os.close(write)
        with os.fdopen(read) as said:
            lines = [json.loads(line) for line in said]
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        log.seek(0)
        return status, lines, log.read().decode(errors="replace")


def who(log):
    """Whose code ended a process: the first frame above those of C++ itself and of C."""
    frames = re.findall(r"^(\S+\(.*\)) ?\[0x\w+\]$", log, re.MULTILINE)
    own = re.compile("libscarce|libc[.]|libstdc|libgcc|libpthread")
    return next((Path(each).name for each in frames if not own.search(each)), log[-300:])


def found_in(scarce, name, most):
    """Try points of a call, in children."""
    build, act, *_ = SUBJECTS[name]
    act(build())  # what is made once
    thing = build()
    needed, _, _ = scarce.after(ENDLESS, lambda: act(thing))
    last = range(max(needed - 8, 0), needed)  # where almost all is done
    points = sorted({*range(0, needed, max(-(-needed // most), 1)), *last})
    tried = 0
    bad, ended = [], {}
    while points:
        status, lines, log = in_child(lambda say, points=points: trials(scarce, name, points, say))
        begun = [k for k, what in lines if what == "begins"]
        bad += [each for each in lines if each[1] != "begins"]
        tried += len(begun)
        if status == 0:
            break
        ended[begun[-1] if begun else -1] = f"{status} {who(log)}"
        if status > 0 or not begun:
            break
        points = points[len(begun) :]
    return {"call": name, "points": needed, "tried": tried, "torn": bad, "ended": ended}


def main(most, *parts):
    """Print what is found of each call; return whether all were whole."""
    torch.set_num_threads(1)
    list(map(_core.Memory, [1] * 5000))  # after which pybind11's table of objects need not grow
    library = ctypes.PyDLL(os.environ["LD_PRELOAD"])
    library.scarce_arm.argtypes = ctypes.c_int, ctypes.c_long
    library.scarce_disarm.restype = ctypes.c_long
    library.scarce_install()
    calls = [each for each in SUBJECTS if any(part in each for part in parts or ("",))]
    whole = True
    for each, kind in itertools.product(calls, KINDS):
        if not any(part in each for part in TORCHS):
            result = found_in(Scarce(library, kind), each, int(most))
            sys.stdout.write(json.dumps({"kind": kind, **result}) + "\n")
            sys.stdout.flush()
            whole &= not result["torn"]
    return whole


if __name__ == "__main__":
    if "libscarce" in os.environ.get("LD_PRELOAD", ""):
        sys.exit(not main(*sys.argv[1:]))
    sys.exit(preloaded(*sys.argv[1:]).returncode)
