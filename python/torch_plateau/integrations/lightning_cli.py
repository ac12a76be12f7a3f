"""Lightning's command line: the drop-in as ``LightningCLI`` takes a plateau."""

from __future__ import annotations

from lightning.pytorch import cli

from ..optim import plateau

__all__ = ["MonitoredPlateau"]


class MonitoredPlateau(cli.ReduceLROnPlateau, plateau.ReduceLROnPlateau):
    """The drop-in with the name of its metric as ``monitor``, as LightningCLI builds a plateau.

    ::

        --lr_scheduler torch_plateau.integrations.lightning_cli.MonitoredPlateau
        --lr_scheduler.monitor val_loss --lr_scheduler.patience 3

    Lightning steps it, as it does torch's, and loses a step on resume. For the ``PlateauCallback``
    of ``integrations.lightning`` keep it: in a subclass of ``LightningCLI`` let
    ``configure_optimizers(module, optimizer, lr_scheduler)`` set ``module.plateau = lr_scheduler``
    and return ``optimizer``.
    """
