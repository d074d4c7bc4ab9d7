"""What an arithmetic opcode is: the types of its operands and its result, and a function of their values.

A family of opcodes registers a function under the name before the first point. It receives the modifiers and returns
the operation. `match_modifiers` refuses what a family does not know, so that no modifier is passed over.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proofs.ptx.values import TYPE_BITS


@dataclass(frozen=True)
class Operation:
    """An opcode without memory.

    Attributes:
        result: type of the result.
        sources: types of the operands behind them.
        compute: from the values of the operands to the value of the result.
        repeats: whether there may be more operands of the last type.
    """

    result: str
    sources: tuple[str, ...]
    compute: Callable[..., Any]
    repeats: bool = False


Family = Callable[[tuple[str, ...]], Operation]
FAMILIES: dict[str, Family] = {}


class UnknownOpcodeError(Exception):
    """An opcode or a modifier that the machine does not know."""


def family(*names: str) -> Callable[[Callable[..., Operation]], Callable[..., Operation]]:
    """Register a function for opcodes of these names. It receives the name, then the modifiers."""

    def register(function: Callable[..., Operation]) -> Callable[..., Operation]:
        for name in names:
            FAMILIES[name] = lambda modifiers, name=name: function(name, modifiers)  # type: ignore[misc]
        return function

    return register


def match_modifiers(modifiers: tuple[str, ...], *known: str, types: int = 1) -> list[str]:
    """Return the types among the modifiers.

    Raises:
        UnknownOpcodeError: there is a modifier that is neither known nor a type, or another number of types.
    """
    found = [modifier for modifier in modifiers if modifier in TYPE_BITS]
    unknown = [modifier for modifier in modifiers if modifier not in TYPE_BITS and modifier not in known]
    if unknown or len(found) != types:
        raise UnknownOpcodeError(f"the machine does not know .{'.'.join(modifiers)} of this opcode")
    return found


def find_operation(opcode: str) -> Operation | None:
    """Return the operation of an opcode, or None where no family has its name.

    Raises:
        UnknownOpcodeError: the family does not know a modifier.
    """
    name, *modifiers = opcode.split(".")
    return FAMILIES[name](tuple(modifiers)) if name in FAMILIES else None
