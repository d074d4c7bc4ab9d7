"""Instructions as functions: what each one does to the lanes. Arithmetic and moves are here.

Opcodes that touch memory or other lanes register a builder under their name in `accesses.py` and `warps.py`. Opcodes
that change the order of execution belong to `machine.py`.
"""

from collections.abc import Callable

import numpy as np

from proofs.ptx import conversions, floats, integers, special  # noqa: F401 (they register their opcodes)
from proofs.ptx.conversions import join, split
from proofs.ptx.lanes import Lanes
from proofs.ptx.operation import UnknownOpcodeError, find_operation
from proofs.ptx.parser import Immediate, Instruction, Operand, Register, Vector
from proofs.ptx.values import TYPE_BITS, UNSIGNED, Array, from_bits, immediate_bits, to_bits

Step = Callable[[Lanes, Array | None], None]
Builder = Callable[[Instruction], Step]
Reader = Callable[[Lanes], Array]
BUILDERS: dict[str, Builder] = {}


def builder(*names: str) -> Callable[[Builder], Builder]:
    """Register the builder of opcodes with these names before the first point."""

    def register(function: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(names, function))
        return function

    return register


def read_as(operand: Operand, kind: str) -> Reader:
    """Return a function that reads an operand as values of a type."""
    if isinstance(operand, Immediate):
        constant = from_bits(immediate_bits(operand.value, TYPE_BITS[kind]), kind)
        return lambda lanes: constant
    if isinstance(operand, Register):
        return lambda lanes: from_bits(lanes.read(operand), kind)
    raise UnknownOpcodeError(f"the operand {operand} is neither a register nor a number")


def expect_register(operand: Operand) -> Register:
    """Return an operand that must be a register."""
    if not isinstance(operand, Register):
        raise UnknownOpcodeError(f"the operand {operand} is not a register")
    return operand


def build_arithmetic(instruction: Instruction) -> Step:
    """Return the step of an opcode of `operation.FAMILIES`."""
    operation = find_operation(instruction.opcode)
    if operation is None:
        raise UnknownOpcodeError("the machine does not know this opcode")
    target, *operands = instruction.operands
    kinds = list(operation.sources)
    if operation.repeats:
        kinds += kinds[-1:] * (len(operands) - len(kinds))
    if len(kinds) != len(operands):
        raise UnknownOpcodeError(f"the machine knows this opcode with {len(kinds)} operands")
    register, kind, compute = expect_register(target), operation.result, operation.compute
    readers = [read_as(operand, source) for operand, source in zip(operands, kinds, strict=True)]

    def run(lanes: Lanes, active: Array | None) -> None:
        values = [read(lanes) for read in readers]
        lanes.write(register, to_bits(compute(*values), kind, register.width), active)

    return run


@builder("mov")
def build_move(instruction: Instruction) -> Step:
    """Return the step of `mov`: from a register, a number, or between a register and several narrower ones."""
    target, source = instruction.operands
    kind = instruction.opcode.split(".")[-1]
    if isinstance(target, Vector):
        registers = [expect_register(part) for part in target.parts]
        read = read_as(source, f"b{TYPE_BITS[kind]}")

        def unpack(lanes: Lanes, active: Array | None) -> None:
            for register, bits in zip(registers, split(read(lanes), len(registers)), strict=True):
                lanes.write(register, bits, active)

        return unpack
    register = expect_register(target)
    if isinstance(source, Vector):
        width = TYPE_BITS[kind]
        readers = [read_as(part, f"b{width // len(source.parts)}") for part in source.parts]

        def pack(lanes: Lanes, active: Array | None) -> None:
            parts, undefined = [], np.ones(lanes.count, bool)
            for read in readers:
                parts.append(read(lanes))
                part_undefined = lanes.take_undefined()
                undefined &= False if part_undefined is None else part_undefined
            # A compiler may leave a part undefined that it does not use. The part keeps its poison, which is a NaN.
            lanes.undefined = undefined if undefined.any() else None
            lanes.write(register, join(parts, width), active)

        return pack
    read = read_as(source, "pred" if kind == "pred" else f"b{register.width}")
    return lambda lanes, active: lanes.write(register, read(lanes), active)


@builder("selp")
def build_selection(instruction: Instruction) -> Step:
    """Return the step of `selp`: one of two values, by a predicate. What is not chosen may be undefined."""
    target, *operands = instruction.operands
    register = expect_register(target)
    kind = f"b{TYPE_BITS[instruction.opcode.split('.')[1]]}"
    read_true, read_false, read_predicate = (
        read_as(operand, part) for operand, part in zip(operands, (kind, kind, "pred"), strict=True)
    )

    def run(lanes: Lanes, active: Array | None) -> None:
        predicate = read_predicate(lanes)
        undefined = [lanes.take_undefined()]
        values = []
        for read in (read_true, read_false):
            values.append(read(lanes))
            undefined.append(lanes.take_undefined())
        if any(part is not None for part in undefined):
            of_predicate, of_true, of_false = (False if part is None else part for part in undefined)
            lanes.undefined = of_predicate | np.where(predicate, of_true, of_false)
        lanes.write(register, np.where(predicate, *values), active)

    return run


@builder("createpolicy")
def build_policy(instruction: Instruction) -> Step:
    """Return the step of `createpolicy`: a hint for the cache has no meaning here."""
    register = expect_register(instruction.operands[0])
    return lambda lanes, active: lanes.write(register, np.zeros(1, UNSIGNED[64]), active)


@builder("fence", "membar", "griddepcontrol", "nanosleep")
def build_nothing(_: Instruction) -> Step:
    """Return the step of opcodes that order or delay memory accesses, which are in order and at once here."""
    return lambda lanes, active: None
