"""transformers' Trainer with a model of two members, each with a rate of its own.

Six lines beside the imports that the Trainer's own quick start has not: the mixin's class with its
vector of metrics (three), the optimizer, its scheduler and ``optimizers=``. One metric and one rate
need no ``plateau_metrics``. Needs the Trainer: pip install 'transformers[torch]'.
"""

import tempfile

import torch
from transformers import Trainer, TrainingArguments

from torch_plateau import BatchedReduceLROnPlateau
from torch_plateau.integrations.transformers import PlateauTrainerMixin


class Pair(torch.nn.Module):
    """Two members that share nothing."""

    def __init__(self):
        super().__init__()
        self.members = torch.nn.ModuleList(torch.nn.Linear(4, 1) for _ in range(2))

    def forward(self, x, labels):
        """Return the sum of the losses, and the errors of each."""
        errors = torch.stack([(m(x).squeeze(-1) - labels) ** 2 for m in self.members], 1)
        return {"loss": errors.mean(0).sum(), "logits": errors}


class PairTrainer(PlateauTrainerMixin, Trainer):
    """A Trainer whose plateau gets a metric of each member."""

    def plateau_metrics(self, metrics):
        """Return one metric for each lane."""
        return [metrics["eval_first"], metrics["eval_second"]]


def compute_metrics(prediction):
    """Return the mean error of each member."""
    return dict(zip(("first", "second"), prediction.predictions.mean(0), strict=True))


torch.manual_seed(0)
data = [{"x": (x := torch.randn(4)), "labels": x.sum() + torch.randn(())} for _ in range(96)]
model = Pair()
optimizer = torch.optim.SGD([{"params": m.parameters(), "lr": 0.3} for m in model.members])
scheduler = BatchedReduceLROnPlateau(optimizer, factor=[0.1, 0.5], patience=1)
with tempfile.TemporaryDirectory() as folder:
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "use_cpu": True}
    args = TrainingArguments(folder, num_train_epochs=12, eval_strategy="epoch", **quiet)
    PairTrainer(
        model,
        args,
        train_dataset=data[:64],
        eval_dataset=data[64:],
        compute_metrics=compute_metrics,
        optimizers=(optimizer, scheduler),
    ).train()
print(f"{scheduler.last_epoch} evaluations, rates {[g['lr'] for g in optimizer.param_groups]}")
