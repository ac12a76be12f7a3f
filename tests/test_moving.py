"""The pages about moving from elsewhere: their own code against the library, on many histories.

Each page defines ``theirs(history, **settings)`` and ``ours(history, **settings)``, which return
the rates after each step. Here both get histories and settings that are not on the page.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"  # before a page imports keras

import importlib.machinery
import importlib.util
import random
import sys
from types import ModuleType

import pytest
import torch

from test_site import DOCS, blocks
from torch_plateau import PlateauLanes

# Keras' own reading of a rate on torch
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def names_of(page, folder, monkeypatch):
    """What a page defines, its blocks run in order."""
    monkeypatch.chdir(folder)
    names = {"__name__": "page"}
    for info, content in blocks(DOCS / "moving" / f"{page}.md"):
        if info == "python":
            exec(compile(content, f"<{page}.md>", "exec"), names)
    return names


def losses(r, lanes):
    """A history: slow progress, noise, and stretches without either; vectors for several lanes."""
    rows, still = [], [1.0] * (lanes or 1)
    for step in range(100):
        still = [r.uniform(0.6, 1.4) - 0.002 * step if r.random() < 0.6 else x for x in still]
        rows.append(list(still) if lanes else still[0])
    return rows


def of_all(r):
    """Settings that all have, by torch's names."""
    chosen = {"factor": r.choice([0.5, 0.1, 0.7]), "patience": r.randrange(1, 5)}
    return chosen | {"cooldown": r.randrange(4)}


def of_torch(r):
    gate = {"threshold": r.choice([0.0, 1e-4, 0.1]), "threshold_mode": r.choice(["rel", "abs"])}
    floor = {"min_lr": r.choice([0.0, 0.01]), "eps": r.choice([0.0, 1e-8, 1e-3])}
    return {**of_all(r), **gate, **floor, "mode": r.choice(["min", "max"])}


def of_optax(r):
    tolerances = {"rtol": r.choice([1e-4, 0.1]), "atol": r.choice([0.0, 0.013])}
    rest = {"accumulation_size": r.choice([1, 2, 3]), "min_scale": r.choice([0.0, 0.03])}
    return {**of_all(r), **tolerances, **rest}


def of_keras(r):
    # Keras compares rates in float32: none that underflow there
    kept = {"min_delta": r.choice([0.0, 1e-4, 0.07]), "min_lr": r.choice([1e-9, 0.03])}
    return {**of_all(r), **kept, "mode": r.choice(["min", "max"])}


def of_timm(r):
    names = {"factor": "decay_rate", "patience": "patience_t", "cooldown": "cooldown_t"}
    shared = {names[name]: value for name, value in of_all(r).items()}
    warm_up = {"warmup_t": r.choice([0, 0, 5]), "warmup_lr_init": r.choice([0.0, 0.05])}
    rest = {"threshold": r.choice([0.0, 1e-4, 0.1]), "lr_min": r.choice([0.0, 0.03])}
    return {**shared, **warm_up, **rest, "mode": r.choice(["min", "max"])}


def of_greedy(r):
    raises = {"warmup": r.randrange(4), "max_lr": r.choice([0.2, 1.0])}
    average = {"smooth": r.choice([False, True]), "window_size": r.randrange(2, 6)}
    return {**of_torch(r), **raises, **average, "reset_start": r.choice([2, 500])}


LANES = {"torch": 4, "optax": 4}  # of how many the page's functions take metrics; else one number
# optax computes in float32, lanes publish it: equal to its precision, all others bit for bit
ROUNDED = ("optax", "timm")


@pytest.fixture
def real_timm(monkeypatch):
    """Schedulers of timm, which need nothing but torch, imported without what needs torchvision."""
    spec = importlib.util.find_spec("timm")
    package = ModuleType("timm")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = importlib.machinery.ModuleSpec("timm", None, is_package=True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "timm", package)
    yield
    for name in [name for name in sys.modules if name.startswith("timm.")]:
        del sys.modules[name]


@pytest.mark.parametrize("page", ["torch", "optax", "keras", "greedy"])
def test_ours_has_the_rates_of_theirs(page, tmp_path, monkeypatch):
    compare(page, names_of(page, tmp_path, monkeypatch))


# timm wants torchvision, which is not among what the tests install: run where it is found, as by
# pip install --no-deps timm
if importlib.util.find_spec("timm") is not None:

    @pytest.mark.usefixtures("real_timm")
    def test_ours_has_the_rates_of_timm(tmp_path, monkeypatch):
        names = names_of("timm", tmp_path, monkeypatch)
        assert names["PlateauLRScheduler"] is not None
        compare("timm", names)


def compare(page, names):
    """Assert that both functions of a page return the same rates, with cuts among them."""
    cuts, given = 0, globals()[f"of_{page}"]
    for seed in range(6 if page == "optax" else 30):  # there each recipe is compiled
        r = random.Random(seed)
        history, settings = losses(r, LANES.get(page)), given(r)
        theirs, ours = (names[each](history, **settings) for each in ("theirs", "ours"))
        if page in ROUNDED:
            assert torch.allclose(torch.tensor(theirs), torch.tensor(ours), rtol=1e-5, atol=0.0)
        else:
            assert theirs == ours, settings
        cuts += int((torch.tensor(ours).diff(dim=0) < 0).sum())
    assert cuts > 60


def test_torchs_counting_gives_the_rates_of_the_others_with_the_numbers_on_their_pages():
    n = 500
    patience, cooldown = torch.randint(1, 6, (n,)), torch.randint(0, 5, (n,))
    shared = {"factor": 0.7, "eps": 0.0, "min_lr": 0.01}
    by_name = {
        name: PlateauLanes(n, 1.0, counting=name, patience=patience, cooldown=cooldown, **shared)
        for name in ("keras", "optax")
    }
    shorter = {"keras": (cooldown - 1).clamp(min=0), "optax": cooldown}
    by_torch = {
        name: PlateauLanes(n, 1.0, patience=patience - 1, cooldown=each, **shared)
        for name, each in shorter.items()
    }
    for step in range(200):
        metrics = torch.rand(n) - 0.002 * step
        for name, lanes in by_name.items():
            assert torch.equal(lanes.step(metrics), by_torch[name].step(metrics))
    assert int(by_name["keras"].num_reductions.sum()) > n
