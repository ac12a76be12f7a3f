"""Calls of composed schedulers."""

from torch.optim.lr_scheduler import StepLR

from subjects.calls import calls_of
from subjects.schedulers import of_scheduler, sgd
from torch_plateau import BatchedReduceLROnPlateau, ReduceLROnPlateau, compose

SUBJECTS = {}


def composed(kind):
    optimizer = sgd()
    schedule = StepLR(optimizer, 2, 0.5)
    plateau = kind(optimizer, patience=0, cooldown=1)
    both = compose(schedule, plateau)
    both._metrics = (lambda x: x) if kind is ReduceLROnPlateau else (lambda x: [x, x])
    return both


def stepped(both):
    for i in range(3):
        both.optimizer.step() if hasattr(both.optimizer, "step") else None
        both.step_schedule()
        both.step(both._metrics(1.0 + i))
    return both


def composed_goes_on(both):
    found = []
    for i in range(4):
        both.step_schedule()
        both.step(both._metrics(5.0 + i))
        found.append(of_scheduler(both))
    return found


COMPOSED_CALLS = {
    "step": lambda x: x.step(x._metrics(9.0)),
    "step_schedule": lambda x: x.step_schedule(),
    "load_state_dict": lambda x: x.load_state_dict(composed(type(x.plateau)).state_dict()),
}
for kind in (ReduceLROnPlateau, BatchedReduceLROnPlateau):
    name, build = f"composed {kind.__name__}", lambda kind=kind: stepped(composed(kind))
    SUBJECTS |= calls_of(name, build, COMPOSED_CALLS, of_scheduler, composed_goes_on)
