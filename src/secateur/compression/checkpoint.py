"""The state of a compression on disk: written whole or not at all, after every step."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from keras import tree

from secateur.errors import FileFormatError, InvalidArgumentError
from secateur.files import load, save
from secateur.keras.variables import read_array
from secateur.storage.atomic import replacing

_FORMAT = 1
_STATE = "compression.json"


@dataclass(frozen=True)
class Saved:
    """What was read back.

    Attributes:
        model: The best model so far.
        state: Plain values of the loop.
    """

    model: Any
    state: dict[str, Any]


class Checkpoint:
    """A folder that holds the best model so far and the state of the loop.

    Args:
        folder: Is made if it is not there.
        fingerprint: Of the model, the data and the settings; another one is refused.
    """

    def __init__(self, folder: str | os.PathLike[str], fingerprint: str) -> None:
        self.folder = Path(folder)
        self.fingerprint = fingerprint

    def write(self, model: Any, step: int, state: dict[str, Any]) -> None:
        """Save a state. The model's file is complete before the state names it.

        Args:
            model: The best model so far.
            step: Number of the step that made it.
            state: Plain values.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"step-{step:04d}.safetensors"
        if not (self.folder / name).exists():
            save(self.folder / name, model)
        text = json.dumps(
            {"format": _FORMAT, "fingerprint": self.fingerprint, "model": name, "state": state},
            indent=2,
        )
        with replacing(self.folder / _STATE) as temporary:
            temporary.write_text(text)
        for old in self.folder.glob("step-*.safetensors"):
            if old.name != name:
                old.unlink()

    def clear(self) -> None:
        """Forget what another run left in the folder; files that are not ours stay."""
        (self.folder / _STATE).unlink(missing_ok=True)
        for old in self.folder.glob("step-*.safetensors"):
            old.unlink()

    def read(self) -> Saved | None:
        """The last state, or None where none was written.

        Raises:
            FileFormatError: The file is damaged.
            InvalidArgumentError: It belongs to another model, other data or other settings.
        """
        path = self.folder / _STATE
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text())
            name, state = Path(str(found["model"])).name, dict(found["state"])
            known = (found["format"], str(found["fingerprint"]))
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"{path} is not a state of a compression: {error!r}.") from error
        if known != (_FORMAT, self.fingerprint):
            raise InvalidArgumentError(
                f"The checkpoint in {self.folder} was written for another model, other data or other "
                "settings; give those again, or another folder, or resume=False to begin anew."
            )
        return Saved(load(self.folder / name), state)


def fingerprint(model: Any, data: Any, settings: Any) -> str:
    """A digest of what determines a compression.

    Args:
        model: The original; its weights count.
        data: Nested arrays; anything else counts by its type alone.
        settings: Counts by its `repr`.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for variable in model.weights:
        digest.update(np.ascontiguousarray(read_array(variable)).tobytes())
    for leaf in tree.flatten(data):
        is_array = hasattr(leaf, "__array__")
        digest.update(
            np.ascontiguousarray(leaf).tobytes() if is_array else type(leaf).__name__.encode()
        )
    return digest.hexdigest()
