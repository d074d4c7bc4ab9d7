"""The registers of all threads of a program, and the operands of an instruction that reads and writes them."""

import re
from collections.abc import Callable

import numpy as np

from bench.sass.integers import TRUE, U32, UNKNOWN, Bits, Bools, Long, Predicate, add, pair
from bench.sass.program import Instruction, Operand


class Registers:
    """Registers and predicates by name. A register that is missing is not known; a predicate that is missing neither.

    Attributes:
        constants: the bank of constants, in words of 32 bits, by their offset.
    """

    def __init__(self, constants: dict[int, int]) -> None:
        """Begin with nothing known."""
        self.constants = constants
        self.everyone: Bools | None = None  # the array that stands for all threads; any other is looked into
        self._values: dict[str, Bits] = {}
        self._predicates: dict[str, Predicate] = {}

    # --- single registers

    def read(self, name: str) -> Bits | None:
        """Return a register's value, or None."""
        return np.zeros(1, np.uint32) if name in ("RZ", "URZ") else self._values.get(name)

    def write(self, name: str, value: Bits | None, lanes: Bools) -> None:
        """Write a register in some threads."""
        partial = lanes is not self.everyone and not lanes.all()
        if name in ("RZ", "URZ") or (partial and not lanes.any()):
            return
        if value is not None and partial and not name.startswith("U"):
            # Threads whose value was not known get the new one too: a register holds either addresses or data.
            value = np.where(lanes, value, self._values.get(name, value))
        if value is None:
            self._values.pop(name, None)
        else:
            self._values[name] = value.astype(np.uint32)

    def write_predicate(self, name: str, value: Predicate, lanes: Bools) -> None:
        """Write a predicate in some threads."""
        partial = lanes is not self.everyone and not lanes.all()
        if name in ("PT", "UPT") or (partial and not lanes.any()):
            return
        if partial and not name.startswith("U"):
            old = self._predicates.get(name, UNKNOWN)
            value = Predicate(np.where(lanes, value.true, old.true), np.where(lanes, value.false, old.false))
        self._predicates[name] = value

    # --- operands

    def predicate(self, operand: Operand) -> Predicate:
        """Return the value of a predicate operand."""
        value = TRUE if operand.name in ("PT", "UPT") else self._predicates.get(operand.name, UNKNOWN)
        return ~value if operand.inverted else value

    def word(self, operand: Operand) -> Bits | None:
        """Return the value of 32 bits, without the minus of a register or constant; None where not known."""
        if operand.kind == "number":
            number = operand.number or 0
            value: Bits | None = np.array([(-number if operand.negated else number) & 0xFFFFFFFF], np.uint32)
        elif operand.kind == "constant":
            value = self.constant(operand.number or 0)
        elif operand.kind == "register":
            value = self.read(operand.name)
        else:
            value = None
        if value is None or operand.absolute:
            return None
        return ~value if operand.inverted else value

    def constant(self, offset: int) -> Bits | None:
        """Return a word of the bank of constants."""
        word = self.constants.get(offset)
        return None if word is None else np.array([word], np.uint32)

    def integer(self, operand: Operand) -> Bits | None:
        """Return the value of 32 bits, with its minus applied."""
        value = self.word(operand)
        is_minus = operand.negated and operand.kind != "number"
        return (~value + U32(1)).astype(np.uint32) if value is not None and is_minus else value

    def long(self, operand: Operand) -> Long | None:
        """Return the value of 64 bits of a pair of registers, of constants, or of a number, with its minus applied."""
        if operand.kind == "number":
            number = operand.number or 0
            value = np.array([(-number if operand.negated else number) & (1 << 64) - 1], np.uint64)
            return value
        low = self.word(operand)
        high = self.word(self.upper(operand))
        if low is None or high is None:
            return None
        both = pair(*np.broadcast_arrays(low, high))
        return (~both + np.uint64(1)) if operand.negated else both

    @staticmethod
    def upper(operand: Operand, words: int = 1) -> Operand:
        """Return the operand that lies some words behind."""
        if operand.kind == "constant":
            return Operand("constant", operand.name, (operand.number or 0) + 4 * words)
        return Operand("register", following(operand.name, words), inverted=operand.inverted)

    def write_words(self, operand: Operand, words: list[Bits] | None, count: int, lanes: Bools) -> None:
        """Write consecutive registers."""
        for index in range(count):
            name = following(operand.name, index)
            self.write(name, None if words is None else words[index], lanes)

    # --- addresses

    def address(self, text: str) -> Long | None:
        """Return the addresses of an operand such as `desc[UR4][R2.64+UR6+0x10]` or `[R5+-0x8]`."""
        body = re.findall(r"\[([^\]]*)\]", text)[-1]
        total = np.zeros(1, np.uint64)
        for term in body.replace("-", "+-").replace("++", "+").split("+"):
            if not term:
                continue
            number = re.fullmatch(r"(-?)(0x[0-9a-f]+)", term)
            if number:
                value = int(number[2], 16)
                total = total + np.array([-value if number[1] else value], np.int64).view(np.uint64)
                continue
            name, _, suffix = term.partition(".")
            is_long = suffix == "64" or (name.startswith("U") and "R" in body and ".64" in body)
            part = self.long(Operand("register", name)) if is_long else self.read(name)
            if part is None:
                return None
            total = total + part.astype(np.uint64)
        return total


Handler = Callable[[Registers, Instruction, Bools], None]


def following(name: str, words: int) -> str:
    """Return the name of the register that lies some words behind."""
    prefix, _, number = name.rpartition("R")
    return name if number == "Z" else f"{prefix}R{int(number) + words}"


def add_operands(
    registers: Registers, sources: list[Operand], carry: list[Predicate]
) -> tuple[Bits | None, list[Predicate]]:
    """Add as IADD3 does. Returns the sum and the two carries; None and unknown carries where an input is not known."""
    terms, extra = [], 0
    for source in sources:
        value = registers.word(source)
        if value is None:
            return None, [UNKNOWN, UNKNOWN]
        if source.negated and source.kind != "number":
            value, extra = ~value, extra + 1
        terms.append(value)
    for predicate in carry:
        if not predicate.known:
            return None, [UNKNOWN, UNKNOWN]
        terms.append(predicate.true.astype(np.uint32))
    low, overflow = add([*terms, np.array([extra], np.uint32)])
    return low, [Predicate.of(overflow >= 1), Predicate.of(overflow >= 2)]
