"""Runs one program of a compiled kernel, as far as its control flow, addresses and waiting are concerned.

All threads of the program advance together; where they part, those at the lowest address go first. Integers and
predicates are computed (`integer_unit.py`), floating-point numbers are not. A predicate that depends on a loaded
floating-point number counts as true where it guards an instruction, and as false where it guards a jump or an exit.

Time is that of the first warp alone on its scheduler: an instruction is issued after the cycles that the compiler put
between it and the one before, and after the scoreboard barriers that it waits for. A barrier is released when a
latency has passed.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from bench.sass.integer_unit import HANDLERS
from bench.sass.integers import TRUE, UNKNOWN, Bits, Bools, Predicate
from bench.sass.memory import GlobalMemory, TensorInfo
from bench.sass.program import Instruction, Program
from bench.sass.registers import Registers, following

MOST_STEPS = 2_000_000
SPECIAL_REGISTERS = {"SR_TID.X": "thread", "SR_CTAID.X": "x", "SR_CTAID.Y": "y", "SR_CTAID.Z": "z", "SR_LANEID": "lane"}
JUMPS = frozenset({"BRA", "EXIT", "CALL", "RET", "JMP"})
LOADS, STORES = frozenset({"LDG", "LDGSTS", "LD"}), frozenset({"STG", "ST", "RED", "ATOMG", "ATOM"})


@dataclass(frozen=True)
class Latencies:
    """Cycles from issue to result. Only those of memory matter much; the others are of the usual size."""

    dram: float
    l2: float
    shared: float = 30
    shuffle: float = 25
    special: float = 25
    barrier: float = 25
    operands: float = 12  # until the operands of a store or load have been read


@dataclass(frozen=True)
class Parameter:
    """A launch parameter: its place in the bank of constants, its value, and its size in bytes."""

    offset: int
    value: int
    size: int


@dataclass
class Trace:
    """What one program did. Instructions are counted once for each warp that issues them."""

    opcodes: Counter[str] = field(default_factory=Counter)
    cycles: float = 0.0  # of the first warp
    dram_waits: int = 0  # how often it waited for a load's first touch
    most_in_flight: int = 0  # bytes of the program's loads that were on their way at one time
    unknown: Counter[str] = field(default_factory=Counter)  # jumps that depend on numbers that are not computed

    @property
    def instructions(self) -> int:
        """Return the instructions of all warps."""
        return self.opcodes.total()


class Machine:
    """One program: its registers, its memory and its clock."""

    def __init__(
        self,
        program: Program,
        warps: int,
        parameters: list[Parameter],
        tensors: list[TensorInfo],
        place: tuple[int, int, int],
        latencies: Latencies,
    ) -> None:
        """Prepare the program at a place of the launch grid."""
        constants = dict(program.constants)
        for parameter in parameters:
            for word in range(max(1, parameter.size // 4)):
                constants[parameter.offset + 4 * word] = parameter.value >> 32 * word & 0xFFFFFFFF
        self.program, self.threads, self.latencies = program, 32 * warps, latencies
        self.registers = Registers(constants)
        self.memory = GlobalMemory(tensors)
        self.trace = Trace()
        numbers = np.arange(self.threads, dtype=np.uint32)
        self._everyone = np.ones(self.threads, np.bool_)
        self._end = len(program.instructions)
        self.registers.everyone = self._everyone
        self._special = {"thread": numbers, "lane": numbers % 32} | {
            axis: np.array([number], np.uint32) for axis, number in zip("xyz", place, strict=True)
        }
        self._clock = 0.0
        self._released = [0.0] * 6  # when each scoreboard barrier is released
        self._from_dram = [False] * 6
        self._groups: list[float] = []  # when each group of asynchronous copies has arrived
        self._group_end = 0.0
        self._in_flight: list[tuple[float, int]] = []
        self._returns: list[int] = []
        self._stack: dict[str, list[Bits] | None] = {}

    def run(self) -> Trace:
        """Run until all threads have exited.

        Raises:
            RuntimeError: if that does not happen.
        """
        here, positions = 0, None  # positions of the threads, where they have parted
        for _ in range(MOST_STEPS):
            if positions is not None:
                here = int(positions.min())
            if here >= self._end:
                self.trace.cycles = self._clock
                return self.trace
            active = self._everyone if positions is None else positions == here
            jump = self._step(self.program.instructions[here], here, active)
            if positions is None and (jump is None or jump[0].all()):
                here = here + 1 if jump is None else jump[1]
                continue
            positions = np.full(self.threads, here) if positions is None else positions
            positions[active] = here + 1
            if jump is not None:
                positions[jump[0]] = jump[1]
            if (positions == positions[0]).all():
                here, positions = int(positions[0]), None
        raise RuntimeError(f"a program did not end within {MOST_STEPS} instructions")

    # --- one instruction

    def _step(self, instruction: Instruction, here: int, active: Bools) -> tuple[Bools, int] | None:
        """Execute an instruction. Returns which threads jump, and where to; None where none does."""
        guard = TRUE if instruction.guard is None else self.registers.predicate(instruction.guard)
        lanes = active if instruction.guard is None else active & guard.true
        together = active is self._everyone
        warps = self.threads // 32 if together else int(active.reshape(-1, 32).any(1).sum())
        self.trace.opcodes[instruction.name] += warps
        timed = together or bool(active[:32].any())
        if timed:
            self._wait(instruction)
        jump, latency, from_dram = None, 0.0, False
        if instruction.opcode in JUMPS:
            jump = self._jump(instruction, here, active, guard)
        elif instruction.opcode in LOADS or instruction.opcode in STORES:
            latency, from_dram = self._access(instruction, lanes)
        else:
            self._compute(instruction, lanes)
            latency = self._latency(instruction)
        if timed:
            self._issue(instruction, latency, from_dram)
        return jump

    def _jump(self, instruction: Instruction, here: int, active: Bools, guard: Predicate) -> tuple[Bools, int] | None:
        for operand in instruction.operands:
            if operand.kind == "predicate":
                other = self.registers.predicate(operand)
                guard = Predicate(guard.true & other.true, guard.false | other.false)
        if not guard.known:
            self.trace.unknown[instruction.opcode] += 1
        lanes = active & ~guard.false
        if not lanes.any():
            return None
        if instruction.opcode == "EXIT":
            return lanes, self._end
        if instruction.opcode == "RET":
            return lanes, self._returns.pop()
        if instruction.opcode == "CALL":
            self._returns.append(here + 1)
        label = next(operand.name for operand in instruction.operands if operand.kind == "label")
        target = self.program.labels[label]
        return lanes, self._end if target == here else target

    def _access(self, instruction: Instruction, lanes: Bools) -> tuple[float, bool]:
        is_store = instruction.opcode in STORES
        spaces = [operand for operand in instruction.operands if operand.kind == "address"]
        for operand in instruction.operands[1:]:
            if operand.kind == "predicate" and instruction.opcode == "LDGSTS":
                lanes = lanes & self.registers.predicate(operand).true
        addresses = self.registers.address(spaces[-1].name)
        count, is_new = self.memory.access(addresses, instruction.width, lanes, is_store)
        if is_store:
            return self.latencies.operands, False
        if instruction.opcode == "LDG":
            known = self.memory.read_integers(addresses, instruction.width, lanes)
            width = max(1, instruction.width // 4)
            self.registers.write_words(instruction.operands[0], known, width, lanes)
        latency = self.latencies.dram if is_new else self.latencies.l2
        if count:
            self._in_flight = [(end, size) for end, size in self._in_flight if end > self._clock]
            self._in_flight.append((self._clock + latency, count))
            total = sum(size for _, size in self._in_flight)
            self.trace.most_in_flight = max(self.trace.most_in_flight, total)
        if instruction.opcode == "LDGSTS":
            self._group_end = max(self._group_end, self._clock + latency)
        return (latency, is_new) if count else (self.latencies.operands, False)

    def _compute(self, instruction: Instruction, lanes: Bools) -> None:
        if instruction.opcode in ("S2R", "S2UR"):
            name = SPECIAL_REGISTERS.get(instruction.operands[1].name)
            value = self._special[name] if name else np.zeros(1, np.uint32)
            self.registers.write(instruction.operands[0].name, value, lanes)
        elif instruction.opcode in ("STL", "LDL"):
            self._spill(instruction, lanes)
        elif handler := HANDLERS.get(instruction.opcode):
            handler(self.registers, instruction, lanes)
        else:
            self._forget(instruction, lanes)

    def _spill(self, instruction: Instruction, lanes: Bools) -> None:
        """Keep a spilled register, or bring it back. Its place on the stack is always written in the same way."""
        place = next(operand.name for operand in instruction.operands if operand.kind == "address")
        register = next(operand for operand in instruction.operands if operand.kind == "register")
        words = max(1, instruction.width // 4)
        if instruction.opcode == "LDL":
            self.registers.write_words(register, self._stack.get(place), words, lanes)
            return
        values = [self.registers.read(following(register.name, word)) for word in range(words)]
        known = [value for value in values if value is not None]
        self._stack[place] = known if len(known) == words else None

    def _forget(self, instruction: Instruction, lanes: Bools) -> None:
        """Make the destinations of an instruction unknown whose result is not computed."""
        for operand in instruction.operands[:2]:
            if operand.kind == "predicate":
                self.registers.write_predicate(operand.name, UNKNOWN, lanes)
            elif operand.kind == "register":
                matrices = next((int(part) for part in instruction.modifiers if part in ("2", "4")), 1)
                words = {"LDSM": matrices, "HMMA": 4}.get(instruction.opcode, max(1, instruction.width // 4))
                self.registers.write_words(operand, None, words, lanes)
                return
            else:
                return

    # --- the clock

    def _wait(self, instruction: Instruction) -> None:
        for barrier in instruction.waits:
            if self._released[barrier] > self._clock:
                self._clock = self._released[barrier]
                self.trace.dram_waits += self._from_dram[barrier]
        if instruction.opcode == "DEPBAR" and self._groups:
            left = instruction.operands[1].number or 0 if len(instruction.operands) > 1 else 0
            arrived = self._groups[: len(self._groups) - left]
            if arrived and max(arrived) > self._clock:
                self._clock = max(arrived)
                self.trace.dram_waits += 1
            self._groups = self._groups[len(arrived) :]

    def _issue(self, instruction: Instruction, latency: float, from_dram: bool) -> None:
        if instruction.sets is not None:
            self._released[instruction.sets] = max(self._released[instruction.sets], self._clock + latency)
            self._from_dram[instruction.sets] = from_dram
        if instruction.frees is not None:
            freed = self._clock + self.latencies.operands
            self._released[instruction.frees] = max(self._released[instruction.frees], freed)
        if instruction.opcode == "LDGDEPBAR":
            self._groups.append(self._group_end)
        self._clock += max(1, instruction.stall)
        if instruction.opcode == "BAR":
            self._clock += self.latencies.barrier

    def _latency(self, instruction: Instruction) -> float:
        name = instruction.opcode
        if name in ("LDS", "LDSM", "STS"):
            return self.latencies.shared
        if name == "SHFL":
            return self.latencies.shuffle
        return self.latencies.special
