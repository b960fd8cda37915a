"""Compress a model under a goal, without losing more quality than allowed."""

from secateur.compression.explanation import Explanation
from secateur.compression.finetuning import FineTuning
from secateur.compression.goals import Comparison, Goal, Latency, Macs, Parameters, Size, Sparsity
from secateur.compression.history import History, Step
from secateur.compression.loop import compress
from secateur.compression.result import CompressionResult
from secateur.keras.teaching import Distillation

__all__ = [
    "Comparison",
    "CompressionResult",
    "Distillation",
    "Explanation",
    "FineTuning",
    "Goal",
    "History",
    "Latency",
    "Macs",
    "Parameters",
    "Size",
    "Sparsity",
    "Step",
    "compress",
]
