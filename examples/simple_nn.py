"""The first example of many tutorials, start to end: train, prune, cut, compress, evaluate.

    python examples/simple_nn.py

A subclassed network of three dense layers learns whether some of ten random numbers are large
together. (Tutorials draw the labels at random, too; then there is nothing to learn, and nothing to lose
by pruning.) Needs `pip install "secateur[tensorflow]"`, no data, and some seconds.
"""

import keras
import numpy as np

import secateur as sc
from figures import show


class SimpleNN(keras.Model):
    """Dense 10, Dense 5, Dense 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first = keras.layers.Dense(10, activation="relu")
        self.second = keras.layers.Dense(5, activation="relu")
        self.last = keras.layers.Dense(1, activation="sigmoid")

    def call(self, inputs):
        """Numbers, (batch, 10), to probabilities, (batch, 1)."""
        return self.last(self.second(self.first(inputs)))


def rows(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten numbers from 0 to 1, and whether the first four come to more than two."""
    x = np.random.default_rng(seed).random((count, 10), "float32")
    return x, (x[:, :4].sum(axis=1) > 2).astype("int32")


def main(epochs: int = 40) -> None:
    """Print a line for each step."""
    keras.utils.set_random_seed(0)
    train, validation, (x, y) = rows(1000, 1), rows(500, 2), rows(2000, 3)
    model = SimpleNN()
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    model.fit(*train, epochs=epochs, verbose=0)
    show("trained", model, x, y)

    # Pruning: weights below the threshold become zero, and stay zero when training goes on.
    pruned = sc.prune(model, threshold=0.5).model
    show("pruned at 0.5", pruned, x, y)
    pruned.fit(*train, epochs=epochs // 2, verbose=0)
    show("... and trained on", pruned, x, y)

    # Cutting: neurons whose mean output on data is below the threshold are taken out.
    cut = sc.cut(model, train[0], threshold=0.5, align=1).model
    show("cut at 0.5", cut, x, y)
    cut.fit(*train, epochs=epochs // 2, verbose=0)
    show("... and trained on", cut, x, y)

    # Or say what is wanted, and let the loop find out how.
    tuning = sc.FineTuning(epochs=epochs)
    result = sc.compress(
        model, train, validation, target=sc.Parameters(ratio=4), max_drop=0.02, tuning=tuning
    )
    show("compressed, 4 times fewer", result.model, x, y)
    print(result)


if __name__ == "__main__":
    main()
