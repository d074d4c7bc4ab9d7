"""Floating-point arithmetic, rounded once and to the nearest, as PTX defines it for `.rn` and for no modifier.

`add`, `sub` and `mul` without `.rn` may be contracted by the assembler into a fused operation. The machine computes
what the text says. `.ftz` replaces subnormal operands and results by zeros of their sign.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from proofs.ptx.operation import Operation, UnknownOpcodeError, family, match_modifiers
from proofs.ptx.values import PACKED, Array

LEAST_NORMAL = np.float32(2.0**-126)
# The last 29 bits of a double between two neighbouring floats are these.
_TIE, _BELOW_FLOAT = np.uint64(1 << 28), np.uint64((1 << 29) - 1)


def flush(values: Array) -> Array:
    """Replace subnormal fp32 numbers by zeros of their sign."""
    return np.where(np.abs(values) < LEAST_NORMAL, np.copysign(np.float32(0), values), values)


def step_to_odd(values: Array, errors: Array) -> Array:
    """Round to odd: where values are inexact and their last bit is 0, step one unit towards the exact value.

    What is rounded to odd in two more bits can be rounded again, and gives the same as one rounding.
    """
    unsigned: Array = values.view(np.uint64 if values.itemsize == 8 else np.uint32)
    one: Any = unsigned.dtype.type(1)
    steps = (errors != 0) & np.isfinite(errors) & np.isfinite(values) & (unsigned & one == 0)
    outward = (errors > 0) == ~np.signbit(values)
    return np.where(steps, np.where(outward, unsigned + one, unsigned - one), unsigned).view(values.dtype)


def fuse_exactly(a: Array, b: Array, c: Array) -> Array:
    """Return a * b + c in float64, rounded to odd. The product of two floats must fit into float64."""
    product, addend = np.broadcast_arrays(a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64))
    total = product + addend
    part = total - product
    return step_to_odd(total, (product - (total - part)) + (addend - part))


def fuse(a: Array, b: Array, c: Array) -> Array:
    """Return a * b + c of fp32, rounded once.

    The sum in float64 is rounded a second time. That differs from one rounding only where it lies just between two
    floats, or below the normal ones, which is rare: only then the exact way is taken.
    """
    total = a.astype(np.float64) * b + c
    size = np.abs(total)
    between = (np.atleast_1d(total).view(np.uint64) & _BELOW_FLOAT) == _TIE
    if between.any() or ((size < 2.0**-125) & (size > 0)).any():
        total = fuse_exactly(a, b, c)
    return total.astype(np.float32)


def _fuse_half(a: Array, b: Array, c: Array) -> Array:
    return fuse_exactly(a, b, c).astype(np.float16)


def _fuse_bf16(a: Array, b: Array, c: Array) -> Array:
    exact = fuse_exactly(a, b, c)
    single = exact.astype(np.float32)
    return step_to_odd(single, exact - single)  # its bits are rounded to bf16 by the caller


def _with_flush(function: Callable[..., Array], flushes: bool) -> Callable[..., Array]:
    if not flushes:
        return function
    return lambda *values: flush(function(*map(flush, values)))


_FUNCTIONS: dict[str, Any] = {"add": np.add, "sub": np.subtract, "mul": np.multiply}


def binary(name: str, modifiers: tuple[str, ...]) -> Operation:
    """`add`, `sub`, `mul` of floats, also of two at once, and of a half-precision number and an fp32 number."""
    function = _FUNCTIONS[name]
    kinds = [modifier for modifier in modifiers if modifier not in ("rn", "ftz")]
    if len(kinds) == 2:  # add.rn.f32.bf16
        match_modifiers(modifiers, "rn", types=2)
        if kinds[0] != "f32" or kinds[1] not in ("f16", "bf16") or name == "mul":
            raise UnknownOpcodeError(f"the machine does not know {name} of {' and '.join(kinds)}")
        return Operation("f32", (kinds[1], "f32"), lambda a, b: function(a.astype(np.float32), b))
    (kind,) = match_modifiers(modifiers, "rn", "ftz")
    flushes = "ftz" in modifiers
    if PACKED.get(kind, kind) == "f16":
        # fp32 has more than twice the digits, so that rounding twice is the same as rounding once.
        return Operation(
            kind, (kind, kind), lambda a, b: function(a.astype(np.float32), b.astype(np.float32)).astype(np.float16)
        )
    return Operation(kind, (kind, kind), _with_flush(function, flushes))


@family("add", "sub")
def add(name: str, modifiers: tuple[str, ...]) -> Operation:
    """Sums and differences, of integers too."""
    if "f" in modifiers[-1]:
        return binary(name, modifiers)
    (kind,) = match_modifiers(modifiers)
    return Operation(kind, (kind, kind), _FUNCTIONS[name])


@family("fma")
def fused(_: str, modifiers: tuple[str, ...]) -> Operation:
    """a * b + c, rounded once, also of two at once, and of two half-precision numbers and an fp32 number."""
    kinds = [modifier for modifier in modifiers if modifier not in ("rn", "ftz")]
    match_modifiers(modifiers, "rn", "ftz", types=len(kinds))
    if kinds == ["f32"]:
        return Operation("f32", ("f32",) * 3, _with_flush(fuse, "ftz" in modifiers))
    if "ftz" in modifiers:
        raise UnknownOpcodeError("the machine knows fma.ftz of f32 alone")
    if len(kinds) == 2 and kinds[0] == "f32" and kinds[1] in ("f16", "bf16"):
        half = kinds[1]
        return Operation(
            "f32", (half, half, "f32"), lambda a, b, c: fuse(a.astype(np.float32), b.astype(np.float32), c)
        )
    functions = {"f16": _fuse_half, "bf16": _fuse_bf16, "f32": _fuse_two}
    if len(kinds) != 1 or PACKED.get(kinds[0], kinds[0]) not in functions:
        raise UnknownOpcodeError(f"the machine does not know fma of {' and '.join(kinds)}")
    return Operation(kinds[0], (kinds[0],) * 3, functions[PACKED.get(kinds[0], kinds[0])])


def _fuse_two(a: Array, b: Array, c: Array) -> Array:
    a, b, c = np.broadcast_arrays(a, b, c)
    return fuse(a.reshape(-1), b.reshape(-1), c.reshape(-1)).reshape(-1, 2)


def _extremum(is_max: bool, keeps_nan: bool, a: Array, b: Array) -> Array:
    result = np.fmax(a, b) if is_max else np.fmin(a, b)  # a NaN loses against a number
    if result.dtype == np.float32:
        a_bits, b_bits = a.view(np.uint32), b.view(np.uint32)
        same = (a_bits & b_bits if is_max else a_bits | b_bits).view(np.float32)  # +0 is above -0
        result = np.where(a == b, same, result)
    return np.where(np.isnan(a) | np.isnan(b), np.float32("nan"), result) if keeps_nan else result


@family("max", "min")
def extremum(name: str, modifiers: tuple[str, ...]) -> Operation:
    """The larger or smaller of two numbers, or of three of fp32."""
    (kind,) = match_modifiers(modifiers, "ftz", "NaN")
    if "f" not in kind:
        return Operation(kind, (kind, kind), np.maximum if name == "max" else np.minimum)
    keeps_nan = "NaN" in modifiers

    def compute(*values: Array) -> Array:
        result = values[0]
        for value in values[1:]:
            result = _extremum(name == "max", keeps_nan, result, value)
        return result.astype(values[0].dtype)

    return Operation(kind, (kind,) * 2, _with_flush(compute, "ftz" in modifiers), repeats=kind == "f32")


@family("neg", "abs", "copysign")
def sign(name: str, modifiers: tuple[str, ...]) -> Operation:
    """Change the sign. `copysign a, b` gives b the sign of a."""
    (kind,) = match_modifiers(modifiers, "ftz")
    if name == "copysign":
        return Operation(kind, (kind, kind), lambda a, b: np.copysign(b, a))
    function = np.negative if name == "neg" else np.abs
    return Operation(kind, (kind,), _with_flush(function, "ftz" in modifiers))
