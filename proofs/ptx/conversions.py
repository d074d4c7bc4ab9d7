"""`cvt`: from type to type, with the roundings that PTX names; and `mov`, which also packs and unpacks registers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from proofs.ptx.floats import flush
from proofs.ptx.operation import Operation, UnknownOpcodeError, family, match_modifiers
from proofs.ptx.values import CANONICAL_BF16_NAN, TYPE_BITS, UNSIGNED, Array, round_to_bf16

_ROUNDINGS = ("rn", "rz", "rni", "rzi", "rmi", "rpi")
_TO_INTEGER = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def truncate_to_bf16(values: Array) -> Array:
    """Round fp32 to the bits of bf16, towards zero."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return np.where(np.isnan(values), np.uint16(CANONICAL_BF16_NAN), (bits >> np.uint32(16)).astype(np.uint16))


def truncate_to_half(values: Array) -> Array:
    """Round fp32 to fp16, towards zero."""
    nearest = values.astype(np.float16)
    beyond = np.abs(nearest.astype(np.float32)) > np.abs(values)
    return np.where(beyond, nearest.view(np.uint16) - np.uint16(1), nearest.view(np.uint16)).view(np.float16)


def _narrow(kind: str, rounding: str, values: Array) -> Array:
    """Return the bits of fp32 values in a half-precision type."""
    if kind == "bf16":
        return round_to_bf16(values) if rounding == "rn" else truncate_to_bf16(values)
    return (values.astype(np.float16) if rounding == "rn" else truncate_to_half(values)).view(np.uint16)


def _narrow_two(kind: str, rounding: str, high: Array, low: Array) -> Array:
    high, low = np.broadcast_arrays(_narrow(kind, rounding, high), _narrow(kind, rounding, low))
    return (high.astype(np.uint32) << np.uint32(16)) | low


def _to_integer(values: Array, kind: str, rounding: str) -> Array:
    """Round floats to integers. NaN becomes 0, and what lies beyond the type its limits."""
    bits = TYPE_BITS[kind]
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if kind[0] == "s" else (0, (1 << bits) - 1)
    whole = _TO_INTEGER[rounding](values.astype(np.float64))
    dtype = np.dtype(UNSIGNED[bits]) if kind[0] == "u" else np.dtype(f"i{bits // 8}")
    inside = np.where(np.isnan(whole) | (whole < least) | (whole > most), 0.0, whole)
    inside = np.where(inside >= float(most), 0.0, inside).astype(dtype)
    return np.where(whole >= float(most), dtype.type(most), np.where(whole < least, dtype.type(least), inside))


def _integer_cast(kind: str) -> np.dtype[Any]:
    return np.dtype(f"{'i' if kind[0] == 's' else 'u'}{TYPE_BITS[kind] // 8}")


_FLOAT_CASTS: dict[str, np.dtype[Any]] = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}


@family("cvt")
def convert(_: str, modifiers: tuple[str, ...]) -> Operation:
    """Convert. Where a rounding is needed the text must name it."""
    rounding = next((modifier for modifier in modifiers if modifier in _ROUNDINGS), "")
    target, source = match_modifiers(modifiers, *_ROUNDINGS, "ftz", types=2)
    prepare = flush if "ftz" in modifiers else np.asarray
    operation = None
    if source == "f32" and rounding in ("rn", "rz") and target in ("bf16x2", "f16x2", "bf16", "f16"):
        operation = _to_half(target, rounding, prepare)
    elif source == "f32" and rounding in _TO_INTEGER:
        operation = _to_whole(target, rounding, prepare)
    elif target == "f32" and source in ("bf16", "f16") and not rounding:
        operation = Operation("f32", (source,), lambda a: a.astype(np.float32))
    elif target in _FLOAT_CASTS and rounding == ("" if (target, source) == ("f64", "f32") else "rn"):
        cast = _FLOAT_CASTS[target]
        operation = Operation(target, (source,), lambda a: a.astype(cast))
    elif "f" not in target and "f" not in source and not rounding:
        whole = _integer_cast(target)
        operation = Operation(target, (source,), lambda a: a.astype(whole))
    if operation is None:
        raise UnknownOpcodeError(f"the machine does not know cvt.{'.'.join(modifiers)}")
    return operation


def _to_half(target: str, rounding: str, prepare: Callable[[Array], Array]) -> Operation:
    half = target.removesuffix("x2")
    if half == target:
        return Operation("b16", ("f32",), lambda a: _narrow(target, rounding, prepare(a)))
    return Operation("b32", ("f32", "f32"), lambda a, b: _narrow_two(half, rounding, prepare(a), prepare(b)))


def _to_whole(target: str, rounding: str, prepare: Callable[[Array], Array]) -> Operation:
    if target == "f32":
        return Operation("f32", ("f32",), lambda a: _TO_INTEGER[rounding](prepare(a)))
    return Operation(target, ("f32",), lambda a: _to_integer(prepare(a), target, rounding))


def join(parts: list[Array], width: int) -> Array:
    """Join registers to one of so many bits in all, the first lowest."""
    bits = width // len(parts)
    result = parts[0].astype(UNSIGNED[width])
    for place, part in enumerate(parts[1:], 1):
        result = result | (part.astype(UNSIGNED[width]) << UNSIGNED[width](place * bits))
    return result


def split(value: Array, count: int) -> list[Array]:
    """Split a register into equal parts, the lowest first."""
    bits = value.itemsize * 8 // count
    unsigned = UNSIGNED[value.itemsize * 8]
    return [(value >> unsigned(place * bits)).astype(UNSIGNED[bits]) for place in range(count)]
