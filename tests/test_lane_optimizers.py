"""LaneSGD, LaneAdam and LaneAdamW against a separate optimizer of torch for every lane."""

import pytest
import torch

from torch_plateau import LaneAdam, LaneAdamW, LaneSGD, PlateauLanes

N = 6
SHAPES = ((N, 5, 3), (N,), (N, 1, 40))
RATES = torch.logspace(-3, -1, N, dtype=torch.float64).tolist()
EACH = {  # a value for each lane
    "beta1": [0.9, 0.8, 0.0, 0.95, 0.5, 0.9],
    "beta2": [0.999, 0.99, 0.9, 0.95, 0.999, 0.5],
    "momentum": [0.9, 0.0, 0.5, 0.99, 0.8, 0.9],
    "dampening": [0.0, 0.5, 0.1, 0.0, 0.9, 0.0],
    "weight_decay": [0.0, 0.1, 0.01, 0.5, 0.0, 0.2],
    "eps": [1e-8, 1e-3, 1e-6, 1e-8, 1e-2, 1e-8],
}
ADAM_EACH = {
    "betas": (EACH["beta1"], EACH["beta2"]),
    "eps": EACH["eps"],
    "weight_decay": EACH["weight_decay"],
}
SGD_EACH = {name: EACH[name] for name in ("momentum", "dampening", "weight_decay")}

KINDS = {
    "SGD": (LaneSGD, torch.optim.SGD, {}),
    "SGD decay": (LaneSGD, torch.optim.SGD, {"weight_decay": 0.1, "maximize": True}),
    "SGD momentum": (LaneSGD, torch.optim.SGD, {"momentum": 0.9, "dampening": 0.3}),
    "SGD nesterov": (
        LaneSGD,
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "maximize": True},
    ),
    "SGD each": (LaneSGD, torch.optim.SGD, SGD_EACH),
    "Adam": (LaneAdam, torch.optim.Adam, {"weight_decay": 0.1}),
    "Adam amsgrad": (LaneAdam, torch.optim.Adam, {"amsgrad": True, "maximize": True}),
    "Adam each": (LaneAdam, torch.optim.Adam, ADAM_EACH),
    "AdamW": (LaneAdamW, torch.optim.AdamW, {}),
    "AdamW amsgrad": (LaneAdamW, torch.optim.AdamW, {"amsgrad": True, "weight_decay": 0.1}),
    "AdamW maximize": (LaneAdamW, torch.optim.AdamW, {"maximize": True, "betas": (0.5, 0.9)}),
    "AdamW each": (LaneAdamW, torch.optim.AdamW, {**ADAM_EACH, "amsgrad": True}),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def kind(request):
    return request.param


def of_lane(keywords, lane):
    """The settings of one lane, as torch takes them."""
    own = {k: v[lane] if isinstance(v, list) else v for k, v in keywords.items()}
    if "betas" in own:
        own["betas"] = tuple(b[lane] if isinstance(b, list) else b for b in own["betas"])
    return own


class Apart:
    """A separate optimizer of torch for each lane, over rows of the same starting values."""

    def __init__(self, kind, keywords, stacked, rates, **more):
        self.build = lambda lane: kind(
            self.rows[lane], lr=rates[lane], **of_lane(keywords, lane), **more
        )
        self.rows = [[p.detach()[i].clone().requires_grad_() for p in stacked] for i in range(N)]
        self.optimizers = [self.build(lane) for lane in range(N)]

    def give(self, grads):
        for lane, rows in enumerate(self.rows):
            for row, grad in zip(rows, grads, strict=True):
                row.grad = grad[lane].clone()

    def step(self, lanes=range(N)):
        for lane in lanes:
            self.optimizers[lane].step()

    def refill(self, lane):
        """A new model that happens to have the old one's weights: only the optimizer is new."""
        rate = self.optimizers[lane].param_groups[0]["lr"]
        self.optimizers[lane] = self.build(lane)
        self.set_rate(lane, rate)

    def set_rate(self, lane, rate):
        self.optimizers[lane].param_groups[0]["lr"] = rate

    def stacked(self):
        return [
            torch.stack([row.detach() for row in rows]) for rows in zip(*self.rows, strict=True)
        ]


