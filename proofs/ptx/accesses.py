"""Loads, stores and asynchronous copies."""

import re
from itertools import product

import numpy as np

from proofs.ptx.lanes import Lanes, PendingCopy
from proofs.ptx.memory import Access
from proofs.ptx.operation import UnknownOpcodeError
from proofs.ptx.parser import Address, Instruction, Operand, Register, Vector
from proofs.ptx.steps import Reader, Step, builder, expect_register, read_as
from proofs.ptx.values import TYPE_BITS, UNSIGNED, Array, from_bits, to_bits

SPACES = ("global", "shared", "param")
# Hints for caches, and orderings that hold anyway where all lanes move together.
_SCOPES = ("ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "volatile", "weak", "relaxed", "cta", "gpu", "sys")
_HINTS = re.compile(rf"{'|'.join(_SCOPES)}|L1::(evict_\w+|no_allocate)|L2::(evict_\w+|cache_hint|\d+B)|shared::cta")
_VECTORS = {"v2": 2, "v4": 4, "v8": 8}


def parse_access(opcode: str) -> tuple[str, int, str]:
    """Return space, number of entries and type of `ld` or `st`.

    Raises:
        UnknownOpcodeError: a modifier is unknown.
    """
    _, *modifiers, kind = opcode.split(".")
    space = next((modifier for modifier in modifiers if modifier in SPACES), "")
    count = next((_VECTORS[modifier] for modifier in modifiers if modifier in _VECTORS), 1)
    unknown = [m for m in modifiers if not _HINTS.fullmatch(m) and m not in SPACES and m not in _VECTORS]
    if unknown or not space or kind not in TYPE_BITS:
        raise UnknownOpcodeError("the machine does not know this access")
    return space, count, kind


def read_address(operand: Operand) -> Reader:
    """Return a function that reads an address: 64 bits, an entry for each lane."""
    if not isinstance(operand, Address) or isinstance(operand.base, int):
        raise UnknownOpcodeError(f"the operand {operand} is not an address")
    base, offset = operand.base, operand.offset
    if base is None:
        return lambda lanes: lanes.spread(np.array([offset], np.uint64))
    shift = np.array([offset & ((1 << base.width) - 1)], UNSIGNED[base.width])
    return lambda lanes: lanes.spread(lanes.read(base) + shift).astype(np.uint64)


def _parts(operand: Operand) -> tuple[Operand, ...]:
    return operand.parts if isinstance(operand, Vector) else (operand,)


def shared_offsets(lanes: Lanes, indices: Array, addresses: Array, size: int) -> Array:
    """Return offsets into the shared memory of all CTAs, for addresses in the shared memory of each.

    Raises:
        AccessError: an access ends behind the shared memory of its CTA, or is not aligned.
    """
    offsets = addresses.astype(np.int64)
    beyond = (offsets + size > lanes.shared_bytes) | (offsets < 0)
    if beyond.any():
        lanes.shared.check(np.where(beyond, len(lanes.shared.data), offsets), size)
    offsets = offsets + lanes.cta[indices] * lanes.shared_stride
    lanes.shared.check(offsets, size)
    return offsets


def load_shared(lanes: Lanes, indices: Array, addresses: Array, bits: int, count: int, line: int) -> Array:
    """Return (lanes, count) entries of shared memory, and log the access."""
    size = bits // 8 * count
    offsets = shared_offsets(lanes, indices, addresses, size)
    lanes.shared.accesses.append(Access(offsets, size, lanes.number[indices], lanes.epochs[:, indices], line))
    return lanes.shared.gather(offsets, bits, count)


def store_shared(lanes: Lanes, indices: Array, addresses: Array, values: Array, line: int) -> None:
    """Write (lanes, count) entries to shared memory, and log the access."""
    size = values.itemsize * values.shape[1]
    offsets = shared_offsets(lanes, indices, addresses, size)
    lanes.shared.accesses.append(Access(offsets, size, lanes.number[indices], lanes.epochs[:, indices], line, values))
    lanes.shared.scatter(offsets, values)


def load_global(lanes: Lanes, indices: Array, addresses: Array, bits: int, count: int, line: int) -> Array:
    """Return (lanes, count) entries of global memory, and log the access."""
    size = bits // 8 * count
    values = np.empty((len(indices), count), UNSIGNED[bits])
    for region, which, offsets in lanes.memory.find(addresses, size):
        who = indices[which]
        region.accesses.append(Access(offsets, size, lanes.number[who], lanes.epochs[:, who], line))
        values[which] = region.gather(offsets, bits, count)
    return values


def store_global(lanes: Lanes, indices: Array, addresses: Array, values: Array, line: int) -> None:
    """Write (lanes, count) entries to global memory, and log the access."""
    size = values.itemsize * values.shape[1]
    for region, which, offsets in lanes.memory.find(addresses, size):
        who = indices[which]
        region.accesses.append(Access(offsets, size, lanes.number[who], lanes.epochs[:, who], line, values[which]))
        region.scatter(offsets, values[which])


@builder("ld")
def build_load(instruction: Instruction) -> Step:
    """Return the step of a load."""
    space, count, kind = parse_access(instruction.opcode)
    target, address, *_ = instruction.operands
    registers = [expect_register(part) for part in _parts(target)]
    if space == "param":
        return _build_parameter_load(registers[0], address, kind)
    read, bits, load = read_address(address), TYPE_BITS[kind], load_global if space == "global" else load_shared

    def run(lanes: Lanes, active: Array | None) -> None:
        indices, addresses = lanes.indices(active), read(lanes)
        lanes.require_defined(active)
        values = load(lanes, indices, addresses[indices], bits, count, instruction.line)
        for place, register in enumerate(registers):
            column = np.ascontiguousarray(values[:, place])
            if active is not None:
                spread = np.zeros(lanes.count, column.dtype)
                spread[indices] = column
                column = spread
            lanes.write(register, to_bits(from_bits(column, _whole(kind)), _whole(kind), register.width), active)

    return run


def _whole(kind: str) -> str:
    """Return a type of the same bits that keeps them: signed, or without a meaning."""
    return kind if kind[0] == "s" else f"b{TYPE_BITS[kind]}"


def _build_parameter_load(register: Register, operand: Operand, kind: str) -> Step:
    if not isinstance(operand, Address) or not isinstance(operand.base, int) or operand.offset:
        raise UnknownOpcodeError(f"the operand {operand} is not a parameter")
    number = operand.base

    def run(lanes: Lanes, active: Array | None) -> None:
        bits = from_bits(lanes.parameters[number], _whole(kind))
        lanes.write(register, to_bits(bits, _whole(kind), register.width), active)

    return run


@builder("st")
def build_store(instruction: Instruction) -> Step:
    """Return the step of a store."""
    space, _, kind = parse_access(instruction.opcode)
    address, source, *_ = instruction.operands
    read, store = read_address(address), store_global if space == "global" else store_shared
    readers = [read_as(part, f"b{TYPE_BITS[kind]}") for part in _parts(source)]

    def run(lanes: Lanes, active: Array | None) -> None:
        indices, addresses = lanes.indices(active), read(lanes)
        lanes.require_defined(active)
        values = np.stack([lanes.spread(read_part(lanes))[indices] for read_part in readers], 1)
        if space == "global":
            lanes.require_defined(active)
        store(lanes, indices, addresses[indices], values, instruction.line)

    return run


# --- asynchronous copies


@builder("cp")
def build_copy(instruction: Instruction) -> Step:
    """Return the step of `cp.async`, and of committing copies as a group and waiting for groups.

    The source is read at once. Shared memory changes when the copy is waited for, not before: what is read without
    waiting is what was there.
    """
    _, kind, *modifiers = instruction.opcode.split(".")
    if kind != "async":
        raise UnknownOpcodeError("the machine does not know this copy")
    if modifiers == ["commit_group"]:
        return _commit
    if modifiers[0] in ("wait_group", "wait_all"):
        kept = 0 if modifiers[0] == "wait_all" else getattr(instruction.operands[0], "value", 0)
        return lambda lanes, active: _wait(lanes, active, kept, modifiers[0] == "wait_all")
    known = [modifier for modifier in modifiers if modifier in SPACES or _HINTS.fullmatch(modifier)]
    if not {"shared", "global"} <= set(modifiers) or known != modifiers:
        raise UnknownOpcodeError("the machine does not know this copy")
    target, source, size_operand, *rest = instruction.operands
    size = getattr(size_operand, "value", 0)
    read_target, read_source = read_address(target), read_address(source)
    read_valid = read_as(rest[0] if rest and "L2::cache_hint" not in modifiers else size_operand, "u32")

    def run(lanes: Lanes, active: Array | None) -> None:
        indices = lanes.indices(active)
        valid = lanes.spread(read_valid(lanes))[indices]
        addresses, targets = read_source(lanes)[indices], read_target(lanes)[indices]
        lanes.require_defined(active)
        data = np.zeros((len(indices), size), np.uint8)  # bytes behind the valid ones become 0
        for length in np.unique(valid[valid > 0]):
            which = np.flatnonzero(valid == length)
            data[which, : int(length)] = _load_bytes(
                lanes, indices[which], addresses[which], int(length), instruction.line
            )
        offsets = shared_offsets(lanes, indices, targets, size)
        groups, epochs = lanes.committed[indices], lanes.epochs[:, indices]
        lanes.copies.append(PendingCopy(indices, offsets, data, groups, epochs, instruction.line))

    return run


def _load_bytes(lanes: Lanes, indices: Array, addresses: Array, length: int, line: int) -> Array:
    values = load_global(lanes, indices, addresses, 32 if length % 4 == 0 else 8, max(1, length // 4), line)
    return values.view(np.uint8)


def _commit(lanes: Lanes, active: Array | None) -> None:
    lanes.committed[lanes.indices(active)] += 1


def _wait(lanes: Lanes, active: Array | None, kept: int, everything: bool) -> None:
    """Finish the copies of the active lanes, but for those of the last `kept` groups."""
    waiting = np.ones(lanes.count, bool) if active is None else active
    copies, lanes.copies = lanes.copies, []
    for copy in copies:
        finished, rest = copy.split(
            waiting[copy.lanes] & (everything | (copy.groups < lanes.committed[copy.lanes] - kept))
        )
        if len(rest.lanes):
            lanes.copies.append(rest)
        if len(finished.lanes):
            lanes.shared.scatter(finished.offsets, finished.data)
            _log_copy(lanes, finished)


def _log_copy(lanes: Lanes, copy: PendingCopy) -> None:
    """Log a copy as a write after every barrier between issue and wait, because it may happen at any time between."""
    now = lanes.epochs[:, copy.lanes]
    passed = (now - copy.epochs).max(1)
    for of_cta, of_warp in product(range(int(passed[0]) + 1), range(int(passed[1]) + 1)):
        epochs = np.minimum(copy.epochs + np.array([[of_cta], [of_warp]]), now)
        access = Access(copy.offsets, copy.data.shape[1], lanes.number[copy.lanes], epochs, copy.line, copy.data)
        lanes.shared.accesses.append(access)
