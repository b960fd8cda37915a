"""NumPy arrays in, compiled kernels behind: the only importers of `secateur._core`."""