def new_params(device, dtype=torch.float64, shapes=SHAPES):
    return [torch.randn(shape, dtype=dtype).to(device).requires_grad_() for shape in shapes]


def give_random(params):
    grads = [torch.randn(p.shape, dtype=torch.float64).to(p) for p in params]
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad.clone()
    return grads


def test_a_stack_takes_the_steps_of_separate_optimizers(kind, device):
    """With cuts, refills, finished lanes and steps that a GradScaler would skip."""
    ours, theirs, keywords = kind
    params = new_params(device)
    lanes = PlateauLanes(N, RATES, patience=5, factor=0.7, nan="freeze", device=device)
    one, apart = ours(params, lanes, **keywords), Apart(theirs, keywords, params, RATES)
    starts = [p.detach().clone() for p in params]
    cuts = 0
    for step in range(200):
        grads = give_random(params)
        apart.give(grads)
        one.found_inf = torch.tensor(float(step % 9 == 4), device=device)
        if step % 2:  # a scale that is taken out again
            one.grad_scale = torch.tensor(4.0, device=device)
            torch._foreach_mul_([p.grad for p in params], 4.0)
        one.step()
        if step % 9 != 4:
            apart.step([i for i in range(N) if not lanes.finished[i]])
            assert all(torch.equal(p.grad[0], g[0]) for p, g in zip(params, grads, strict=True))
        del one.found_inf
        one.grad_scale = None
        metrics = torch.rand(N, dtype=torch.float64).to(device)
        if step == 120:
            metrics[1] = metrics[4] = torch.nan  # these are finished
        lanes.step(metrics)
        cuts += int(lanes.reduced.sum())
        if step in (60, 130):
            which = [0, 3]
            one.reset_lanes(which if step == 60 else torch.tensor(which, device=device))
            for lane in which:
                apart.refill(lane)
        for lane, rate in enumerate(lanes.lr_master.tolist()):
            apart.set_rate(lane, rate)
    assert cuts > N
    assert lanes.finished.tolist() == [False, True, False, False, True, False]
    for p, rows, start in zip(params, apart.stacked(), starts, strict=True):
        assert (p.detach() - rows).abs().max() <= 1e-12
        assert ((p.detach() - start).abs().reshape(N, -1).amax(1) > 0).all()


FUSED = {name: each for name, each in KINDS.items() if "each" not in name}


@pytest.mark.parametrize(("ours", "theirs", "keywords"), FUSED.values(), ids=FUSED.keys())
def test_in_float32_it_differs_from_torchs_fused_ones_by_rounding(ours, theirs, keywords, device):
    """Of rows longer than what a thread takes at once, too."""
    params = new_params(device, torch.float32, ((N, 9001), (N, 33, 3), (N,), (N, 4096)))
    same = [p.detach().clone().requires_grad_() for p in params]
    one = ours(params, PlateauLanes(N, 0.01, device=device), **keywords)
    fused = theirs(same, lr=0.01, fused=True, **keywords)
    for _ in range(30):
        for p, grad in zip(same, give_random(params), strict=True):
            p.grad = grad
        one.step()
        fused.step()
    for p, q in zip(params, same, strict=True):
        assert (p - q).abs().max() <= 3e-6 * q.abs().max()


