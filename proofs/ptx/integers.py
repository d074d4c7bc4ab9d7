"""Integers, bits and predicates. All arithmetic wraps around, and 64-bit products are exact."""

from functools import partial
from typing import Any

import numpy as np

from proofs.ptx.operation import Operation, UnknownOpcodeError, family, match_modifiers
from proofs.ptx.values import TYPE_BITS, UNSIGNED, Array, from_bits, to_bits

WIDE = {"s16": "s32", "u16": "u32", "s32": "s64", "u32": "u64"}


def multiply_high(a: Array, b: Array) -> Array:
    """Return the upper 64 bits of products of unsigned 64-bit integers."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a_low, a_high, b_low, b_high = a & mask, a >> half, b & mask, b >> half
    low = a_low * b_low
    middle = a_high * b_low + (low >> half)
    cross = a_low * b_high + (middle & mask)
    return np.asarray(a_high * b_high + (middle >> half) + (cross >> half))


def _multiply_high(a: Array, b: Array, kind: str) -> Array:
    bits = TYPE_BITS[kind]
    if bits < 64:
        wide = WIDE[kind]
        product = _widen(a, kind) * _widen(b, kind)
        return from_bits(to_bits(product, wide, 2 * bits) >> UNSIGNED[2 * bits](bits), f"b{bits}").view(a.dtype)
    high = multiply_high(a.view(np.uint64), b.view(np.uint64))
    if kind[0] == "s":
        high = (
            high - np.where(a < 0, b.view(np.uint64), np.uint64(0)) - np.where(b < 0, a.view(np.uint64), np.uint64(0))
        )
    return high.view(a.dtype)


def _widen(values: Array, kind: str) -> Array:
    return values.astype({"s16": np.int32, "u16": np.uint32, "s32": np.int64, "u32": np.uint64}[kind])


@family("mul", "mad")
def multiply(name: str, modifiers: tuple[str, ...]) -> Operation:
    """`mul.lo`, `mul.hi`, `mul.wide` and, with a third operand that is added, `mad`. Other types are floats."""
    if not {"lo", "hi", "wide"} & set(modifiers):
        from proofs.ptx.floats import binary, fused

        return fused("fma", modifiers) if name == "mad" else binary("mul", modifiers)
    part, kind = modifiers[0], match_modifiers(modifiers, "lo", "hi", "wide")[0]
    result = WIDE[kind] if part == "wide" else kind

    def product(a: Array, b: Array) -> Array:
        if part == "hi":
            return _multiply_high(a, b, kind)
        return _widen(a, kind) * _widen(b, kind) if part == "wide" else a * b

    if name == "mul":
        return Operation(result, (kind, kind), product)
    return Operation(result, (kind, kind, result), lambda a, b, c: product(a, b) + c)


def divide(a: Array, b: Array) -> Array:
    """Divide integers, towards zero. By zero all bits of the quotient are 1, as on hardware."""
    safe = np.where(b == 0, b.dtype.type(1), b)
    quotient = a // safe
    if a.dtype.kind == "i":
        quotient = quotient + ((quotient < 0) & (quotient * safe != a)).astype(a.dtype)
    return np.where(b == 0, ~a.dtype.type(0), quotient)


@family("div", "rem")
def quotient(name: str, modifiers: tuple[str, ...]) -> Operation:
    """`div` and `rem` of integers; division of floats is approximate or exact."""
    if modifiers[-1][0] == "f":
        from proofs.ptx.special import float_division

        return float_division(modifiers)
    (kind,) = match_modifiers(modifiers)
    if name == "div":
        return Operation(kind, (kind, kind), divide)
    return Operation(kind, (kind, kind), lambda a, b: a - divide(a, b) * b)


@family("and", "or", "xor", "not", "cnot")
def bitwise(name: str, modifiers: tuple[str, ...]) -> Operation:
    """Logic of bits and of predicates."""
    (kind,) = match_modifiers(modifiers)
    if name == "not":
        return Operation(kind, (kind,), np.logical_not if kind == "pred" else np.invert)
    if name == "cnot":
        return Operation(kind, (kind,), lambda a: (a == 0).astype(a.dtype))
    function = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[name]
    return Operation(kind, (kind, kind), function)


@family("lop3")
def lookup(_: str, modifiers: tuple[str, ...]) -> Operation:
    """Any function of three bits, given as a table of eight."""
    match_modifiers(modifiers)

    def compute(a: Array, b: Array, c: Array, table: Array) -> Array:
        result = np.zeros_like(a | b | c)
        for index in range(8):
            if int(table[0]) >> index & 1:
                terms = (x if index >> place & 1 else ~x for x, place in ((a, 2), (b, 1), (c, 0)))
                result |= np.bitwise_and.reduce(np.broadcast_arrays(*terms))
        return result

    return Operation("b32", ("b32", "b32", "b32", "b32"), compute)


def _shift_left(a: Array, count: Array) -> Array:
    bits = 8 * a.itemsize
    shifted: Array = a << np.minimum(count, bits - 1).astype(a.dtype)
    return np.where(count < bits, shifted, a.dtype.type(0))


def _shift_right(a: Array, count: Array) -> Array:
    bits = 8 * a.itemsize
    shifted: Array = a >> np.minimum(count, bits - 1).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(count < bits, shifted, a.dtype.type(0))


@family("shl", "shr")
def shift(name: str, modifiers: tuple[str, ...]) -> Operation:
    """Shifts. Counts beyond the width shift out all bits."""
    (kind,) = match_modifiers(modifiers)
    return Operation(kind, (kind, "u32"), _shift_left if name == "shl" else _shift_right)


@family("shf")
def funnel_shift(_: str, modifiers: tuple[str, ...]) -> Operation:
    """Shift two registers as one of 64 bits, and return its upper half (`l`) or its lower half (`r`)."""
    match_modifiers(modifiers, "l", "r", "wrap", "clamp")
    left, wraps = "l" in modifiers, "wrap" in modifiers

    def compute(low: Array, high: Array, count: Array) -> Array:
        both = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
        places = (count & np.uint32(31) if wraps else np.minimum(count, np.uint32(32))).astype(np.uint64)
        shifted = (both << places) >> np.uint64(32) if left else both >> places
        return shifted.astype(np.uint32)

    return Operation("b32", ("b32", "b32", "u32"), compute)


def _extract_bits(a: Array, position: Array, length: Array) -> Array:
    bits = 8 * a.itemsize
    position, length = position & np.uint32(0xFF), np.minimum(length & np.uint32(0xFF), np.uint32(bits))
    unsigned = a.view(UNSIGNED[bits])
    mask = _shift_left(np.ones_like(unsigned), length) - UNSIGNED[bits](1)
    mask = np.where(length >= bits, ~UNSIGNED[bits](0), mask)
    field = _shift_right(unsigned, position) & mask
    if a.dtype.kind == "u":
        return field
    # A signed field is filled up with the sign, which is its last bit or that of the register.
    last = np.minimum(np.maximum(position.astype(np.int64) + length - 1, 0), bits - 1)
    negative = (_shift_right(unsigned, last.astype(np.uint32)) & UNSIGNED[bits](1)) == 1
    return np.where((length > 0) & negative, field | ~mask, field).view(a.dtype)


@family("bfe")
def bit_field(_: str, modifiers: tuple[str, ...]) -> Operation:
    """Extract a field of bits by position and length."""
    (kind,) = match_modifiers(modifiers)
    return Operation(kind, (kind, "u32", "u32"), _extract_bits)


@family("prmt")
def permute_bytes(_: str, modifiers: tuple[str, ...]) -> Operation:
    """Choose four of eight bytes. The upper bit of a selector repeats the sign of the byte instead."""
    match_modifiers(modifiers)

    def compute(a: Array, b: Array, selectors: Array) -> Array:
        a, b, selectors = np.broadcast_arrays(a, b, selectors)
        both = np.stack((a, b), 1).view(np.uint8)
        result = np.empty((len(a), 4), np.uint8)
        for place in range(4):
            selector = (selectors >> np.uint32(4 * place)) & np.uint32(15)
            byte = both[np.arange(len(a)), selector & np.uint32(7)]
            sign = np.where(byte >> np.uint8(7) == 1, np.uint8(255), np.uint8(0))
            result[:, place] = np.where(selector >= 8, sign, byte)
        return result.view(np.uint32).reshape(-1)

    return Operation("b32", ("b32", "b32", "b32"), compute)


@family("popc", "clz", "brev")
def count_bits(name: str, modifiers: tuple[str, ...]) -> Operation:
    """The number of ones, the number of zeros above the first one, and all bits in reverse order."""
    (kind,) = match_modifiers(modifiers)

    def compute(a: Array) -> Array:
        bits = np.unpackbits(a[:, None].view(np.uint8), axis=1, bitorder="little")
        if name == "brev":
            return np.asarray(np.packbits(bits[:, ::-1], axis=1, bitorder="little").view(a.dtype).reshape(-1))
        if name == "popc":
            return np.asarray(bits.sum(1, dtype=np.uint32))
        return np.asarray(np.where(bits.any(1), bits[:, ::-1].argmax(1), bits.shape[1]), np.uint32)

    return Operation(kind if name == "brev" else "u32", (kind,), compute)


COMPARISONS: dict[str, Any] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}


def _compare_unordered(compare: Any, a: Array, b: Array) -> Array:
    return np.asarray(compare(a, b) | np.isnan(a) | np.isnan(b))


def _compare_ordered_unequal(a: Array, b: Array) -> Array:
    return np.asarray((a != b) & ~np.isnan(a) & ~np.isnan(b))


@family("setp")
def set_predicate(_: str, modifiers: tuple[str, ...]) -> Operation:
    """Compare. A comparison with NaN is false, or true for the unordered ones, whose names end in `u`."""
    comparison, *rest = modifiers
    (kind,) = match_modifiers(tuple(rest))
    is_float = "f" in kind
    if is_float and comparison in ("equ", "neu", "ltu", "leu", "gtu", "geu"):
        compare = partial(_compare_unordered, COMPARISONS[comparison[:2]])
    elif is_float and comparison in ("num", "nan"):
        is_nan = comparison == "nan"
        compare = partial(lambda wanted, a, b: (np.isnan(a) | np.isnan(b)) == wanted, is_nan)
    elif is_float and comparison == "ne":
        compare = partial(_compare_ordered_unequal)
    elif comparison in COMPARISONS:
        compare = COMPARISONS[comparison]
    else:
        raise UnknownOpcodeError(f"the machine does not know the comparison .{comparison}")
    return Operation("pred", (kind, kind), compare)
