"""secateur: prune and cut trained Keras 3 models, and store what is left as small as it is.

Public names are imported on first use, so `import secateur` loads neither Keras nor SciPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from secateur import errors, runtime, schedules
    from secateur._kernels.native.runtime import num_threads, set_num_threads
    from secateur.compression import (
        Distillation,
        FineTuning,
        Latency,
        Macs,
        Parameters,
        Size,
        Sparsity,
        compress,
    )
    from secateur.criteria import saliency
    from secateur.cut_plan import CutPlan
    from secateur.files import load, save
    from secateur.keras import (
        Generation,
        Pruning,
        Terms,
        Tokens,
        bind_plan,
        cut,
        enforce_zeros,
        generate,
        keep_zeros,
        plan_cut,
        plan_prune,
        prune,
        register_rule,
        release_zeros,
    )
    from secateur.paths import path_strength
    from secateur.patterns import NM, Block, Unstructured, parse_pattern
    from secateur.pruning import prune_arrays
    from secateur.searching import search
    from secateur.selection import select
    from secateur.sparse import to_dense, to_sparse
    from secateur.storage import load_arrays

_HOMES = {
    "CutPlan": "cut_plan",
    "Distillation": "compression",
    "FineTuning": "compression",
    "Generation": "keras",
    "Latency": "compression",
    "Macs": "compression",
    "NM": "patterns",
    "Parameters": "compression",
    "Pruning": "keras",
    "Size": "compression",
    "Sparsity": "compression",
    "Terms": "keras",
    "Tokens": "keras",
    "Block": "patterns",
    "Unstructured": "patterns",
    "bind_plan": "keras",
    "compress": "compression",
    "cut": "keras",
    "enforce_zeros": "keras",
    "generate": "keras",
    "keep_zeros": "keras",
    "load": "files",
    "load_arrays": "storage",
    "num_threads": "_kernels.native.runtime",
    "parse_pattern": "patterns",
    "path_strength": "paths",
    "plan_cut": "keras",
    "plan_prune": "keras",
    "prune": "keras",
    "prune_arrays": "pruning",
    "register_rule": "keras",
    "release_zeros": "keras",
    "saliency": "criteria",
    "save": "files",
    "search": "searching",
    "select": "selection",
    "set_num_threads": "_kernels.native.runtime",
    "to_dense": "sparse",
    "to_sparse": "sparse",
}

__all__ = [
    "NM",
    "Block",
    "CutPlan",
    "Distillation",
    "FineTuning",
    "Generation",
    "Latency",
    "Macs",
    "Parameters",
    "Pruning",
    "Size",
    "Sparsity",
    "Terms",
    "Tokens",
    "Unstructured",
    "bind_plan",
    "compress",
    "cut",
    "enforce_zeros",
    "errors",
    "generate",
    "keep_zeros",
    "load",
    "load_arrays",
    "num_threads",
    "parse_pattern",
    "path_strength",
    "plan_cut",
    "plan_prune",
    "prune",
    "prune_arrays",
    "register_rule",
    "release_zeros",
    "runtime",
    "saliency",
    "save",
    "schedules",
    "search",
    "select",
    "set_num_threads",
    "to_dense",
    "to_sparse",
]


_ROOMS = ("errors", "runtime", "schedules")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"secateur.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'secateur' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"secateur.{home}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("keras", "tensorflow"):
            raise
        from secateur.errors import MissingDependencyError

        raise MissingDependencyError(
            f"secateur.{name} needs Keras, and {error.name} is not installed; "
            "install it with: pip install 'secateur[tensorflow]'"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
