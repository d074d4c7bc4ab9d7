"""What integer and predicate instructions compute, for all threads of a program at once.

A register is a uint32 array with one entry a thread, or one entry for all threads; None where its value is not known.
Addresses, masks and loop counters of a kernel depend on arguments and thread numbers alone, so their values are always
known. What is computed from loaded floating-point numbers is not.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint32]
Long = NDArray[np.uint64]
Bools = NDArray[np.bool_]

U32, U64 = np.uint32, np.uint64
LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class Predicate:
    """A truth value for each thread: whether it can be true, and whether it can be false. Both where not known."""

    true: Bools
    false: Bools

    @classmethod
    def of(cls, value: Bools) -> "Predicate":
        """Return a predicate that is known."""
        return cls(value, ~value)

    def __invert__(self) -> "Predicate":
        """Return not self."""
        return Predicate(self.false, self.true)

    @property
    def known(self) -> bool:
        """Return whether the value is known for every thread."""
        return not bool(np.any(self.true & self.false))


TRUE = Predicate.of(np.ones(1, np.bool_))
FALSE = ~TRUE
UNKNOWN = Predicate(np.ones(1, np.bool_), np.ones(1, np.bool_))


def combine(inputs: list[Predicate], table: int) -> Predicate:
    """Apply a truth table to three predicates. Bit 4 a + 2 b + c of the table is the result for inputs a, b, c."""
    true = false = np.zeros(1, np.bool_)
    for row in range(8):
        possible = np.ones(1, np.bool_)
        for position, predicate in enumerate(inputs):
            possible = possible & (predicate.true if row >> (2 - position) & 1 else predicate.false)
        if table >> row & 1:
            true = true | possible
        else:
            false = false | possible
    return Predicate(true, false)


def join(how: str, a: Predicate, b: Predicate) -> Predicate:
    """Return a AND, OR or XOR b."""
    if how == "AND":
        return Predicate(a.true & b.true, a.false | b.false)
    if how == "OR":
        return Predicate(a.true | b.true, a.false & b.false)
    return Predicate(a.true & b.false | a.false & b.true, a.true & b.true | a.false & b.false)


def signed(value: Bits) -> NDArray[np.int64]:
    """Return the value as signed numbers of 64 bits."""
    return value.astype(np.uint32).view(np.int32).astype(np.int64)


def extend(value: Bits, is_signed: bool) -> Long:
    """Return the value in 64 bits."""
    return signed(value).view(np.uint64) if is_signed else value.astype(np.uint64)


def split(value: Long) -> list[Bits]:
    """Return the low and the high half."""
    return [(value & LOW).astype(np.uint32), (value >> U64(32)).astype(np.uint32)]


def pair(low: Bits, high: Bits) -> Long:
    """Return the number of 64 bits that two registers hold."""
    return low.astype(np.uint64) | high.astype(np.uint64) << U64(32)


def add(terms: list[Bits]) -> tuple[Bits, NDArray[np.int64]]:
    """Return the sum of the terms and how often it overflowed."""
    total = np.zeros(1, np.uint64)
    for term in terms:
        total = total + term.astype(np.uint64)
    low, high = split(total)
    return low, high.astype(np.int64)


COMPARISONS: dict[str, Callable[..., Bools]] = {
    "LT": np.less,
    "LE": np.less_equal,
    "GT": np.greater,
    "GE": np.greater_equal,
    "EQ": np.equal,
    "NE": np.not_equal,
}


def compare(modifiers: tuple[str, ...], a: Bits, b: Bits, low_halves: Predicate | None) -> Predicate:
    """Compare as ISETP does. `low_halves` is the comparison of the lower words, where a and b are upper words."""
    name = next(modifier for modifier in modifiers if modifier in COMPARISONS)
    left, right = (a, b) if "U32" in modifiers else (signed(a), signed(b))
    if low_halves is None:
        return Predicate.of(COMPARISONS[name](left, right))
    equal = Predicate.of(left == right)
    strict = Predicate.of(COMPARISONS[{"LE": "LT", "GE": "GT", "EQ": "LT"}.get(name, name)](left, right))
    decided_by_low = join("AND", equal, low_halves)
    return decided_by_low if name == "EQ" else join("OR", strict, decided_by_low)


def compare_long(modifiers: tuple[str, ...], a: Long, b: Long) -> Predicate:
    """Compare numbers of 64 bits."""
    name = next(modifier for modifier in modifiers if modifier in COMPARISONS)
    left, right = (a.view(np.int64), b.view(np.int64)) if "S64" in modifiers else (a, b)
    return Predicate.of(COMPARISONS[name](left, right))


def logic(a: Bits, b: Bits, c: Bits, table: int) -> Bits:
    """Apply a truth table to each bit of three registers, as LOP3 does."""
    result = np.zeros(1, np.uint32)
    for row in range(8):
        if table >> row & 1:
            term = (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
            result = result | term
    return result


def shift(modifiers: tuple[str, ...], a: Bits, amount: Bits, c: Bits) -> Bits:
    """Shift the 64 bits of c (upper) and a (lower), as SHF does, and return one half."""
    both = pair(*np.broadcast_arrays(a, c))
    if "L" in modifiers:
        count = np.minimum(amount & U32(63 if "U64" in modifiers else 0xFFFFFFFF), U32(63)).astype(np.uint64)
        moved = both << count
    elif "S32" in modifiers or "S64" in modifiers:
        count = np.minimum(amount, U32(63)).astype(np.uint64)
        moved = (both.view(np.int64) >> count.astype(np.int64)).view(np.uint64)
    else:
        moved = both >> np.minimum(amount, U32(63)).astype(np.uint64)
    return split(moved)[1 if "HI" in modifiers else 0]


def permute(a: Bits, selector: Bits, b: Bits) -> Bits:
    """Pick four of the eight bytes of b (upper) and a (lower), as PRMT does."""
    both = pair(*np.broadcast_arrays(a, b))
    result = np.zeros(1, np.uint32)
    for position in range(4):
        choice = selector >> U32(4 * position) & U32(15)
        byte = (both >> (choice & U32(7)).astype(np.uint64) * U64(8) & U64(255)).astype(np.uint32)
        byte = np.where(choice & U32(8), np.where(byte & U32(128), U32(255), U32(0)), byte).astype(np.uint32)
        result = result | byte << U32(8 * position)
    return result


def sign_extend(value: Bits, bits: Bits, is_signed: bool) -> Bits:
    """Keep the lowest bits, as SGXT does."""
    count = U32(32) - np.minimum(bits, U32(32))
    moved = (extend(value, False) << count.astype(np.uint64) & LOW).astype(np.uint32)
    return (signed(moved) >> count.astype(np.int64)).astype(np.uint32) if is_signed else moved >> count
