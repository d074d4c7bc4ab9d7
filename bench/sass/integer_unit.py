"""The instructions whose results an address, a mask or a loop counter can depend on.

Each function takes the registers, the instruction and the threads that execute it. An instruction that is not in the
table makes its destination unknown.
"""

from collections.abc import Callable

import numpy as np

from bench.sass import predicate_unit
from bench.sass.integers import (
    TRUE,
    U32,
    UNKNOWN,
    Bits,
    Bools,
    Predicate,
    extend,
    join,
    logic,
    pair,
    permute,
    shift,
    sign_extend,
    signed,
    split,
)
from bench.sass.program import Instruction, Operand
from bench.sass.registers import Handler, Registers, add_operands


def _parts(instruction: Instruction) -> tuple[list[Operand], list[Operand], list[Operand]]:
    """Return the predicates that are written beside a register, the sources, and the predicates that are read."""
    written, read = [], []
    operands = list(instruction.operands[1:])
    while operands and operands[0].kind == "predicate" and not operands[0].inverted:
        written.append(operands.pop(0))
    while operands and operands[-1].kind == "predicate":
        read.insert(0, operands.pop())
    return written, operands, read


def _move(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    source = instruction.operands[1]
    if instruction.has("64"):
        value = registers.long(source)
        registers.write_words(instruction.operands[0], None if value is None else split(value), 2, lanes)
    else:
        registers.write(instruction.operands[0].name, registers.integer(source), lanes)


def _load_constant(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    target, source = instruction.operands[:2]
    count = max(1, instruction.width // 4)
    values = [registers.constant(source.number + 4 * i) if source.number is not None else None for i in range(count)]
    for index, value in enumerate(values):
        name = registers.upper(target, index).name
        registers.write(name, value, lanes)


def _clear(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    known = instruction.operands[1].name == "SRZ"
    zero = np.zeros(1, np.uint32)
    count = 1 if instruction.has("32") else 2
    registers.write_words(instruction.operands[0], [zero] * count if known else None, count, lanes)


def _add(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    written, sources, read = _parts(instruction)
    if instruction.has("64"):
        values = [value for source in sources if (value := registers.long(source)) is not None]
        total = sum(values, np.zeros(1, np.uint64)) if len(values) == len(sources) else None
        registers.write_words(instruction.operands[0], None if total is None else split(total), 2, lanes)
        carries = [UNKNOWN, UNKNOWN]
    else:
        carry = [registers.predicate(p) for p in read] if instruction.has("X") else []
        result, carries = add_operands(registers, sources, carry)
        registers.write(instruction.operands[0].name, result, lanes)
    for predicate, value in zip(written, carries, strict=False):
        registers.write_predicate(predicate.name, value, lanes)


def _multiply(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    written, sources, read = _parts(instruction)
    is_signed = not instruction.has("U32")
    a, b = (registers.integer(source) for source in sources[:2])
    target = instruction.operands[0]
    if instruction.has("WIDE", "HI"):
        c = registers.long(sources[2])
        known = a is not None and b is not None and c is not None
        total = extend(a, is_signed) * extend(b, is_signed) + c if known else None
        if instruction.has("WIDE"):
            registers.write_words(target, None if total is None else split(total), 2, lanes)
        else:
            registers.write(target.name, None if total is None else split(total)[1], lanes)
        carries = [UNKNOWN if total is None else Predicate.of(total < c)]
        for predicate, value in zip(written, carries, strict=False):
            registers.write_predicate(predicate.name, value, lanes)
        return
    c = registers.integer(sources[2])
    zero = any(v is not None and not v.any() for v in (a, b))
    product = np.zeros(1, np.uint32) if zero else None if a is None or b is None else a * b
    if instruction.has("X"):
        carry = registers.predicate(read[0])
        c = None if c is None or not carry.known else c + carry.true.astype(np.uint32)
    registers.write(target.name, None if product is None or c is None else product + c, lanes)


def _shift_and_add(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    written, sources, read = _parts(instruction)
    target = instruction.operands[0]
    a, b = registers.integer(sources[0]), registers.word(sources[1])
    amount = sources[-1].number or 0
    if instruction.has("SX32") and a is not None:
        c: Bits | None = (signed(a) >> 31).astype(np.uint32)
    elif instruction.has("HI"):
        c = registers.word(sources[2])
    else:
        c = np.zeros(1, np.uint32)
    carry = registers.predicate(read[0]) if instruction.has("X") else ~TRUE
    if a is None or b is None or c is None or not carry.known:
        registers.write(target.name, None, lanes)
        for predicate in written:
            registers.write_predicate(predicate.name, UNKNOWN, lanes)
        return
    both = pair(*np.broadcast_arrays(a, c))
    moved = split(both << np.uint64(amount))[1 if instruction.has("HI") else 0]
    if sources[1].negated and sources[1].kind != "number":
        b = ~b + U32(1)
    total = moved.astype(np.uint64) + b.astype(np.uint64) + carry.true.astype(np.uint64)
    low, high = split(total)
    registers.write(target.name, low, lanes)
    for predicate in written:
        registers.write_predicate(predicate.name, Predicate.of(high > 0), lanes)


def _logic(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    operands = list(instruction.operands)
    target = operands.pop(0) if operands[0].kind == "predicate" else None
    result_name, *sources = operands
    values = [registers.word(source) for source in sources[:3]]
    table = sources[3].number or 0
    for index, bit in enumerate((4, 2, 1)):  # an operand that the table does not depend on need not be known
        mask = sum(1 << row for row in range(8) if not row & bit)
        if (table & mask) == (table >> bit & mask):
            values[index] = np.zeros(1, np.uint32)
    result = None if any(value is None for value in values) else logic(*values, table)
    registers.write(result_name.name, result, lanes)
    if target is not None:
        value = UNKNOWN if result is None else Predicate.of(result != 0)
        joined = registers.predicate(sources[4])
        registers.write_predicate(target.name, join("AND" if instruction.has("PAND") else "OR", value, joined), lanes)


def _select(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    target, a, b, chooser = instruction.operands
    left, right, which = registers.integer(a), registers.integer(b), registers.predicate(chooser)
    known = left is not None and right is not None and which.known
    registers.write(target.name, np.where(which.true, left, right) if known else None, lanes)


def _extreme(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    """Handle minimum (where the predicate is true) and maximum; of a + b and c for VIADDMNMX."""
    target, *sources, chooser = instruction.operands
    values = [registers.integer(source) for source in sources]
    least = registers.predicate(chooser)
    first, last = values[0], values[-1]
    if first is not None and len(values) == 3:
        first = None if values[1] is None else first + values[1]
    if first is None or last is None or not least.known:
        registers.write(target.name, None, lanes)
        return
    smaller = first < last if instruction.has("U32") else signed(first) < signed(last)
    registers.write(target.name, np.where(smaller == least.true, first, last), lanes)


def _simple(function: Callable[..., Bits]) -> Handler:
    """Return the handler of an instruction with integer sources and one result."""

    def handle(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
        values = [registers.integer(source) for source in instruction.operands[1:]]
        known = all(value is not None for value in values)
        registers.write(instruction.operands[0].name, function(instruction, *values) if known else None, lanes)

    return handle


def _to_float(instruction: Instruction, value: Bits) -> Bits:
    """Convert as I2F does. The divisor of an integer division is converted, rounded up."""
    number = signed(value) if instruction.has("S32") else value.astype(np.int64)
    result = number.astype(np.float32)
    if instruction.has("RP"):
        result = np.where(result.astype(np.int64) < number, np.nextafter(result, np.float32(np.inf)), result)
    return result.astype(np.float32).view(np.uint32)


def _reciprocal(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    value = registers.integer(instruction.operands[1]) if instruction.has("RCP") else None
    with np.errstate(divide="ignore"):
        result = None if value is None else (np.float32(1) / value.view(np.float32)).view(np.uint32)
    registers.write(instruction.operands[0].name, result, lanes)


def _move_halves(registers: Registers, instruction: Instruction, lanes: Bools) -> None:
    """Handle HFMA2, by which the compiler also moves constants: -0 x 0 + (upper half, lower half)."""
    target, a, b, *halves = instruction.operands
    value = None
    if a.name == b.name == "RZ" and len(halves) == 2:
        upper, lower = (int(np.float16(float(half.name)).view(np.uint16)) for half in halves)
        value = np.array([upper << 16 | lower], np.uint32)
    registers.write(target.name, value, lanes)


def _to_integer(_: Instruction, value: Bits) -> Bits:
    with np.errstate(invalid="ignore"):
        return np.clip(np.trunc(value.view(np.float32)), 0, 2**32 - 1).astype(np.uint64).astype(np.uint32)


_HANDLERS: dict[str, Handler] = predicate_unit.HANDLERS | {
    "MOV": _move,
    "R2UR": _move,
    "LDC": _load_constant,
    "CS2R": _clear,
    "IADD3": _add,
    "IADD": _add,
    "VIADD": _add,
    "IMAD": _multiply,
    "LEA": _shift_and_add,
    "LOP3": _logic,
    "SEL": _select,
    "IMNMX": _extreme,
    "VIMNMX": _extreme,
    "VIADDMNMX": _extreme,
    "HFMA2": _move_halves,
    "MUFU": _reciprocal,
    "SHF": _simple(lambda i, a, n, c: shift(i.modifiers, a, n, c)),
    "PRMT": _simple(lambda _, a, s, b: permute(a, s, b)),
    "SGXT": _simple(lambda i, a, n: sign_extend(a, n, not i.has("U32"))),
    "IABS": _simple(lambda _, a: np.abs(signed(a)).astype(np.uint32)),
    "I2F": _simple(_to_float),
    "F2I": _simple(_to_integer),
}
# Instructions on the registers that all threads of a warp share do the same.
HANDLERS: dict[str, Handler] = (
    _HANDLERS
    | {f"U{name}": handler for name, handler in _HANDLERS.items()}
    | {
        "LDCU": _load_constant,
        "ULDC": _load_constant,
    }
)
