"""Compress a model under a goal, without losing more quality than allowed."""
