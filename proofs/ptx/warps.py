"""Opcodes in which the threads of a warp work together: shuffles, votes, reductions and loads of small matrices."""

from collections.abc import Callable

import numpy as np

from proofs.ptx.accesses import load_shared, read_address, store_shared
from proofs.ptx.lanes import WARP, Lanes
from proofs.ptx.operation import UnknownOpcodeError, match_modifiers
from proofs.ptx.parser import Instruction, Vector
from proofs.ptx.steps import Step, builder, expect_register, read_as
from proofs.ptx.values import Array, from_bits, to_bits


class WarpError(Exception):
    """Threads that must take part in an instruction are elsewhere."""


def check_members(lanes: Lanes, active: Array | None, members: Array) -> None:
    """Refuse an instruction whose members, a bit for each thread of a warp, are not all there.

    Raises:
        WarpError: a live thread among the members does not take part, or a thread that takes part is not a member.
    """
    bit = (lanes.spread(members) >> (np.arange(lanes.count) % WARP).astype(np.uint32)) & np.uint32(1)
    taking_part = lanes.live if active is None else active
    warps = taking_part.reshape(-1, WARP).any(1).repeat(WARP)
    if (warps & lanes.live & ((bit == 1) != taking_part)).any():
        raise WarpError("not all threads of a warp that must take part are here")


def _shuffle_source(mode: str, lane: Array, b: Array, c: Array) -> tuple[Array, Array]:
    """Return from which lane of the warp each one reads, and whether that is in range. As in the PTX documentation."""
    b, clamp, segment = b & 31, c & 31, (c >> 8) & 31
    most, least = (lane & segment) | (clamp & ~segment), lane & segment
    if mode == "up":
        source = lane - b
        return source, source >= most
    source = {"down": lane + b, "bfly": lane ^ b, "idx": least | (b & ~segment)}[mode]
    return source, source <= most


@builder("shfl")
def build_shuffle(instruction: Instruction) -> Step:
    """Return the step of `shfl.sync`."""
    _, sync, mode, _ = instruction.opcode.split(".")
    if sync != "sync" or mode not in ("up", "down", "bfly", "idx"):
        raise UnknownOpcodeError("the machine does not know this shuffle")
    targets, operands = instruction.operands[:-4], instruction.operands[-4:]
    registers = [expect_register(target) for target in targets]
    readers = [read_as(operand, "u32") for operand in operands]

    def run(lanes: Lanes, active: Array | None) -> None:
        value, b, c, members = (read(lanes) for read in readers)
        check_members(lanes, active, members)
        lane = np.arange(lanes.count) % WARP
        source, in_range = _shuffle_source(mode, lane, b.astype(np.int64), c.astype(np.int64))
        source = np.where(in_range, source, lane) + np.arange(lanes.count) // WARP * WARP
        if active is not None and not active[source[active]].all():
            raise WarpError("a thread reads from one that does not take part")
        lanes.undefined = None if lanes.undefined is None else lanes.undefined[source]
        lanes.write(registers[0], lanes.spread(value)[source], active)
        for register in registers[1:]:
            lanes.write(register, in_range, active)

    return run


@builder("vote")
def build_vote(instruction: Instruction) -> Step:
    """Return the step of `vote.sync`: whether a predicate holds for all, for any, or a bit for each."""
    _, sync, mode, _ = instruction.opcode.split(".")
    if sync != "sync" or mode not in ("all", "any", "uni", "ballot"):
        raise UnknownOpcodeError("the machine does not know this vote")
    register = expect_register(instruction.operands[0])
    read, read_members = read_as(instruction.operands[1], "pred"), read_as(instruction.operands[2], "u32")

    def run(lanes: Lanes, active: Array | None) -> None:
        check_members(lanes, active, read_members(lanes))
        taking_part = (np.ones(lanes.count, bool) if active is None else active).reshape(-1, WARP)
        holds = lanes.spread(read(lanes)).reshape(-1, WARP)
        lanes.require_defined(active)
        every, some = (holds | ~taking_part).all(1), (holds & taking_part).any(1)
        if mode == "ballot":
            result = ((holds & taking_part) << np.arange(WARP, dtype=np.uint64)).sum(1).astype(np.uint32)
        else:
            result = {"all": every, "any": some, "uni": every | ~some}[mode]
        lanes.write(register, result.repeat(WARP), active)

    return run


@builder("bar")
def build_warp_barrier(instruction: Instruction) -> Step:
    """Return the step of `bar.warp.sync`, which orders the memory accesses of a whole warp."""
    (operand,) = instruction.operands
    read_members = read_as(operand, "u32")

    def run(lanes: Lanes, active: Array | None) -> None:
        check_members(lanes, active, read_members(lanes))
        here = np.ones(lanes.count, bool) if active is None else active
        if (here.reshape(-1, WARP).any(1, keepdims=True) & (here != lanes.live).reshape(-1, WARP)).any():
            raise WarpError("a barrier of a part of a warp")
        lanes.pass_barrier(here, of_warp=True)

    return run


_REDUCTIONS: dict[str, Callable[..., Array]] = {
    "add": np.add.reduce,
    "min": np.fmin.reduce,
    "max": np.fmax.reduce,
    "and": np.bitwise_and.reduce,
    "or": np.bitwise_or.reduce,
    "xor": np.bitwise_xor.reduce,
}


