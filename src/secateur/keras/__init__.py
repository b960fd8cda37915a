"""The only part of secateur that imports Keras."""
