"""Registers hold bits, and types say what they mean.

Bits are numpy arrays of unsigned integers, one entry for each thread, or a single entry that all threads share. bf16
is computed as fp32, which holds all its values. A type of two, such as `f16x2`, becomes an array of two columns.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
_SIGNED: dict[int, type[np.signedinteger[Any]]] = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
_FLOATS: dict[str, type[np.floating[Any]]] = {"f16": np.float16, "f32": np.float32, "f64": np.float64}
PACKED = {"f16x2": "f16", "bf16x2": "bf16", "f32x2": "f32"}
TYPE_BITS = {
    **{f"{kind}{bits}": bits for kind in "bus" for bits in UNSIGNED},
    **{"f16": 16, "bf16": 16, "f32": 32, "f64": 64, "f16x2": 32, "bf16x2": 32, "f32x2": 64, "pred": 1},
}
CANONICAL_BF16_NAN = 0x7FFF


def immediate_bits(value: int, bits: int) -> Array:
    """Return the bits of a number in an instruction, as a single entry."""
    if bits == 1:
        return np.array([bool(value)])
    return np.array([value & ((1 << bits) - 1)], dtype=UNSIGNED[bits])


def from_bits(bits: Array, kind: str) -> Array:
    """Return the values of a type. Of a wider register the low bits count."""
    if kind == "pred":
        return bits
    size = TYPE_BITS[kind]
    if bits.itemsize * 8 != size:
        if bits.itemsize * 8 < size:
            raise ValueError(f"a register of {bits.itemsize * 8} bits is too narrow for {kind}")
        bits = bits.astype(UNSIGNED[size])
    if kind in PACKED:
        single = PACKED[kind]
        return from_bits(bits.view(UNSIGNED[size // 2]), single).reshape(-1, 2)
    if kind == "bf16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if kind in _FLOATS:
        return bits.view(_FLOATS[kind])
    return bits.view(_SIGNED[size]) if kind[0] == "s" else bits


def to_bits(values: Array, kind: str, width: int) -> Array:
    """Return the bits of values of a type in a register of a width. Signed integers are extended by their sign.

    Values of bf16 are given as fp32 and rounded to the nearest, ties to even.
    """
    if kind == "pred":
        return values
    size = TYPE_BITS[kind]
    if kind in PACKED:
        single = PACKED[kind]
        bits = np.ascontiguousarray(to_bits(values.reshape(-1), single, size // 2)).view(UNSIGNED[size])
    elif kind == "bf16":
        bits = round_to_bf16(values)
    else:
        bits = values
    if size != width and kind[0] == "s":
        bits = bits.view(_SIGNED[size]).astype(_SIGNED[width])
    elif size != width:
        bits = bits.view(UNSIGNED[size]).astype(UNSIGNED[width])
    return bits.view(UNSIGNED[width])


def round_to_bf16(values: Array) -> Array:
    """Round fp32 to the bits of bf16: to the nearest, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = ((bits + half) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(CANONICAL_BF16_NAN), rounded)
