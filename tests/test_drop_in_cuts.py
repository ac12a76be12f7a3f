"""Where the drop-in cuts in the core and where it must not: torch's own class is the oracle."""

import numpy as np
import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau as Torchs

from torch_plateau import ReduceLROnPlateau

KINDS = (ReduceLROnPlateau, Torchs)
METRICS = [1.0, 2.0, 2.0, 0.5, 3.0, 3.0, 3.0]


def built(kind, *rates, **settings):
    groups = [{"params": [torch.zeros(1)], "lr": rate} for rate in rates]
    return kind(SGD(groups, lr=1.0), **{"patience": 0, "factor": 0.5, **settings})


def rates_in(scheduler):
    return [group["lr"] for group in scheduler.optimizer.param_groups]


def stepped(scheduler, metrics=METRICS):
    """Each step's rates, snapshot and counters."""
    seen = []
    for metric in metrics:
        scheduler.step(metric)
        counters = scheduler.num_bad_epochs, scheduler.cooldown_counter, scheduler.last_epoch
        seen.append((rates_in(scheduler), scheduler.get_last_lr(), counters))
    return seen


RATES = {
    "floats": (0.5, 0.25),
    "a float of numpy's among them": (0.5, np.float64(0.25)),
    "an int among them": (0.5, 1),
    "a tensor among them": (0.5, torch.tensor(0.25, dtype=torch.float64)),
    "none": (),
}


@pytest.mark.parametrize("rates", RATES.values(), ids=RATES.keys())
@pytest.mark.parametrize("settings", [{}, {"cooldown": 1}, {"eps": 0.2}, {"min_lr": 0.1}])
def test_rates_of_any_kind_are_cut_as_by_torchs_class(rates, settings):
    ours, theirs = (built(kind, *(rates or [0.5]), **settings) for kind in KINDS)
    if not rates:
        for scheduler in (ours, theirs):
            scheduler.optimizer.param_groups.clear()
            scheduler.min_lrs = []
    rate = torch.tensor(0.25, dtype=torch.float64)
    for scheduler in (ours, theirs):  # of their own
        for group in scheduler.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"] = rate.clone()
    assert stepped(ours) == stepped(theirs)


def test_a_snapshot_of_the_rates_that_was_taken_before_a_cut_stays():
    for kind in KINDS:
        scheduler = built(kind, 0.5)
        scheduler.step(1.0)
        before = scheduler._last_lr
        scheduler.step(2.0)
        assert before == [0.5]
        assert scheduler._last_lr == [0.25]
        assert scheduler._last_lr is not before


def test_a_rate_that_others_wrote_is_what_a_cut_begins_with():
    for kind in KINDS:
        scheduler = built(kind, 0.5, 0.5)
        scheduler.step(1.0)
        scheduler.optimizer.param_groups[1]["lr"] = 4.0
        scheduler.step(2.0)
        assert rates_in(scheduler) == scheduler.get_last_lr() == [0.25, 2.0]


def test_a_floor_or_a_factor_that_is_set_between_steps_counts_in_the_next_cut():
    for kind in KINDS:
        scheduler = built(kind, 0.5, 0.5, min_lr=[0.0, 0.0])
        scheduler.step(1.0)
        scheduler.min_lrs[1] = 0.4
        scheduler.factor = 0.1
        scheduler.step(2.0)
        assert rates_in(scheduler) == [0.05, 0.4]


@pytest.mark.parametrize("where", ["object", "class"])
def test_another_way_to_cut_may_be_put_in_place_at_any_time(where, monkeypatch):
    found = []
    for kind in KINDS:
        scheduler = built(kind, 0.5)
        stepped(scheduler, [1.0, 2.0])
        calls = []
        if where == "object":
            scheduler._reduce_lr = calls.append
        else:
            own = lambda _, epoch, calls=calls: calls.append(epoch)  # noqa: E731
            monkeypatch.setattr(kind, "_reduce_lr", own)
        stepped(scheduler, [2.0, 2.0])
        assert rates_in(scheduler) == [0.25]
        found.append(calls)
    assert found == [[3, 4], [3, 4]]


def test_a_group_that_watches_its_rate_is_told():
    class Watched(dict):
        def __setitem__(self, name, value):
            super().__setitem__(name, value)
            written.append((name, value))

    found = []
    for kind in KINDS:
        written = []
        scheduler = built(kind, 0.5)
        groups = scheduler.optimizer.param_groups
        groups[0] = Watched(groups[0])
        stepped(scheduler, [1.0, 2.0])
        found.append(written)
    assert found == [[("lr", 0.25)]] * 2


def test_two_places_of_one_group_are_cut_twice_as_by_torchs_class():
    for kind in KINDS:
        scheduler = built(kind, 0.5, 0.5)
        groups = scheduler.optimizer.param_groups
        groups[1] = groups[0]
        stepped(scheduler, [1.0, 2.0])
        assert scheduler.get_last_lr() == [0.125, 0.125]


def test_a_cut_in_a_step_of_a_given_epoch_is_of_that_epoch():
    for kind in KINDS:
        scheduler = built(kind, 0.5)
        scheduler.step(1.0)
        with pytest.warns(UserWarning, match="epoch parameter"):
            scheduler.step(2.0, 7)
        assert scheduler.last_epoch == 7
        assert rates_in(scheduler) == [0.25]


def test_what_a_subclass_computes_as_its_factor_is_what_cuts():
    for kind in KINDS:

        class Slower(kind):
            @property
            def factor(self):
                return 0.75

            @factor.setter
            def factor(self, value):
                pass

        scheduler = built(Slower, 1.0)
        stepped(scheduler, [1.0, 2.0])
        assert rates_in(scheduler) == [0.75]


def test_where_the_rates_cannot_be_remembered_the_error_comes_through():
    class Fixed(ReduceLROnPlateau):
        def __setattr__(self, name, value):
            if name == "_last_lr" and hasattr(self, "closed"):
                raise RuntimeError("closed")
            super().__setattr__(name, value)

    scheduler = built(Fixed, 0.5)
    scheduler.step(1.0)
    scheduler.closed = True
    with pytest.raises(RuntimeError, match="closed"):
        scheduler.step(2.0)