def test_how_many_threads_there_are_changes_no_bit(kind):
    ours, _, keywords = kind
    results = []
    before = torch.get_num_threads()
    for threads in (1, 4):
        torch.manual_seed(1)
        params = new_params("cpu", torch.float32, ((N, 50_000), (N, 7), (N, 4097)))
        one = ours(params, PlateauLanes(N, RATES), **keywords)
        try:
            torch.set_num_threads(threads)
            for _ in range(3):
                give_random(params)
                one.step()
        finally:
            torch.set_num_threads(before)
        results.append(params)
    assert all(torch.equal(p, q) for p, q in zip(*results, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_of_two_bytes_are_rounded_once_a_step_and_states_not_at_all(kind, dtype, device):
    """Against float32 optimizers whose parameters are rounded after each step."""
    ours, theirs, keywords = kind
    params = new_params(device, dtype)
    apart = Apart(theirs, keywords, [p.detach().float() for p in params], RATES)
    one = ours(params, PlateauLanes(N, RATES, device=device), **keywords)
    for _ in range(20):
        apart.give([grad.float() for grad in give_random(params)])
        one.step()
        apart.step()
        with torch.no_grad():
            for rows in apart.rows:
                for row in rows:
                    row.copy_(row.to(dtype))
    states = [t for state in one.state.values() for t in state.values()]
    assert all(t.dtype == torch.float32 for t in states)
    for p, rows in zip(params, apart.stacked(), strict=True):
        differ = (p != rows.to(dtype)).double().mean()
        assert differ < 0.03  # a last bit of float32 now and then tips a rounding
        assert torch.allclose(p.float(), rows, rtol=0.05, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_number_of_two_bytes_is_read_and_rounded_as_torch_does(dtype, device):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    params = torch.stack([torch.zeros_like(every), every, every, every]).to(device)
    grads = torch.stack([every, every.flip(0), every.roll(1), every.roll(4099)]).to(device)
    rates = torch.tensor([1.0, 2.0**-12, 0.3, 2.0**11], dtype=torch.float64)
    lanes = PlateauLanes(4, rates, device=device)
    expected = params.float() - lanes.lr[:, None] * grads.float()
    params.requires_grad_().grad = grads
    LaneSGD([params], lanes).step()
    assert torch.equal(params.isnan(), expected.isnan())
    assert torch.equal(params.nan_to_num(), expected.to(dtype).nan_to_num())


def test_a_warm_up_schedule_of_torch_drives_all_lanes(device):
    params = new_params(device)
    lanes = PlateauLanes(N, RATES, device=device)
    for lr in (1.0, torch.tensor(1.0, device=device)):
        one, apart = LaneAdamW(params, lanes, lr=lr), Apart(torch.optim.AdamW, {}, params, RATES)
        schedules = [
            torch.optim.lr_scheduler.LinearLR(each, 0.1, total_iters=10)
            for each in (one, *apart.optimizers)
        ]
        for _ in range(20):
            apart.give(give_random(params))
            one.step()
            apart.step()
            for each in schedules:
                each.step()
        tolerance = 1e-12 if isinstance(lr, float) else 1e-6  # torch fills a float32 tensor
        for p, rows in zip(params, apart.stacked(), strict=True):
            assert (p.detach() - rows).abs().max() <= tolerance


def test_the_rates_are_those_of_a_lanes_own_warm_up_and_what_others_wrote(device):
    lanes = PlateauLanes(2, [1.0, 1.0], warmup_steps=4, device=device)
    p = torch.zeros(2, 3, device=device, requires_grad=True)
    p.grad = -torch.ones_like(p)
    one = LaneSGD([p], lanes)
    lanes.step([0.0, 0.0])
    one.step()
    assert p[:, 0].tolist() == [0.25, 0.25]
    lanes.lr[1] = 0.5
    one.step()
    assert p[:, 0].tolist() == [0.5, 0.75]


def test_settings_per_lane_may_be_written_in_place(device):
    p = torch.ones(2, 1, dtype=torch.float64, device=device, requires_grad=True)
    one = LaneSGD([p], PlateauLanes(2, 0.5, device=device), weight_decay=[0.0, 0.0])
    decay = one.param_groups[0]["weight_decay"]
    assert (decay.dtype, decay.device) == (torch.float64, p.device)
    decay[1] = 1.0
    p.grad = torch.zeros_like(p)
    one.step()
    assert p.flatten().tolist() == [1.0, 0.5]
