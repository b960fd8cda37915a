"""The only rooms that import keras: everything else of secateur works on plain arrays."""
