"""The whole way through a Keras model."""

import numpy as np
import pytest

import secateur as sc


def one_layer(side):
    import keras

    return keras.Sequential([keras.Input((side,)), keras.layers.Dense(side, use_bias=False)])


def many_layers(side):
    """16 matrices that have as many weights together as the one."""
    import keras

    width = side // 4
    layers = [keras.layers.Dense(width, activation="relu") for _ in range(16)]
    return keras.Sequential([keras.Input((width,)), *layers])


@pytest.mark.parametrize("build", [one_layer, many_layers])
def test_prune_in_place(yardstick, weights, side, num_removed, pruned, build):
    model = build(side)
    kernels = [layer.kernel for layer in model.layers]
    values = np.split(weights.ravel(), len(kernels))
    values = [value.reshape(kernel.shape) for value, kernel in zip(values, kernels, strict=True)]

    def restore():
        for kernel, value in zip(kernels, values, strict=True):
            kernel.assign(value)

    result = yardstick.measure(
        f"sc.prune(model, inplace=True), {len(kernels)} layers",
        lambda: sc.prune(model, sparsity=0.9, inplace=True),
        prepare=restore,
        bound=20,
    )
    assert result.model is model
    assert result.report.num_zeros == num_removed
    after = np.concatenate([np.asarray(kernel).ravel() for kernel in kernels])
    np.testing.assert_array_equal(after, pruned.ravel())
