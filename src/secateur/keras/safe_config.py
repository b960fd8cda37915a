"""Is a model's configuration, read from a file, safe to build a model from?

Keras makes objects from class names, and its own check lets through everything that it exports,
such as layers that load other files. Here a name must lead to one of the kinds of objects that
models are made of, or to something the user has registered; whatever is not known to be harmless is
refused. Keras then resolves the same names by the same table, so nothing is ever imported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import keras
from keras.src.api_export import get_symbol_from_name

from secateur.errors import FileFormatError

MAX_TEXT = 1 << 25
MAX_DEPTH = 200
MAX_OBJECTS = 200_000
MAX_STRING = 1 << 16
MAX_INTEGER = 1 << 53
# Of metrics, whose figures are tables of these sizes, and of operations that return that many
# tensors.
MAX_COUNT = 10_000

_LAYERS = "keras.src.layers."
_MODEL_PARTS = (
    *(
        f"{_LAYERS}{family}."
        for family in (
            "activations",
            "attention",
            "convolutional",
            "merging",
            "normalization",
            "pooling",
            "regularization",
            "reshaping",
            "rnn",
        )
    ),
    *(
        f"{_LAYERS}core.{name}"
        for name in (
            "dense",
            "einsum_dense",
            "embedding",
            "identity",
            "input_layer",
            "masking",
            "reversible_embedding",
        )
    ),
    *(
        f"{_LAYERS}preprocessing.{name}"
        for name in (
            "category_encoding",
            "image_preprocessing.center_crop",
            "image_preprocessing.random_",
            "image_preprocessing.resizing",
            "normalization",
            "rescaling",
        )
    ),
    "keras.src.activations.",
    "keras.src.constraints.",
    "keras.src.dtype_policies.",
    "keras.src.initializers.",
    "keras.src.models.functional",
    "keras.src.models.sequential",
    "keras.src.ops.",
    "keras.src.quantizers.",
    "keras.src.regularizers.",
)
_TRAINING_PARTS = ("keras.src.losses.", "keras.src.metrics.", "keras.src.optimizers.")
_FUNCTION_MODULES = (
    "activations",
    "constraints",
    "initializers",
    "losses",
    "metrics",
    "regularizers",
)
_NEVER_FUNCTIONS = frozenset({"get", "serialize", "deserialize"})
_OBJECT_KEYS = frozenset(
    {"module", "class_name", "config", "registered_name", "name", "inbound_nodes"}
)
_COMPILE_KEYS = frozenset(
    {
        "optimizer",
        "loss",
        "loss_weights",
        "metrics",
        "weighted_metrics",
        "run_eagerly",
        "steps_per_execution",
        "jit_compile",
    }
)
_DTYPES = frozenset(
    {"bool", "float16", "bfloat16", "float32", "float64", "string"}
    | {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
)


def check_model_config(config: Any, custom_objects: Mapping[str, Any]) -> None:
    """Raise unless `config` describes a model made of harmless parts.

    Args:
        config: What `keras.saving.serialize_keras_object(model)` gives, after JSON.
        custom_objects: Registered name -> class or function, besides those registered with Keras.

    Raises:
        FileFormatError: Anything in it is not known to be harmless.
    """
    if not isinstance(config, dict) or "class_name" not in config:
        raise FileFormatError("The model's configuration is not a Keras object.")
    _Checker(_MODEL_PARTS, custom_objects).check(config, "model", 0)


def check_compile_config(config: Any, custom_objects: Mapping[str, Any]) -> None:
    """Raise unless `config` holds nothing but harmless arguments of `model.compile`.

    Raises:
        FileFormatError: Anything in it is not known to be harmless.
    """
    if not isinstance(config, dict) or not set(config) <= _COMPILE_KEYS:
        raise FileFormatError(
            "The compile configuration has keys that model.compile() does not take."
        )
    _Checker(_MODEL_PARTS + _TRAINING_PARTS, custom_objects).check(config, "compile", 0)


class _Checker:
    """Walks a configuration; `where` is the path to the part looked at, for messages."""

    def __init__(self, allowed: tuple[str, ...], custom_objects: Mapping[str, Any]) -> None:
        self._allowed = allowed
        self._custom = dict(custom_objects)
        self._objects = 0

    def check(self, part: Any, where: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise FileFormatError(f"{where[:80]}...: nested more than {MAX_DEPTH} deep.")
        if isinstance(part, dict):
            self._check_dict(part, where, depth)
        elif isinstance(part, list):
            for position, inner in enumerate(part):
                self.check(inner, f"{where}[{position}]", depth + 1)
        elif isinstance(part, str) and len(part) > MAX_STRING:
            raise FileFormatError(f"{where}: a string of {len(part)} characters.")
        elif isinstance(part, int) and abs(part) > MAX_INTEGER:
            raise FileFormatError(f"{where}: an integer beyond 2**53.")

    def _check_dict(self, part: dict[str, Any], where: str, depth: int) -> None:
        self._objects += 1
        if self._objects > MAX_OBJECTS:
            raise FileFormatError(f"More than {MAX_OBJECTS} objects.")
        if part.get("stateful"):
            raise FileFormatError(f"{where}: stateful layers keep state outside of their weights.")
        if "class_name" in part:
            self._check_object(part, where)
        for key, inner in part.items():
            if key in ("layers", "inbound_nodes"):
                _check_members(key, inner, where)
            self.check(inner, f"{where}.{key}", depth + 1)

    def _check_object(self, part: dict[str, Any], where: str) -> None:
        name = part["class_name"]
        if not isinstance(name, str):
            raise FileFormatError(f"{where}: class_name is not a string.")
        if name in _SPECIAL:
            _SPECIAL[name](part.get("config"), where)
            return
        if "module" not in part or not set(part) <= _OBJECT_KEYS:
            raise FileFormatError(f"{where}: {name!r} has keys that Keras does not write.")
        found = self._resolve(part, where)
        if str(found.__module__).startswith(("keras.src.metrics.", "keras.src.ops.")):
            _check_counts(part.get("config"), where)

    def _resolve(self, part: dict[str, Any], where: str) -> Any:
        is_function = part["class_name"] == "function"
        name = part.get("config") if is_function else part["class_name"]
        key = name if is_function else part.get("registered_name", name)
        if not isinstance(name, str) or not isinstance(key, str | None):
            raise FileFormatError(f"{where}: the name of a class or function is not a string.")
        custom = keras.saving.get_registered_object(key, custom_objects=self._custom)
        if custom is not None:
            return custom
        found = _find_function(part["module"], name) if is_function else _find(part["module"], name)
        module = f"{getattr(found, '__module__', '')}."
        if found is None or not module.startswith(self._allowed):
            raise FileFormatError(
                f"{where}: {part['module']}.{name} is not a part of Keras that models in files "
                "may use; "
                "register a class of your own with @keras.saving.register_keras_serializable(), "
                "or pass "
                "it in custom_objects."
            )
        return found


def _find(module: Any, name: str) -> Any:
    if not isinstance(module, str):
        return None
    exported = get_symbol_from_name(f"{module}.{name}")
    if exported is not None:
        return exported
    # Operations and functional models are not exported; Keras writes where they are defined.
    is_internal = module.startswith("keras.src.")
    found = getattr(sys.modules.get(module), name, None) if is_internal else None
    is_known = isinstance(found, type) and issubclass(found, keras.Operation)
    return found if is_known and found.__module__ == module else None


def _find_function(module: Any, name: str) -> Any:
    if name in _NEVER_FUNCTIONS or not isinstance(module, str):
        return None
    modules = (
        [f"keras.{known}" for known in _FUNCTION_MODULES] if module == "builtins" else [module]
    )
    found = [get_symbol_from_name(f"{known}.{name}") for known in modules]
    return next((function for function in found if function is not None), None)


def _check_members(key: str, members: Any, where: str) -> None:
    """Refuse what Keras would read by the rules of its older formats, which check less."""
    required = {"module", "class_name"} if key == "layers" else {"args", "kwargs"}
    if not isinstance(members, list):
        raise FileFormatError(f"{where}.{key}: not a list.")
    for member in members:
        if not isinstance(member, dict) or not required <= set(member):
            raise FileFormatError(f"{where}.{key}: not in the format of Keras 3.")
        # A call without a symbolic tensor would not be recorded but carried out.
        if key == "inbound_nodes" and not _has_symbol(member, 0):
            raise FileFormatError(f"{where}.{key}: a call without an input.")


def _has_symbol(part: Any, depth: int) -> bool:
    if depth > MAX_DEPTH:
        return False
    if isinstance(part, dict):
        return part.get("class_name") == "__keras_tensor__" or any(
            _has_symbol(inner, depth + 1) for inner in part.values()
        )
    return isinstance(part, list) and any(_has_symbol(inner, depth + 1) for inner in part)


def _check_counts(config: Any, where: str) -> None:
    for key, value in config.items() if isinstance(config, dict) else ():
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_COUNT:
            raise FileFormatError(f"{where}: {key}={value} is more than {MAX_COUNT}.")


def _is_dtype(name: Any) -> bool:
    return isinstance(name, str) and name in _DTYPES


def _check_symbol(config: Any, where: str) -> None:
    history = config.get("keras_history") if isinstance(config, dict) else None
    is_plain = (
        isinstance(config, dict)
        and set(config) <= {"shape", "dtype", "keras_history"}
        and _is_dtype(config.get("dtype"))
        and isinstance(config.get("shape"), list)
        and isinstance(history, list)
        and [type(part) for part in history] == [str, int, int]
        and min(history[1:]) >= 0
    )
    if not is_plain:
        raise FileFormatError(f"{where}: not a symbolic tensor as Keras writes it.")


def _check_constant(config: Any, where: str) -> None:
    # A dtype such as "S1000000000" would take more memory than the value is long.
    if not isinstance(config, dict) or not _is_dtype(config.get("dtype")):
        raise FileFormatError(f"{where}: not a constant as Keras writes it.")


def _check_nothing(config: Any, where: str) -> None:
    if not isinstance(config, dict):
        raise FileFormatError(f"{where}: not an object as Keras writes it.")


def _refuse(config: Any, where: str) -> None:
    del config
    raise FileFormatError(f"{where}: Python code and type descriptions are not read from files.")


_SPECIAL = {
    "__keras_tensor__": _check_symbol,
    "__tensor__": _check_constant,
    "__numpy__": _check_constant,
    "__bytes__": _check_nothing,
    "__slice__": _check_nothing,
    "__ellipsis__": _check_nothing,
    "__lambda__": _refuse,
    "__typespec__": _refuse,
}
