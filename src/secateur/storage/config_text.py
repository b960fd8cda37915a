"""The text that describes a model, as it stands in a file's metadata: deflated."""

from __future__ import annotations

import base64
import binascii
import zlib

from secateur.errors import FileFormatError

KEY = "keras_config"
"""Its key in the file's metadata."""

_MAX_CHARS = 64 * 2**20


def pack_config(config: str) -> str:
    """Deflate a configuration: it repeats itself, and would outweigh a small model's weights.

    Example:
        >>> unpack_config(pack_config("{}"))
        '{}'
    """
    return base64.b85encode(zlib.compress(config.encode(), 9)).decode("ascii")


def unpack_config(text: str) -> str:
    """Undo `pack_config`.

    Raises:
        FileFormatError: The text is damaged, or longer than any model's.
    """
    try:
        unpacker = zlib.decompressobj()
        config = unpacker.decompress(base64.b85decode(text), _MAX_CHARS)
        if not unpacker.eof or unpacker.unused_data:
            raise FileFormatError(
                f"The model's configuration is cut off, or longer than {_MAX_CHARS:,} bytes."
            )
        return config.decode()
    except (ValueError, zlib.error, binascii.Error) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"The model's configuration cannot be unpacked: {error}.") from error
