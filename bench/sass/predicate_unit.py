"""The instructions that compute predicates, or put them into registers."""

import numpy as np

from bench.sass.integers import U32, UNKNOWN, Bools, Predicate, combine, compare, compare_long, join
from bench.sass.program import Instruction, Operand
from bench.sass.registers import Handler, Registers


def _compare(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    first, second, a, b, joined = instruction.operands[:5]
    how = next(modifier for modifier in instruction.modifiers if modifier in ("AND", "OR", "XOR"))
    result = UNKNOWN
    if instruction.has("U64", "S64"):
        longs = registers.long(a), registers.long(b)
        if longs[0] is not None and longs[1] is not None:
            result = compare_long(instruction.modifiers, longs[0], longs[1])
    else:
        left, right = registers.integer(a), registers.integer(b)
        low = registers.predicate(instruction.operands[5]) if instruction.has("EX") else None
        if left is not None and right is not None:
            result = compare(instruction.modifiers, left, right, low)
    other = registers.predicate(joined)
    registers.write_predicate(first.name, join(how, result, other), lanes)
    registers.write_predicate(second.name, join(how, ~result, other), lanes)


def _predicate_logic(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    first, second, *inputs, table, other = instruction.operands
    values = [registers.predicate(operand) for operand in inputs]
    registers.write_predicate(first.name, combine(values, table.number or 0), lanes)
    registers.write_predicate(second.name, combine(values, other.number or 0), lanes)


def _vote(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    """Handle VOTE where it tells all threads what some of them have. All warps of a program agree."""
    target, source = instruction.operands[0], registers.predicate(instruction.operands[-1])
    if target.kind != "predicate":
        registers.write(target.name, None, lanes)
        return
    summary = np.any if instruction.has("ANY") else np.all
    value = Predicate.of(np.array([bool(summary(source.true))])) if source.known else UNKNOWN
    registers.write_predicate(target.name, value, lanes)


def _pack(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    target, _, base, mask = instruction.operands[:4]
    kept, bits = registers.integer(base), mask.number or 0
    values = [registers.predicate(Operand("predicate", f"P{index}")) for index in range(7) if bits >> index & 1]
    if kept is None or not all(value.known for value in values):
        registers.write(target.name, None, lanes)
        return
    packed = np.zeros(1, np.uint32)
    for index, value in zip((i for i in range(7) if bits >> i & 1), values, strict=True):
        packed = packed | value.true.astype(np.uint32) << U32(index)
    place = next((8 * int(m[1]) for m in instruction.modifiers if m in ("B1", "B2", "B3")), 0)
    registers.write(target.name, kept & ~U32(bits << place) | packed << U32(place), lanes)


def _unpack(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    _, source, mask = instruction.operands[:3]
    value = registers.integer(source)
    place = next((8 * int(m[1]) for m in instruction.modifiers if m in ("B1", "B2", "B3")), 0)
    for index in range(7):
        if (mask.number or 0) >> index & 1:
            bit = UNKNOWN if value is None else Predicate.of((value >> U32(index + place) & U32(1)) != 0)
            registers.write_predicate(f"P{index}", bit, lanes)


HANDLERS: dict[str, Handler] = {
    "ISETP": _compare,
    "PLOP3": _predicate_logic,
    "VOTE": _vote,
    "VOTEU": _vote,
    "P2R": _pack,
    "R2P": _unpack,
}
