"""Approximate functions: the exact value, off by a part of the error that the PTX documentation allows.

The true error of the hardware's units is not known. Each result is therefore wrong by a pseudo-random share, between
-1 and 1, of the documented bound, which depends on the operand's bits alone. What passes with it passes on any hardware
that keeps the documentation, as far as chance goes. The ranges in which operands and results become 0 or infinite are
those of the documentation.
"""

from collections.abc import Callable

import numpy as np

from proofs.ptx.floats import flush
from proofs.ptx.operation import Operation, UnknownOpcodeError, family, match_modifiers
from proofs.ptx.values import Array

# Largest relative errors, from the descriptions of the instructions in the PTX documentation. Of lg2 it is absolute
# where the operand is between 0.5 and 2.
BOUNDS = {
    "ex2": 2.0**-22,
    "lg2": 2.0**-22,
    "rcp": 2.0**-23,
    "rsqrt": 2.0**-22.4,
    "sqrt": 2.0**-23,
    "tanh": 2.0**-11,
    "div": 2.0**-22,  # two units in the last place, also for div.full
}


def draw_error(*operands: Array) -> Array:
    """Return a number between -1 and 1 for each entry, always the same for the same bits."""
    mixed: Array = np.array([0x9E3779B9], np.uint32)
    for operand in operands:
        mixed = (operand.view(np.uint32) ^ mixed) * np.uint32(0x85EBCA6B)
        mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    mixed = mixed ^ (mixed >> np.uint32(16))
    return np.asarray(mixed).astype(np.float64) / 2.0**31 - 1.0


def _reciprocal(a: Array) -> Array:
    return np.where(a == 0, np.copysign(np.inf, a), 1.0 / np.where(a == 0, 1.0, a))


def _reciprocal_root(a: Array) -> Array:
    safe = np.where(a > 0, a, 1.0)
    edge = np.where(a == 0, np.copysign(np.inf, a), np.nan)
    return np.where(a > 0, 1.0 / np.sqrt(safe), edge)


def _logarithm(a: Array) -> Array:
    safe = np.where(a > 0, a, 1.0)
    return np.where(a > 0, np.log2(safe), np.where(a == 0, -np.inf, np.nan))


_EXACT: dict[str, Callable[[Array], Array]] = {
    "ex2": np.exp2,
    "lg2": _logarithm,
    "rcp": _reciprocal,
    "rsqrt": _reciprocal_root,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}


def approximate(name: str, a: Array) -> Array:
    """Return an approximate function of fp32 numbers."""
    exact = _EXACT[name](a.astype(np.float64))
    error = draw_error(a) * BOUNDS[name]
    if name == "lg2":
        near = (a > 0.5) & (a < 2)
        return np.asarray(np.where(near, exact + error, exact * (1 + error)), np.float32)
    # 2 to the power of 0 is 1, and whatever is infinite, 0 or NaN stays so.
    return np.asarray(np.where((a == 0) & (name == "ex2"), exact, exact * (1 + error)), np.float32)


@family(*_EXACT)
def special(name: str, modifiers: tuple[str, ...]) -> Operation:
    """The functions of one operand. `.rn` is exact, `.approx` is not."""
    match_modifiers(modifiers, "approx", "ftz", "rn")
    if modifiers[-1] != "f32" or ("approx" in modifiers) == ("rn" in modifiers):
        raise UnknownOpcodeError(f"the machine does not know {name}.{'.'.join(modifiers)}")
    flushes = "ftz" in modifiers

    def compute(a: Array) -> Array:
        a = flush(a) if flushes else a
        result = (
            approximate(name, a) if "approx" in modifiers else _EXACT[name](a.astype(np.float64)).astype(np.float32)
        )
        return flush(result) if flushes else result

    if "rn" in modifiers and name not in ("rcp", "sqrt"):
        raise UnknownOpcodeError(f"the machine does not know {name}.rn")
    return Operation("f32", ("f32",), compute)


def divide_approximately(a: Array, b: Array, full: bool) -> Array:
    """Return a / b. Without `full`, divisors above 2^126 give 0, as the documentation says."""
    exact = a.astype(np.float64) / b
    result = np.asarray(exact * (1 + BOUNDS["div"] * draw_error(a, b)), np.float32)
    if full:
        return result
    large = (np.abs(b) > 2.0**126) & np.isfinite(b)
    return np.where(large, np.where(np.isinf(a), np.float32("nan"), np.copysign(np.float32(0), result)), result)


def float_division(modifiers: tuple[str, ...]) -> Operation:
    """`div.rn` is exact; `div.full` and `div.approx` are not."""
    (kind,) = match_modifiers(modifiers, "rn", "full", "approx", "ftz")
    chosen = {"rn", "full", "approx"} & set(modifiers)
    if kind != "f32" or len(chosen) != 1:
        raise UnknownOpcodeError(f"the machine does not know div.{'.'.join(modifiers)}")

    def compute(a: Array, b: Array) -> Array:
        if "ftz" in modifiers:
            a, b = flush(a), flush(b)
        result = np.divide(a, b) if "rn" in chosen else divide_approximately(a, b, full="full" in chosen)
        return flush(result) if "ftz" in modifiers else result

    return Operation("f32", ("f32", "f32"), compute)
