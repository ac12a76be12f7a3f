"""Plateaus in skorch's nets, against torch's class in its LRScheduler and in a plain loop.

Run as a script this file is a training that is killed with SIGKILL.
"""

import copy
import os
import pickle
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback, Checkpoint, LoadInitState, LRScheduler
from skorch.dataset import Dataset
from skorch.helper import predefined_split

import torch_plateau
from torch_plateau import BatchedReduceLROnPlateau, LaneLR, PlateauLanes
from torch_plateau.integrations.skorch import PlateauScheduler

TORCHS, OURS = torch.optim.lr_scheduler.ReduceLROnPlateau, torch_plateau.ReduceLROnPlateau
BOTH = pytest.mark.parametrize("kind", [TORCHS, OURS], ids=["torch's", "ours"])
# An epoch is borne, so that a lost count shows.
SETTINGS = {"monitor": "valid_loss", "factor": 0.5, "patience": 1, "threshold": 0.3}
EPOCHS, KILLED_AFTER = 16, 7
RATES = [0.1, 0.03, 0.01]


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 4, generator=generator)
    y = x.sum(1, keepdim=True) + 0.5 * torch.randn(64, 1, generator=generator)
    return x.numpy(), y.numpy()


def net_with(*callbacks, lr=0.05, module=torch.nn.Linear, epochs=EPOCHS, **kwargs):
    torch.manual_seed(0)
    x, y = data()
    return NeuralNetRegressor(
        module,
        module__in_features=4,
        module__out_features=1,
        lr=lr,
        optimizer__momentum=0.9,
        max_epochs=epochs,
        batch_size=16,
        train_split=predefined_split(Dataset(x[48:], y[48:])),
        callbacks=list(callbacks),
        verbose=0,
        **kwargs,
    )


def fit(net, **kwargs):
    x, y = data()
    return net.partial_fit(x[:48], y[:48], **kwargs)


def rates_of(net):
    return [float(rate) for rate in net.history[:, "event_lr"]]


def assert_same(one, other):
    assert rates_of(one) == rates_of(other)
    assert len(set(rates_of(one))) > 2  # there were cuts
    assert torch.equal(one.module_.weight, other.module_.weight)


@BOTH
def test_a_net_is_that_of_skorchs_own_callback_with_torchs_class(kind):
    theirs = fit(net_with(LRScheduler(policy=TORCHS, **SETTINGS)))
    assert_same(fit(net_with(PlateauScheduler(policy=kind, **SETTINGS))), theirs)


# -- what breaks in skorch's own ------------------------------------------------------------------


@pytest.mark.parametrize("kind", [OURS, BatchedReduceLROnPlateau])
def test_a_subclass_of_torchs_class_is_refused_by_skorchs_callback_and_works_in_ours(kind):
    with pytest.raises(TypeError, match="last_epoch"):
        fit(net_with(LRScheduler(policy=kind, **SETTINGS)))

    def monitor(net):
        loss = net.history[-1, "valid_loss"]
        return loss if kind is OURS else [loss]

    mended = fit(net_with(PlateauScheduler(policy=kind, **{**SETTINGS, "monitor": monitor})))
    assert_same(mended, fit(net_with(LRScheduler(policy=TORCHS, **SETTINGS))))


def resumable(plateau, directory, epochs=EPOCHS):
    own = {} if isinstance(plateau, LRScheduler) else {"f_plateau": "plateau.pt"}
    checkpoint = Checkpoint(monitor=None, dirname=str(directory), **own)
    return net_with(plateau, checkpoint, LoadInitState(checkpoint), epochs=epochs)


