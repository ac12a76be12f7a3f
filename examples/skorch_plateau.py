"""skorch: a plateau that goes on where it was when the net is pickled and fitted further.

Against skorch's quick start one import and one line, the callback, are new.
Needs skorch: pip install skorch.
"""

import pickle

import torch
from sklearn.datasets import make_classification
from skorch import NeuralNetClassifier
from torch import nn

from torch_plateau.integrations.skorch import PlateauScheduler


class Network(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 2), nn.Softmax(-1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of both classes."""
        return self.layers(x)


def main() -> None:
    """Train for ten epochs, pickle, and train for ten more."""
    torch.manual_seed(0)
    x, y = make_classification(500, 20, n_informative=10, random_state=0)
    net = NeuralNetClassifier(
        Network,
        max_epochs=10,
        lr=1.0,
        callbacks=[PlateauScheduler(monitor="valid_loss", patience=1, factor=0.5)],
        verbose=0,
    )
    net.fit(x.astype("float32"), y)
    net = pickle.loads(pickle.dumps(net))
    net.partial_fit(x.astype("float32"), y)
    for row in net.history:
        print(f"epoch {row['epoch']}: loss {row['valid_loss']:.4f}, rate {row['event_lr']}")


if __name__ == "__main__":
    main()
