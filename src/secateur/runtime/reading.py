"""A model as the runtime gets it: a configuration and arrays, read without Keras.

The configuration may come from a file that is not trusted. It is only ever looked at: names lead to
functions of `layers/` and to nothing else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.errors import ArgumentTypeError, FileFormatError, SecateurError
from secateur.storage import load_arrays, read_header
from secateur.storage.config_text import KEY, unpack_config

_MAX_TEXT = 1 << 25
_MAX_DEPTH = 200
_GRAPHS = ("Functional", "Sequential")


@dataclass(frozen=True)
class Source:
    """A model to compile.

    Attributes:
        config: What Keras serialises of it, as Python values.
        arrays: Name, by the layer tree, -> array.
    """

    config: dict[str, Any]
    arrays: Mapping[str, NDArray[Any]]


@dataclass
class Weights:
    """The arrays of one layer, by their names below it."""

    path: str
    arrays: Mapping[str, NDArray[Any]]
    _below: dict[str, NDArray[Any]] | None = field(default=None, repr=False)

    def items(self) -> dict[str, NDArray[Any]]:
        """All arrays below the layer: the rest of the name -> array, in the model's order."""
        if self._below is None:
            start = f"{self.path}/" if self.path else ""
            self._below = {
                name[len(start) :]: array
                for name, array in self.arrays.items()
                if name.startswith(start)
            }
        return self._below

    def get(self, *names: str) -> NDArray[np.float32] | None:
        """The first of these that there is, as float32, or None."""
        for name in names:
            found = self.items().get(name)
            if found is not None:
                return np.asarray(found, np.float32)
        return None

    def need(self, name: str) -> NDArray[np.float32]:
        """An array that must be there.

        Raises:
            FileFormatError: It is not.
        """
        found = self.get(name)
        if found is None:
            raise FileFormatError(
                f"The model has no array {self.path}/{name}; it has {sorted(self.items())}."
            )
        return found

    def children(self) -> list[str]:
        """Names of the layers below that have arrays, in order."""
        return list(dict.fromkeys(name.split("/")[0] for name in self.items() if "/" in name))

    def child(self, name: str) -> Weights:
        """The arrays of the layer of that name below this one.

        Within layers that are no graphs names have lost their automatic number.
        """
        found = name
        if name not in self.children():
            plain = re.sub(r"_\d+$", "", name)
            found = plain if plain in self.children() else name
        return Weights(f"{self.path}/{found}" if self.path else found, self.arrays)


def read_source(model: Any) -> Source:
    """A model of any kind, as configuration and arrays.

    Args:
        model: A path to a file of ours, or a Keras model, or what `prune` and `cut` return.

    Raises:
        ArgumentTypeError: None of these.
        FileFormatError: The file is damaged, or holds no model.
    """
    if isinstance(model, (str, os.PathLike)):
        return _read_file(model)
    if isinstance(model, Source):
        return model
    model = getattr(model, "model", model)
    if not hasattr(model, "layers"):
        raise ArgumentTypeError(
            "compile takes a Keras model, the result of prune or cut, or the path of a file that "
            f"sc.save wrote, got {type(model).__name__}."
        )
    from secateur.files import _keras_files

    text, arrays = _keras_files().describe_for_runtime(model)
    return Source(parse_config(text), arrays)


def _read_file(path: str | os.PathLike[str]) -> Source:
    text = read_header(path).metadata.get(KEY)
    if text is None:
        raise FileFormatError(
            f"{os.fspath(path)} holds arrays and no model; write it with sc.save(path, model)."
        )
    return Source(parse_config(unpack_config(text)), load_arrays(path, dense=True))


def parse_config(text: str) -> dict[str, Any]:
    """The model's part of a configuration text.

    Raises:
        FileFormatError: It is not one of ours.
    """
    if len(text) > _MAX_TEXT:
        raise FileFormatError(f"The configuration has {len(text)} characters, over {_MAX_TEXT}.")
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"The model's configuration is not JSON: {error}.") from error
    model = parts.get("model") if isinstance(parts, dict) else None
    if not isinstance(model, dict) or model.get("class_name") not in _GRAPHS:
        raise FileFormatError("The model's configuration is not one that secateur wrote.")
    return model


@contextmanager
def reading(source: Source) -> Iterator[None]:
    """Within, whatever a configuration says that makes no sense is an error of the file.

    A configuration is nested lists and dictionaries of which nothing is known beforehand, so instead of
    asking at each step what came, what goes wrong on the way is said here.
    """
    try:
        yield
    except SecateurError:
        raise
    except RecursionError as error:
        raise FileFormatError("The model's configuration is nested too deeply.") from error
    except MemoryError as error:
        raise FileFormatError(f"The model needs more memory than there is: {error}.") from error
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, ArithmeticError) as error:
        kind = source.config.get("class_name") if isinstance(source.config, dict) else None
        raise FileFormatError(
            f"The configuration of the {kind!r} model makes no sense: "
            f"{type(error).__name__}: {error}."
        ) from error


def is_graph(config: Mapping[str, Any]) -> bool:
    """Whether a layer's configuration is that of a functional or sequential model."""
    return config.get("class_name") in _GRAPHS


def is_operation(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is that of an operation of `keras.ops`."""
    return str(config.get("module", "")).startswith("keras.src.ops")


def walk_kinds(config: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, str, bool]]:
    """(path, class name, is an operation) of every layer of a model, wrapped ones included."""
    if depth > _MAX_DEPTH:
        raise FileFormatError(f"The configuration is nested more than {_MAX_DEPTH} deep.")
    for layer in config["config"]["layers"]:
        name = layer["config"].get("name", layer["class_name"])
        here = f"{path}/{name}" if path else name
        if is_graph(layer):
            yield from walk_kinds(layer, here, depth + 1)
            continue
        yield here, layer["class_name"], is_operation(layer)
        for key in ("layer", "backward_layer"):
            inner = layer["config"].get(key)
            if isinstance(inner, dict) and is_graph(inner):
                yield from walk_kinds(inner, here, depth + 1)
            elif isinstance(inner, dict):
                yield f"{here}/{inner['config'].get('name', key)}", inner["class_name"], False
