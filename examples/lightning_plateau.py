"""Lightning: a plateau that steps once for each validation, and goes on from a checkpoint.

Against a module of Lightning's quick start two lines differ: the scheduler is kept, not returned,
and the trainer has a callback. Needs Lightning: pip install lightning.
"""

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from torch_plateau import ReduceLROnPlateau
from torch_plateau.integrations.lightning import PlateauCallback


class Line(lightning.LightningModule):
    """A linear model."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Linear(8, 1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer; the plateau is the callback's to step."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.2)
        self.plateau = ReduceLROnPlateau(optimizer, patience=1, factor=0.5)
        return optimizer

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Return the loss of a batch."""
        return torch.nn.functional.mse_loss(self.model(batch[0]), batch[1])

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        """Log the loss of a batch."""
        loss = torch.nn.functional.mse_loss(self.model(batch[0]), batch[1])
        self.log("val_loss", loss)
        print(f"epoch {self.current_epoch}: rate {self.optimizers().param_groups[0]['lr']}")


def main() -> None:
    """Fit a line to noise, and print the rate that each epoch was trained with."""
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True) + torch.randn(256, 1))
    train, val = (DataLoader(part, 64) for part in torch.utils.data.random_split(data, [192, 64]))
    trainer = lightning.Trainer(
        max_epochs=12,
        callbacks=[PlateauCallback("plateau", "val_loss")],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Line(), train, val)


if __name__ == "__main__":
    main()
