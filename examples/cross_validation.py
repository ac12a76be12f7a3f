"""Five folds of cross-validation in one process, a plateau for each, one scheduler for all.

Every fold has a model and an optimizer of its own; a cut in one fold leaves the others alone.
Needs scikit-learn for the digits: pip install 'torch-plateau[demo]'.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold
from torch.nn.functional import cross_entropy

from torch_plateau import BatchedReduceLROnPlateau

FOLDS, EPOCHS = 5, 40


def main() -> None:
    """Train all folds side by side and print cuts and held-out accuracy."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    splits = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(images, labels))
    models = [
        torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
        for _ in splits
    ]
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.05) for model in models]
    scheduler = BatchedReduceLROnPlateau(optimizers, factor=0.3, patience=2)

    for epoch in range(1, EPOCHS + 1):
        losses = torch.zeros(FOLDS)
        for fold, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
            train, held_out = splits[fold]
            for batch in torch.tensor(train)[torch.randperm(len(train))].split(128):
                optimizer.zero_grad()
                cross_entropy(model(x[batch]), y[batch]).backward()
                optimizer.step()
            with torch.no_grad():
                losses[fold] = cross_entropy(model(x[held_out]), y[held_out])
        scheduler.step(losses)
        if scheduler.lanes.reduced.any():
            cut = scheduler.lanes.reduced.nonzero().flatten().tolist()
            print(f"epoch {epoch:2}: cut in folds {cut}")

    with torch.no_grad():
        for fold, model in enumerate(models):
            held_out = splits[fold][1]
            accuracy = (model(x[held_out]).argmax(1) == y[held_out]).double().mean()
            lr, cuts = optimizers[fold].param_groups[0]["lr"], scheduler.lanes.num_reductions[fold]
            print(f"fold {fold}: accuracy {accuracy:.1%}, {cuts} cuts, rate now {lr:.1e}")


if __name__ == "__main__":
    main()
