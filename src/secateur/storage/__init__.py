"""The file: named arrays in one safetensors file, each in the encoding that takes least room.

Knows nothing of pruning, models or frameworks.
"""

from secateur.storage.arrays_file import check_profile, load_arrays, read_header, save_arrays
from secateur.storage.encodings import Profile
from secateur.storage.manifest import Header, TensorInfo
from secateur.storage.plain import save_plain
from secateur.storage.rounding import Rounding, ShortFloat

__all__ = [
    "Header",
    "Profile",
    "Rounding",
    "ShortFloat",
    "TensorInfo",
    "check_profile",
    "load_arrays",
    "read_header",
    "save_arrays",
    "save_plain",
]