@BOTH
def test_skorch_loses_the_counts_on_resume_and_our_callback_keeps_them(kind, tmp_path):
    """What is killed and resumed is the uninterrupted run."""
    whole = fit(net_with(PlateauScheduler(policy=kind, **SETTINGS)))
    script = [sys.executable, __file__, str(tmp_path), kind.__module__]
    killed = subprocess.run(script, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    net = resumable(PlateauScheduler(policy=kind, **SETTINGS), tmp_path)
    resumed = fit(net, epochs=EPOCHS - KILLED_AFTER)
    assert_same(resumed, whole)
    assert len(set(rates_of(resumed)[KILLED_AFTER:])) > 1
    assert state_of(resumed) == state_of(whole)


def state_of(net):
    return net.plateau_.scheduler_.state_dict()


def test_skorchs_own_callback_begins_anew_on_resume(tmp_path):
    whole = fit(net_with(LRScheduler(policy=TORCHS, **SETTINGS)))
    fit(resumable(LRScheduler(policy=TORCHS, **SETTINGS), tmp_path, KILLED_AFTER))
    net = resumable(LRScheduler(policy=TORCHS, **SETTINGS), tmp_path)
    resumed = fit(net, epochs=EPOCHS - KILLED_AFTER)
    assert rates_of(resumed)[:KILLED_AFTER] == rates_of(whole)[:KILLED_AFTER]
    assert rates_of(resumed) != rates_of(whole)
    assert not torch.equal(resumed.module_.weight, whole.module_.weight)


def test_a_resume_without_a_saved_state_is_warned_of(tmp_path):
    files = Checkpoint(monitor=None, dirname=str(tmp_path))
    fit(net_with(PlateauScheduler(**SETTINGS), files, epochs=3))
    resumed = net_with(PlateauScheduler(**SETTINGS), files, LoadInitState(files), epochs=1)
    with pytest.warns(UserWarning, match="history of 3 epochs.*f_plateau"):
        fit(resumed)


def test_a_tensor_rate_is_no_json_for_skorch_and_a_float_in_our_history(tmp_path):
    broken = fit(net_with(LRScheduler(policy=TORCHS, **SETTINGS), lr=torch.tensor(0.05), epochs=2))
    with pytest.raises(TypeError, match="not JSON serializable"):
        broken.history.to_file(tmp_path / "history.json")
    checkpoint = Checkpoint(monitor=None, dirname=str(tmp_path), f_plateau="plateau.pt")
    rate = torch.tensor(0.05)
    mended = fit(net_with(PlateauScheduler(**SETTINGS), checkpoint, lr=rate))
    assert (tmp_path / "history.json").exists()
    assert all(type(each) is float for each in mended.history[:, "event_lr"])
    assert mended.optimizer_.param_groups[0]["lr"] is rate
    theirs = fit(net_with(LRScheduler(policy=TORCHS, **SETTINGS), lr=torch.tensor(0.05)))
    assert_same(mended, theirs)


# -- pickles, copies and more epochs --------------------------------------------------------------


@pytest.mark.parametrize(
    "twin", [lambda net: pickle.loads(pickle.dumps(net)), copy.deepcopy, lambda net: net]
)
@BOTH
def test_a_net_that_is_pickled_copied_or_fitted_further_goes_on_with_its_plateau(kind, twin):
    whole = fit(net_with(PlateauScheduler(policy=kind, **SETTINGS)))
    part = fit(net_with(PlateauScheduler(policy=kind, **SETTINGS)), epochs=KILLED_AFTER)
    resumed = twin(twin(part))
    fit(resumed, epochs=EPOCHS - KILLED_AFTER)
    assert_same(resumed, whole)
    assert resumed.plateau_.scheduler_.optimizer is resumed.optimizer_
    assert state_of(resumed) == state_of(whole)


def test_a_net_that_is_fitted_anew_or_cloned_begins_anew():
    net = net_with(PlateauScheduler(**SETTINGS))
    x, y = data()
    torch.manual_seed(0)
    first = rates_of(net.fit(x[:48], y[:48]))
    torch.manual_seed(0)
    assert rates_of(net.fit(x[:48], y[:48])) == first
    torch.manual_seed(0)
    assert rates_of(clone(net).fit(x[:48], y[:48])) == first


def test_settings_are_parameters_of_the_net():
    net = net_with(PlateauScheduler(**SETTINGS), epochs=4)
    net.set_params(callbacks__PlateauScheduler__patience=0, callbacks__PlateauScheduler__factor=0.1)
    assert net.get_params()["callbacks__PlateauScheduler__patience"] == 0
    fit(net)
    assert (net.plateau_.scheduler_.patience, net.plateau_.scheduler_.factor) == (0, 0.1)


# -- many models ----------------------------------------------------------------------------------


class Members(torch.nn.Module):
    """Linear models of one module; the loss is the sum of theirs."""

    def __init__(self, in_features, out_features):
        super().__init__()
        start = torch.nn.Linear(in_features, out_features)
        self.members = torch.nn.ModuleList(copy.deepcopy(start) for _ in RATES)

    def forward(self, x):
        return torch.stack([member(x) for member in self.members])


class SumOfLosses(torch.nn.Module):
    def forward(self, predictions, y):
        return (predictions - y).square().mean((1, 2)).sum()


def losses_of(net):
    """The loss of the net, or one for each of its members."""
    x, y = (torch.from_numpy(each[48:]).to(net.device) for each in data())
    with torch.no_grad():
        return (net.module_(x) - y).square().mean((-2, -1))


def test_a_vector_for_the_param_groups_of_a_net_is_as_many_nets(device):
    settings = {**SETTINGS, "monitor": losses_of}
    groups = [(f"members.{i}.*", {"lr": rate}) for i, rate in enumerate(RATES)]
    net = net_with(
        PlateauScheduler(policy=BatchedReduceLROnPlateau, **settings),
        module=Members,
        criterion=SumOfLosses,
        optimizer__param_groups=groups,
        device=device,
    )
    fit(net)
    rates = list(zip(*net.history[:, "event_lr"], strict=True))
    assert len(set(rates)) == 3
    for member, lr, ours in zip(net.module_.members, RATES, rates, strict=True):
        callback = LRScheduler(policy=TORCHS, **{**SETTINGS, "monitor": losses_of})
        theirs = fit(net_with(callback, lr=lr, device=device))
        assert list(ours) == rates_of(theirs)
        torch.testing.assert_close(member.weight, theirs.module_.weight, rtol=1e-5, atol=1e-6)


def lanes_for(optimizer, **settings):
    """Lanes, of which there is one, for the linear model with one output."""
    lanes = PlateauLanes(1, 0.05, **settings)
    LaneLR(optimizer, lanes)
    return lanes


def test_lanes_are_stepped_and_resumed_as_torchs_class_is(tmp_path):
    def first_loss(net):
        return [net.history[-1, "valid_loss"]]

    settings = {**SETTINGS, "monitor": first_loss}
    plateau = PlateauScheduler(policy=lanes_for, **settings)
    fit(resumable_lanes(plateau, tmp_path), epochs=KILLED_AFTER)
    resumed = resumable_lanes(PlateauScheduler(policy=lanes_for, **settings), tmp_path)
    fit(resumed, epochs=EPOCHS - KILLED_AFTER)
    theirs = fit(net_with(LRScheduler(policy=TORCHS, **SETTINGS)))
    assert rates_of(resumed) == pytest.approx(rates_of(theirs), rel=1e-6)
    torch.testing.assert_close(resumed.module_.weight, theirs.module_.weight)


def resumable_lanes(plateau, directory):
    checkpoint = Checkpoint(monitor=None, dirname=str(directory), f_plateau="plateau.pt")
    return net_with(plateau, checkpoint, LoadInitState(checkpoint), lr=1.0)


# -- bad input ------------------------------------------------------------------------------------


def test_a_policy_that_makes_no_plateau_is_refused():
    net = net_with(PlateauScheduler(policy=torch.optim.lr_scheduler.StepLR, step_size=3))
    with pytest.raises(TypeError, match=r"policy: expected a function that returns.*got StepLR"):
        fit(net)


@pytest.mark.parametrize("kind", [OURS, str], ids=["an instance", "a name"])
def test_a_policy_that_cannot_be_called_is_refused(kind):
    policy = kind(torch.optim.SGD([torch.zeros(1)], lr=0.1))
    expected = f"policy: expected a class or a function of the optimizer, got {kind.__name__}"
    with pytest.raises(TypeError, match=expected):
        fit(net_with(PlateauScheduler(policy=policy)))


def test_a_monitor_that_is_not_in_the_history_is_refused():
    net = net_with(PlateauScheduler(monitor="accuracy"))
    with pytest.raises(ValueError, match=r"monitor: expected one of .*'valid_loss'.* 'accuracy'"):
        fit(net)


def test_the_example_goes_on_from_its_pickle(capsys):
    example = Path(__file__).parent.parent / "examples" / "skorch_plateau.py"
    runpy.run_path(str(example), run_name="__main__")
    rates = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(rates) == 20
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[9] > rates[-1]


class Killed(Callback):
    def on_batch_end(self, net, **_):
        if len(net.history) == KILLED_AFTER + 1 and len(net.history[-1, "batches"]) == 2:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    kind = TORCHS if sys.argv[2].startswith("torch.") else OURS
    net = resumable(PlateauScheduler(policy=kind, **SETTINGS), sys.argv[1])
    net.callbacks.append(Killed())
    fit(net)
