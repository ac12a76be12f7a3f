"""Lightning beyond one plain fit: two processes, its command line, a search for a rate, averages.

Run as a script this file is one of two processes.
"""

import json
import os
import socket
import subprocess
import sys

import torch

from test_lightning import THEIRS, Model, mse, pytestmark, trained
from torch_plateau import ReduceLROnPlateau
from torch_plateau.integrations.lightning import PlateauCallback

__all__ = ["pytestmark"]  # the warnings of Lightning's own

# -- two processes --------------------------------------------------------------------------------


class Shared(Model):
    """One of two processes, whose validations are their own or, where they are synced, of both."""

    def __init__(self, policy, returned, synced):
        super().__init__(policy, returned)
        self.synced = synced

    def validation_step(self, batch):
        self.log("val_loss", mse(self.line, batch), sync_dist=self.synced)


CASES = {
    "theirs, returned, apart": (THEIRS, True, False),
    "ours, kept, apart": (ReduceLROnPlateau, False, False),
    "theirs, kept, synced": (THEIRS, False, True),
    "ours, kept, synced": (ReduceLROnPlateau, False, True),
}


def in_a_process():
    """What one of two processes does: the rates and weights of each case."""
    found = {}
    for name, (policy, returned, synced) in CASES.items():
        callbacks = [] if returned else [PlateauCallback()]
        model = Shared(policy, returned, synced)
        trained(model, *callbacks, strategy="ddp", devices=2)
        found[name] = model.rates, [each.tolist() for each in model.line.parameters()]
    sys.stdout.write("\n" + json.dumps(found) + "\n")


def in_two_processes():
    """Run this file in two processes of gloo; return what each found, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, __file__],
            env={**shared, "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [each.communicate(timeout=120)[0] for each in started]
    finally:
        for each in started:
            each.kill()
    assert [each.returncode for each in started] == [0, 0]
    return [json.loads(each.splitlines()[-1]) for each in said]


def test_two_processes_part_by_metrics_of_their_own_and_agree_by_one_that_is_synced():
    first, second = in_two_processes()
    for name, (_, _, synced) in CASES.items():
        (rates, weights), (other_rates, other_weights) = first[name], second[name]
        assert len(set(rates)) > 2  # there were cuts
        assert (rates == other_rates) is synced, name
        assert (weights == other_weights) is synced, name
    assert first["ours, kept, synced"] == first["theirs, kept, synced"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    in_a_process()
