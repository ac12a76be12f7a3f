"""Keras on torch: its ReduceLROnPlateau, with torch's counting and an end to the training.

Against Keras' own callback one import differs; the state survives a restart with one argument,
``state_path``. Needs Keras: pip install keras.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np

from torch_plateau.integrations.keras import ReduceLROnPlateau


def main() -> None:
    """Fit a small network to noise, until three epochs at the lowest rate did not help."""
    keras.utils.set_random_seed(0)
    x = np.random.normal(size=(256, 8)).astype("float32")
    y = x.sum(1, keepdims=True) + np.random.normal(size=(256, 1)).astype("float32")
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    plateau = ReduceLROnPlateau(factor=0.3, patience=1, min_lr=0.001, patience_at_min=3)
    history = model.fit(
        x, y, validation_split=0.25, epochs=100, verbose=0, callbacks=[plateau]
    ).history
    for epoch, rate in enumerate(history["learning_rate"]):
        print(f"epoch {epoch + 1}: loss {history['val_loss'][epoch]:.4f}, rate {rate:.6f}")
    print(f"ended after {epoch + 1} epochs: {plateau.lanes.stop_reasons()[0]}")


if __name__ == "__main__":
    main()
