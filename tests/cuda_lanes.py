"""What the CUDA tests share: waits that raise, lanes of each setting, an ensemble that trains."""

import contextlib
import warnings

import torch
from torch.func import grad, vmap
from torch.optim import AdamW

from oracle import TorchLanes, same_bits
from torch_plateau import LaneLR, PlateauLanes


@contextlib.contextmanager
def sync_debug_mode(mode, device="cuda"):
    """What torch does about a call that waits for a GPU, "error" or "warn"; nothing on a CPU."""
    if str(device) == "cpu":
        yield
        return
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode", UserWarning)
        torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def noisy(steps, n, dtype=torch.float64):
    """Metrics with many ties and plateaus, on the CPU."""
    return (torch.rand(steps, n) * 8).round().div(8).to(dtype)


SETTINGS = [
    {"mode": mode, "patience": patience, "cooldown": cooldown, "factor": factor, "min_lr": floor}
    for mode in ("min", "max")
    for patience, cooldown, factor, floor in ((0, 0, 0.9, 0.0), (1, 3, 0.5, 0.02), (4, 1, 0.99, 0))
]


def varied(device, dtype=torch.float64):
    """Lanes with a setting of each kind per lane, and torch's schedulers for the same."""
    each = {name: [lane[name] for lane in SETTINGS] for name in SETTINGS[0]}
    lanes = PlateauLanes(len(SETTINGS), 0.1, device=device, dtype=dtype, **each)
    return lanes, TorchLanes([[0.1]] * len(SETTINGS), SETTINGS)


def assert_same(lanes, twin):
    """Compare all fields of two PlateauLanes, on any devices, bit for bit."""
    for name, theirs in twin.state_dict().items():
        ours = lanes.state_dict()[name]
        if isinstance(theirs, torch.Tensor) and theirs.is_floating_point():
            assert same_bits(ours.double(), theirs.double()), name
        elif isinstance(theirs, torch.Tensor):
            assert torch.equal(ours.cpu(), theirs.cpu()), name
    assert torch.equal(lanes.lr.cpu(), twin.lr.cpu())


def loss_of(hidden, out, x, y):
    return ((x @ hidden).tanh() @ out - y).square().mean()


class Ensemble:
    """Stacked networks with a rate each."""

    def __init__(self, device, n=12):
        weights = torch.randn(n, 3, 8), torch.randn(n, 8, 1)
        self.params = [weight.to(device).requires_grad_() for weight in weights]
        rates = torch.logspace(-3, 0, n, dtype=torch.float64)
        self.keywords = {"patience": [i % 3 for i in range(n)], "factor": 0.5}
        self.lanes = PlateauLanes(n, rates, device=device, **self.keywords)
        self.twin = PlateauLanes(n, rates, **self.keywords)  # on the CPU, to be compared with
        self.optimizer = AdamW(self.params, lr=1.0, capturable=True)
        LaneLR(self.optimizer, self.lanes)
        x = torch.randn(64, 3)
        self.data = x.to(device), x.sum(1, keepdim=True).sin().to(device)

    def losses(self):
        return vmap(loss_of, in_dims=(0, 0, None, None))(*self.params, *self.data)

    def functional_gradients(self):
        with torch.no_grad():
            each = vmap(grad(loss_of, argnums=(0, 1)), in_dims=(0, 0, None, None))
            for param, gradient in zip(self.params, each(*self.params, *self.data), strict=True):
                param.grad = gradient

    def epoch(self, functional=False):
        """Train, validate and step; return what the lanes were stepped with."""
        if functional:
            self.functional_gradients()
        else:
            self.optimizer.zero_grad()
            self.losses().sum().backward()
        self.optimizer.step()
        with torch.no_grad():
            losses = self.losses()
        self.lanes.step(losses)
        return losses
