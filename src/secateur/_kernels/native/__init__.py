"""The compiled kernels, on NumPy arrays: the only importers of `secateur._core`."""