@builder("redux")
def build_reduction(instruction: Instruction) -> Step:
    """Return the step of `redux.sync`: one value of all threads of a warp."""
    _, sync, mode, *rest = instruction.opcode.split(".")
    (kind,) = match_modifiers(tuple(rest), "NaN", "abs")
    if sync != "sync" or mode not in _REDUCTIONS or "abs" in rest:
        raise UnknownOpcodeError("the machine does not know this reduction")
    register = expect_register(instruction.operands[0])
    read, read_members = read_as(instruction.operands[1], kind), read_as(instruction.operands[2], "u32")
    keeps_nan = "NaN" in rest

    def run(lanes: Lanes, active: Array | None) -> None:
        check_members(lanes, active, read_members(lanes))
        values = lanes.spread(read(lanes)).reshape(-1, WARP)
        if lanes.undefined is not None:  # one undefined value makes that of its whole warp undefined
            lanes.undefined = lanes.undefined.reshape(-1, WARP).any(1).repeat(WARP)
        if active is not None and (active.reshape(-1, WARP).any(1) != active.reshape(-1, WARP).all(1)).any():
            raise WarpError("a reduction by a part of a warp")
        result = _REDUCTIONS[mode](values, axis=1, dtype=values.dtype)
        if keeps_nan:
            result = np.where(np.isnan(values).any(1), np.float32("nan"), result)
        lanes.write(register, to_bits(result.repeat(WARP), kind, register.width), active)

    return run


@builder("activemask")
def build_active_mask(instruction: Instruction) -> Step:
    """Return the step of `activemask`: a bit for each thread of the warp that is here."""
    register = expect_register(instruction.operands[0])

    def run(lanes: Lanes, active: Array | None) -> None:
        here = (np.ones(lanes.count, bool) if active is None else active).reshape(-1, WARP)
        mask = (here << np.arange(WARP, dtype=np.uint64)).sum(1).astype(np.uint32)
        lanes.write(register, mask.repeat(WARP), active)

    return run


# --- small matrices: eight rows of 16 bytes each, of which every thread gets 4 bytes


def _row_threads(lanes: Lanes, matrix: int) -> tuple[Array, Array]:
    """Return the lane whose address is that of the row from which each lane gets its part, and the byte in this row."""
    lane = np.arange(lanes.count)
    return lane // WARP * WARP + 8 * matrix + lane % WARP // 4, lane % 4 * 4


def _check_whole_warps(lanes: Lanes, active: Array | None) -> None:
    check_members(lanes, active, np.array([0xFFFFFFFF], np.uint32))


@builder("ldmatrix")
def build_matrix_load(instruction: Instruction) -> Step:
    """Return the step of `ldmatrix` of 8 x 8 entries of 16 bits."""
    modifiers = instruction.opcode.split(".")[1:]
    if not {"sync", "aligned", "m8n8", "shared", "b16"} <= set(modifiers):
        raise UnknownOpcodeError("the machine does not know this load")
    transposed = "trans" in modifiers
    target, address = instruction.operands
    parts = target.parts if isinstance(target, Vector) else (expect_register(target),)
    registers = [expect_register(part) for part in parts]
    read = read_address(address)

    def run(lanes: Lanes, active: Array | None) -> None:
        _check_whole_warps(lanes, active)
        indices, addresses = lanes.indices(active), read(lanes)
        lanes.require_defined(active)
        for matrix, register in enumerate(registers):
            row_lane, byte = _row_threads(lanes, matrix)
            if not transposed:
                where = addresses[row_lane] + byte.astype(np.uint64)
                _check_rows(addresses[row_lane])
                values = load_shared(lanes, indices, where[indices], 32, 1, instruction.line)[:, 0]
            else:
                values = _load_transposed(lanes, indices, addresses, matrix, instruction.line)
            result = np.zeros(lanes.count, np.uint32)
            result[indices] = values
            lanes.write(register, result, active)

    return run


def _check_rows(addresses: Array) -> None:
    if (addresses % np.uint64(16)).any():
        raise WarpError("a row of a small matrix is not aligned to 16 bytes")


def _load_transposed(lanes: Lanes, indices: Array, addresses: Array, matrix: int, line: int) -> Array:
    lane = np.arange(lanes.count)
    halves = []
    for half in range(2):
        row_address = addresses[lane // WARP * WARP + 8 * matrix + lane % 4 * 2 + half]
        _check_rows(row_address)
        where = row_address + (lane % WARP // 4 * 2).astype(np.uint64)
        halves.append(load_shared(lanes, indices, where[indices], 16, 1, line)[:, 0].astype(np.uint32))
    return halves[0] | (halves[1] << np.uint32(16))


@builder("stmatrix")
def build_matrix_store(instruction: Instruction) -> Step:
    """Return the step of `stmatrix` of 8 x 8 entries of 16 bits."""
    modifiers = instruction.opcode.split(".")[1:]
    if not {"sync", "aligned", "m8n8", "shared", "b16"} <= set(modifiers):
        raise UnknownOpcodeError("the machine does not know this store")
    transposed = "trans" in modifiers
    address, source = instruction.operands
    parts = source.parts if isinstance(source, Vector) else (source,)
    read, readers = read_address(address), [read_as(part, "b32") for part in parts]

    def run(lanes: Lanes, active: Array | None) -> None:
        _check_whole_warps(lanes, active)
        indices, addresses = lanes.indices(active), read(lanes)
        lanes.require_defined(active)
        lane = np.arange(lanes.count)
        for matrix, read_part in enumerate(readers):
            values = lanes.spread(read_part(lanes))
            for half in range(2):
                row, column = lane % WARP // 4, lane % 4 * 2 + half
                if transposed:
                    row, column = column, row
                row_address = addresses[lane // WARP * WARP + 8 * matrix + row]
                _check_rows(row_address)
                where = (row_address + (2 * column).astype(np.uint64))[indices]
                entries = from_bits(values >> np.uint32(16 * half), "b16")[indices, None]
                store_shared(lanes, indices, where, entries, instruction.line)

    return run
