"""Oracle of `native.codec`: a decoder, and an encoder that can be told which forms to use.

Written from the description in `cpp/include/secateur/codec.hpp`, one symbol at a time. The native
encoder chooses by cost, so its bytes are not this encoder's; but each decodes what the other made.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

CHUNK = 65536
_TOTAL_BITS, _LOW = 12, 1 << 16
_TOTAL = 1 << _TOTAL_BITS
_SKIP = 255
EMPTY, FULL, MASK, MASK_ANS, GAPS, RAW = range(6)
UNCODED, PLANES, PALETTE = range(3)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether items are read as sign, exponent and mantissa."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def num_states(count: int) -> int:
    """Interleaved states of a stream of so many symbols."""
    return 32 if count >= 4096 else 4


class Reader:
    """Takes numbers off the front of bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        piece = self.data[self.at : self.at + count]
        assert len(piece) == count
        self.at += count
        return piece

    def number(self, form: str) -> int:
        """The next number, in the language of `struct`."""
        (value,) = struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))
        return int(value)


# ---- Frequencies ----


def normalise(symbols: NDArray[np.uint8]) -> list[int]:
    """Frequencies that sum to 4096, at least 1 for each symbol that occurs."""
    counts = np.bincount(symbols, minlength=256)
    shares = [max(1, int(c) * _TOTAL // symbols.size) if c else 0 for c in counts]
    shares[int(np.argmax(shares))] += _TOTAL - sum(shares)
    return shares


def write_table(frequencies: Sequence[int]) -> bytes:
    """First and last symbol, and the frequencies between in Elias gamma code."""
    used = [s for s, f in enumerate(frequencies) if f]
    bits: list[int] = []
    for s in range(used[0], used[-1] + 1):
        n = frequencies[s] + 1
        extra = n.bit_length() - 1
        bits += [0] * extra + [1] + [n >> k & 1 for k in range(extra)]
    packed = np.packbits(np.array(bits, np.uint8), bitorder="little")
    return bytes([used[0], used[-1]]) + packed.tobytes()


def read_table(reader: Reader) -> list[int]:
    """What `write_table` wrote."""
    first, last = reader.number("B"), reader.number("B")
    frequencies = [0] * 256
    bits: list[int] = []

    def bit() -> int:
        if not bits:
            byte = reader.number("B")
            bits.extend(byte >> k & 1 for k in range(8))
        return bits.pop(0)

    for s in range(first, last + 1):
        extra = 0
        while not bit():
            extra += 1
        frequencies[s] = (1 << extra | sum(bit() << k for k in range(extra))) - 1
    assert sum(frequencies) == _TOTAL
    return frequencies


# ---- Streams ----


def encode_stream(symbols: NDArray[np.uint8], frequencies: Sequence[int]) -> bytes:
    """Range ANS, from the last symbol to the first; nothing, if there is but one."""
    if _TOTAL in frequencies:
        return b""
    starts = [0, *np.cumsum(frequencies).tolist()]
    lanes = num_states(symbols.size)
    states = [_LOW] * lanes
    words: list[int] = []
    for i in range(symbols.size - 1, -1, -1):
        s = int(symbols[i])
        x = states[i % lanes]
        if x >= frequencies[s] << (32 - _TOTAL_BITS):
            words.append(x & 0xFFFF)
            x >>= 16
        states[i % lanes] = (x // frequencies[s] << _TOTAL_BITS) + x % frequencies[s] + starts[s]
    return struct.pack(f"<{lanes}I{len(words)}H", *states, *reversed(words))


def decode_stream(reader: Reader, frequencies: Sequence[int], count: int) -> NDArray[np.uint8]:
    """The symbols, from the first to the last."""
    if _TOTAL in frequencies:
        return np.full(count, frequencies.index(_TOTAL), np.uint8)
    slots = np.repeat(np.arange(256), frequencies)
    starts = [0, *np.cumsum(frequencies).tolist()]
    states = [reader.number("I") for _ in range(num_states(count))]
    symbols = np.empty(count, np.uint8)
    for i in range(count):
        x = states[i % len(states)]
        s = int(slots[x % _TOTAL])
        x = frequencies[s] * (x >> _TOTAL_BITS) + x % _TOTAL - starts[s]
        if x < _LOW:
            x = x << 16 | reader.number("H")
        states[i % len(states)] = x
        symbols[i] = s
    assert set(states) == {_LOW}
    return symbols


# ---- Values ----


@dataclass(frozen=True)
class Plan:
    """A value's code is (base + symbol) << low | low bits."""

    shift: int
    low: int
    base: int


def to_codes(values: NDArray[Any], shift: int) -> list[int]:
    """Codes in the order of magnitude, the sign at the bottom."""
    bits = 8 * values.dtype.itemsize
    raw = [int(v) for v in values.view(f"u{values.dtype.itemsize}")]
    if is_float(values.dtype):
        return [((r & (1 << bits - 1) - 1) >> shift) << 1 | r >> bits - 1 for r in raw]
    if values.dtype.kind == "i":
        numbers = [int(v) >> shift for v in values]
        return [2 * n if n >= 0 else -2 * n - 1 for n in numbers]
    return [r >> shift for r in raw]


def from_codes(codes: Sequence[int], shift: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values again."""
    bits = 8 * dtype.itemsize
    if is_float(dtype):
        raw = [c >> 1 << shift | (c & 1) << bits - 1 for c in codes]
    elif dtype.kind == "i":
        raw = [((c >> 1) ^ -(c & 1)) << shift & (1 << bits) - 1 for c in codes]
    else:
        raw = [c << shift for c in codes]
    return np.array(raw, f"u{dtype.itemsize}").view(dtype)


def finest_plan(values: NDArray[Any]) -> Plan:
    """All zeros at the bottom shifted out, and as many symbols as 256 can tell apart."""
    used = int(np.bitwise_or.reduce(values.view(f"u{values.dtype.itemsize}")))
    if is_float(values.dtype):
        used &= (1 << 8 * values.dtype.itemsize - 1) - 1
    shift = (used & -used).bit_length() - 1 if used else 0
    codes = to_codes(values, shift)
    low = 0
    while (max(codes) >> low) - (min(codes) >> low) > 255:
        low += 1
    return Plan(shift, low, min(codes) >> low)


def encode_values(values: NDArray[Any]) -> bytes:
    """A plan, a table and the two planes."""
    plan = finest_plan(values)
    codes = to_codes(values, plan.shift)
    symbols = np.array([(c >> plan.low) - plan.base for c in codes], np.uint8)
    frequencies = normalise(symbols)
    packed = sum((c & (1 << plan.low) - 1) << i * plan.low for i, c in enumerate(codes))
    return (
        struct.pack("<BBQ", plan.shift, plan.low, plan.base)
        + write_table(frequencies)
        + encode_stream(symbols, frequencies)
        + packed.to_bytes(-(-values.size * plan.low // 8), "little")
    )


def encode_palette(values: NDArray[Any]) -> bytes:
    """The distinct values, at most 256, and the places in it."""
    raw = values.view(f"u{values.dtype.itemsize}")
    palette, places = np.unique(raw, return_inverse=True)
    symbols = places.astype(np.uint8)
    frequencies = normalise(symbols)
    front = bytes([palette.size - 1]) + palette.tobytes() + write_table(frequencies)
    return front + encode_stream(symbols, frequencies)


def decode_palette(reader: Reader, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values of one chunk."""
    length = reader.number("B") + 1
    palette = np.frombuffer(reader.take(length * dtype.itemsize), dtype)
    values: NDArray[Any] = palette[decode_stream(reader, read_table(reader), count)]
    return values


def decode_values(
    reader: Reader, plan: Plan, frequencies: Sequence[int], count: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """The values of one chunk."""
    symbols = decode_stream(reader, frequencies, count)
    packed = int.from_bytes(reader.take(-(-count * plan.low // 8)), "little")
    mask = (1 << plan.low) - 1
    codes = [
        plan.base + int(s) << plan.low | packed >> i * plan.low & mask
        for i, s in enumerate(symbols)
    ]
    return from_codes(codes, plan.shift, dtype)


# ---- Positions ----


def to_gaps(kept: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The zeros before each non-zero, in skips of 255 and a rest."""
    gaps: list[int] = []
    places = np.flatnonzero(kept)
    for gap in np.diff(places, prepend=-1) - 1:
        gaps += [_SKIP] * (int(gap) // _SKIP) + [int(gap) % _SKIP]
    return np.array(gaps, np.uint8)


def from_gaps(gaps: NDArray[np.uint8], size: int) -> NDArray[np.bool_]:
    """Which items are not zero."""
    kept = np.zeros(size, np.bool_)
    place = 0
    for gap in gaps:
        place += int(gap)
        if gap != _SKIP:
            kept[place] = True
            place += 1
    return kept


# ---- Checksum ----


def checksum(kept: NDArray[np.bool_], values: NDArray[Any]) -> int:
    """Over the bits of the mask and the bytes of the values, each padded to 128 bytes."""
    lanes = (np.arange(1, 33, dtype=np.uint64) * 0xC2B2AE3D).astype(np.uint32)
    mask = np.packbits(kept, bitorder="little").tobytes()
    for piece in (mask, values.tobytes()):
        padded = piece + bytes(-len(piece) % 128)
        for block in np.frombuffer(padded, "<u4").reshape(-1, 32):
            x = lanes ^ block
            lanes = (x << 13 | x >> 19) * np.uint32(0x9E3779B1)
    total = len(mask) + values.nbytes & 0xFFFFFFFF
    for lane in lanes.tolist():
        x = total ^ lane
        total = (x << 15 | x >> 17) * 0x85EBCA77 & 0xFFFFFFFF
        total ^= total >> 16
    return total


# ---- Whole arrays ----


def encode(array: NDArray[Any], positions: int, values: int = PLANES) -> NDArray[np.uint8]:
    """Coded bytes with the form of positions asked for, and every table a chunk's own.

    Args:
        array: Any shape. Of every chunk, EMPTY needs nothing but zeros and FULL none.
        positions: EMPTY, FULL, MASK, MASK_ANS, GAPS or RAW.
        values: PLANES, PALETTE or UNCODED.
    """
    flat = array.reshape(-1)
    payloads = [
        _encode_chunk(flat[begin : begin + CHUNK], positions, values)
        for begin in range(0, flat.size, CHUNK)
    ]
    lengths = struct.pack(f"<{len(payloads)}I", *map(len, payloads))
    return np.frombuffer(b"\0" + lengths + b"".join(payloads), np.uint8)


def _encode_chunk(items: NDArray[Any], positions: int, form: int) -> bytes:
    kept = items.view(f"u{items.dtype.itemsize}") != 0
    values = items[kept]
    form = UNCODED if values.size == 0 or positions == RAW else form
    own = positions in (MASK_ANS, GAPS)
    word = positions | (form != UNCODED) << 3 | own << 4 | (form != UNCODED) << 5
    word |= (form == PALETTE) << 6 | values.size << 8
    mask = np.packbits(kept, bitorder="little")
    if positions == MASK:
        body = mask.tobytes()
    elif positions == MASK_ANS:
        frequencies = normalise(mask)
        body = write_table(frequencies) + encode_stream(mask, frequencies)
    elif positions == GAPS:
        gaps = to_gaps(kept)
        frequencies = normalise(gaps)
        body = struct.pack("<H", gaps.size - values.size) + write_table(frequencies)
        body += encode_stream(gaps, frequencies)
    else:
        body = b""
    if positions == RAW:
        body += items.tobytes()
    else:
        body += _VALUE_FORMS[form](values)
    return struct.pack("<II", word, checksum(kept, values)) + body


def _raw_values(values: NDArray[Any]) -> bytes:
    return values.tobytes()


_VALUE_FORMS = {UNCODED: _raw_values, PLANES: encode_values, PALETTE: encode_palette}


def decode(coded: NDArray[np.uint8], size: int, dtype: DTypeLike) -> NDArray[Any]:
    """The flat array of `size` items."""
    kind = np.dtype(dtype)
    reader = Reader(coded.tobytes())
    flags = reader.number("B")
    tables: dict[int, list[int]] = {}
    plan = Plan(0, 0, 0)
    for flag in (1, 2, 4):
        if flags & flag:
            if flag == 4:
                plan = Plan(reader.number("B"), reader.number("B"), reader.number("Q"))
            tables[flag] = read_table(reader)
    lengths = [reader.number("I") for _ in range(-(-size // CHUNK))]
    chunks = [
        _decode_chunk(Reader(reader.take(length)), min(CHUNK, size - c * CHUNK), kind, tables, plan)
        for c, length in enumerate(lengths)
    ]
    assert reader.at == len(reader.data)
    return np.concatenate([np.empty(0, kind), *chunks])


def _decode_chunk(
    reader: Reader, size: int, dtype: np.dtype[Any], tables: dict[int, list[int]], plan: Plan
) -> NDArray[Any]:
    word, expected = reader.number("I"), reader.number("I")
    positions, count = word & 7, word >> 8
    if positions == RAW:
        items = np.frombuffer(reader.take(size * dtype.itemsize), dtype).copy()
    else:
        kept = _decode_positions(reader, word, size, tables)
        items = np.zeros(size, dtype)
        if not word >> 3 & 1:
            items[kept] = np.frombuffer(reader.take(count * dtype.itemsize), dtype)
        elif word >> 6 & 1:
            items[kept] = decode_palette(reader, count, dtype)
        else:
            own = word >> 5 & 1
            if own:
                plan = Plan(reader.number("B"), reader.number("B"), reader.number("Q"))
            frequencies = read_table(reader) if own else tables[4]
            items[kept] = decode_values(reader, plan, frequencies, count, dtype)
    kept = items.view(f"u{dtype.itemsize}") != 0
    assert reader.at == len(reader.data)
    assert kept.sum() == count
    assert checksum(kept, items[kept]) == expected
    return items


def _decode_positions(
    reader: Reader, word: int, size: int, tables: dict[int, list[int]]
) -> NDArray[np.bool_]:
    positions, own, count = word & 7, word >> 4 & 1, word >> 8
    if positions in (EMPTY, FULL):
        return np.full(size, positions == FULL)
    if positions == GAPS:
        count += reader.number("H")
        frequencies = read_table(reader) if own else tables[2]
        return from_gaps(decode_stream(reader, frequencies, count), size)
    if positions == MASK:
        mask = np.frombuffer(reader.take(-(-size // 8)), np.uint8)
    else:
        frequencies = read_table(reader) if own else tables[1]
        mask = decode_stream(reader, frequencies, -(-size // 8))
    return np.unpackbits(mask, count=size, bitorder="little").astype(np.bool_)
