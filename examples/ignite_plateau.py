"""Ignite: a plateau that steps each time the evaluator completes.

Against ignite's quick start two imports and three lines are new: the scheduler, its handler, and an
evaluator that runs on the validation data alone: the quick start's runs on the training data too.
Needs ignite: pip install pytorch-ignite.
"""

import torch
from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Loss

from torch_plateau import ReduceLROnPlateau
from torch_plateau.integrations.ignite import PlateauHandler


def main() -> None:
    """Fit a line to noise, and print the loss and the rate of each epoch."""
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = x.sum(1, keepdim=True) + torch.randn(256, 1)
    train_loader = [(x[i : i + 32], y[i : i + 32]) for i in range(0, 192, 32)]
    val_loader = [(x[192:], y[192:])]

    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    criterion = torch.nn.MSELoss()
    trainer = create_supervised_trainer(model, optimizer, criterion)
    evaluator = create_supervised_evaluator(model, metrics={"loss": Loss(criterion)})

    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=1, min_lr=0.04)
    evaluator.add_event_handler(Events.COMPLETED, PlateauHandler(scheduler, "loss"))

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate() -> None:
        evaluator.run(val_loader)
        loss, rate = evaluator.state.metrics["loss"], scheduler.get_last_lr()[0]
        print(f"epoch {trainer.state.epoch}: loss {loss:.4f}, rate {rate}")

    trainer.run(train_loader, max_epochs=30)


if __name__ == "__main__":
    main()
