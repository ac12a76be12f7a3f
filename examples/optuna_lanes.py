"""Optuna tunes 64 small networks, pruned by halving: as lanes of one stack, and apart.

Apart is optuna's ask and tell, with torch's own scheduler, an epoch of each trial in turn. Both
find the same; not in the same time. Beside training a stack, six lines differ from that: those
with ``trials``.
"""

import copy
import time

import optuna
import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import mse_loss
from torch.optim.lr_scheduler import ReduceLROnPlateau

from torch_plateau import LaneSGD, LaneStack, PlateauLanes
from torch_plateau.integrations.optuna import LaneStudy

SPACE = {"lr": FloatDistribution(1e-3, 0.2, log=True), "patience": IntDistribution(0, 4)}
TRIALS, EPOCHS, STEPS = 64, 20, 10
x = torch.randn(96, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
(train_x, valid_x), (train_y, valid_y) = x.chunk(2), x.sum(1, keepdim=True).sin().chunk(2)
torch.manual_seed(0)
start = torch.nn.Sequential(
    torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)
).double()


def together(study):
    """Train all trials as lanes; those that are pruned leave the stack."""
    trials = LaneStudy(study, SPACE, TRIALS)
    _, settings = trials.ask()
    lanes = PlateauLanes(TRIALS, **settings, max_steps=EPOCHS)
    params, _ = stack_module_state([start] * TRIALS)
    stack = LaneStack(lanes, LaneSGD(params.values(), lanes, momentum=0.9), params)

    def loss(params, x, y):
        return mse_loss(functional_call(start, params, (x,)), y)

    while trials.running.any():
        for _ in range(STEPS):
            for name, each in vmap(grad(loss), (0, None, None))(params, train_x, train_y).items():
                params[name].grad = each
            stack.optimizer.step()
        losses = vmap(loss, (0, None, None))(params, valid_x, valid_y)
        lanes.step(losses)
        trials.report(losses)
        trials.tell(lanes.finished, lanes.best)
        trials.keep(stack.keep(trials.running))


def apart(study):
    """Train a model of its own for each trial."""
    running = []
    for trial in [study.ask(SPACE) for _ in range(TRIALS)]:
        model = copy.deepcopy(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=trial.params["lr"], momentum=0.9)
        running.append(
            (
                trial,
                model,
                optimizer,
                ReduceLROnPlateau(optimizer, patience=trial.params["patience"]),
            )
        )
    for epoch in range(EPOCHS):
        losses = []
        for _, model, optimizer, scheduler in running:
            for _ in range(STEPS):
                optimizer.zero_grad()
                mse_loss(model(train_x), train_y).backward()
                optimizer.step()
            losses.append(mse_loss(model(valid_x), valid_y).item())
            scheduler.step(losses[-1])
        for each, loss in zip(list(running), losses, strict=True):
            each[0].report(loss, epoch)
            if each[0].should_prune():
                study.tell(each[0], state=optuna.trial.TrialState.PRUNED)
                running.remove(each)
    for trial, *_, scheduler in running:
        study.tell(trial, scheduler.best)


def main():
    """Tune both ways, the first way once before, in which torch loads what vmap needs."""
    studies, seconds = [], []
    for way in (together, together, apart):
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=4, reduction_factor=2)
        sampler = optuna.samplers.RandomSampler(seed=1)
        studies.append(optuna.create_study(sampler=sampler, pruner=pruner))
        began = time.perf_counter()
        way(studies[-1])
        seconds.append(time.perf_counter() - began)
    for study, name, took in zip(studies[1:], ("together", "apart"), seconds[1:], strict=True):
        print(
            f"{name:8}  best: trial {study.best_trial.number}, {study.best_value:.6f}  {took:.2f} s"
        )
    ends = [[(each.state, each.last_step) for each in study.trials] for study in studies]
    pruned = sum(state == optuna.trial.TrialState.PRUNED for state, _ in ends[1])
    print(f"{pruned} of {TRIALS} pruned, at the same steps: {ends[1] == ends[2]}")
    print(f"apart takes {seconds[2] / seconds[1]:.1f} times as long")
    return studies[1:]


if __name__ == "__main__":
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    main()
