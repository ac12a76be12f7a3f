"""Optuna tunes 64 networks one by one and as lanes of a stack: six lines, with trials, differ.

Needs optuna: pip install optuna.
"""

import optuna
import torch
from optuna.distributions import FloatDistribution, IntDistribution
from torch.optim import SGD, lr_scheduler

from torch_plateau import LaneSGD, LaneStack, PlateauLanes
from torch_plateau.integrations.optuna import LaneStudy

torch.manual_seed(0)
x = torch.randn(96, 4, dtype=torch.float64)
(train_x, valid_x), (train_y, valid_y) = x.chunk(2), x.sum(1, keepdim=True).sin().chunk(2)
start = {"w": torch.randn(4, 16).double() / 2, "v": torch.randn(16, 1).double() / 4}
space = {"lr": FloatDistribution(1e-3, 0.2, log=True), "patience": IntDistribution(0, 4)}
pruner = optuna.pruners.ThresholdPruner(upper=0.2, n_warmup_steps=4)
apart = optuna.create_study(sampler=optuna.samplers.RandomSampler(1), pruner=pruner)
together = optuna.create_study(sampler=optuna.samplers.RandomSampler(1), pruner=pruner)


def epoch(optimizer, w, v):
    """Take ten steps of all networks in ``w`` and ``v``; return the validation loss of each."""
    for _ in range(10):
        optimizer.zero_grad()
        ((train_x @ w).tanh() @ v - train_y).square().mean((-2, -1)).sum().backward()
        optimizer.step()
    return ((valid_x @ w).tanh() @ v - valid_y).square().mean((-2, -1)).detach()


for trial in (apart.ask(space) for _ in range(64)):
    params = [each.clone().requires_grad_() for each in start.values()]
    optimizer = SGD(params, lr=trial.params["lr"], momentum=0.9)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=trial.params["patience"])
    for step in range(20):
        loss = epoch(optimizer, *params).item()
        plateau.step(loss)
        trial.report(loss, step)
        if trial.should_prune():
            apart.tell(trial, state=optuna.trial.TrialState.PRUNED)
            break
    else:
        apart.tell(trial, plateau.best)

trials = LaneStudy(together, space, 64)
lanes = PlateauLanes(64, **trials.ask()[1], max_steps=20)
params = {name: each.repeat(64, 1, 1).requires_grad_() for name, each in start.items()}
stack = LaneStack(lanes, LaneSGD(params.values(), lanes, momentum=0.9), params)
while trials.running.any():
    losses = epoch(stack.optimizer, *stack.params.values())
    lanes.step(losses)
    trials.report(losses)
    trials.tell(lanes.finished, lanes.best)
    trials.keep(stack.keep(trials.running))

one_by_one = apart.trials[-1].datetime_complete - apart.trials[0].datetime_start
as_lanes = together.best_trial.datetime_complete - together.trials[0].datetime_start
for study in (apart, together):
    print(f"best: trial {study.best_trial.number}, {study.best_value:.6f}")
print(f"one by one takes {one_by_one / as_lanes:.1f} times as long")
