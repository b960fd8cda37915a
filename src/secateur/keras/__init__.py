"""The only rooms that import keras: everything else of secateur works on plain arrays."""

from secateur.keras.alignment import AutoAlign
from secateur.keras.cut_rules import register_rule
from secateur.keras.cutting import CutResult, bind_plan, cut, plan_cut
from secateur.keras.generating import Generation, generate
from secateur.keras.judging import Terms
from secateur.keras.keeping import enforce_zeros, keep_zeros, release_zeros
from secateur.keras.model_arrays import model_arrays
from secateur.keras.pruning import DataModelPrunePlan, ModelPrunePlan, plan_prune, prune
from secateur.keras.results import Result
from secateur.keras.rules import register_layer
from secateur.keras.soft_inputs import Tokens
from secateur.keras.tensors import find_tensors
from secateur.keras.training import Pruning

__all__ = [
    "AutoAlign",
    "CutResult",
    "DataModelPrunePlan",
    "Generation",
    "ModelPrunePlan",
    "Pruning",
    "Result",
    "Terms",
    "Tokens",
    "bind_plan",
    "cut",
    "enforce_zeros",
    "find_tensors",
    "generate",
    "keep_zeros",
    "model_arrays",
    "plan_cut",
    "plan_prune",
    "prune",
    "register_layer",
    "register_rule",
    "release_zeros",
]
