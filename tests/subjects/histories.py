"""Calls that go through whole histories: what is returned, or nothing."""

import torch

from torch_plateau import replay, sweep


def replayed(_):
    return replay(torch.rand(40, 600, dtype=torch.float64), smoothing=0.1, threads=2)


def swept(_):
    history = torch.linspace(1.0, 2.0, 40, dtype=torch.float64)
    return sweep(history, patience=range(4), factor=[0.5, 0.1], cooldown=[0, 3], threads=1)


SUBJECTS = {
    "replay": (lambda: None, replayed, lambda x: x, lambda x: x),
    "sweep": (lambda: None, swept, lambda x: x, lambda x: x),
}
