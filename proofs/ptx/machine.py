"""Execution: all lanes that stand at the lowest place of the program go first, until they meet others or part.

This is how threads that took different ways come together again as early as they can. A barrier holds threads until
all threads of their CTA that have not returned stand at it.
"""

from dataclasses import dataclass

import numpy as np

from proofs.ptx import accesses, warps  # noqa: F401 (they register their opcodes)
from proofs.ptx.errors import PtxError
from proofs.ptx.lanes import WARP, Lanes, UninitialisedError
from proofs.ptx.memory import AccessError, GlobalMemory, Region
from proofs.ptx.operation import UnknownOpcodeError
from proofs.ptx.parser import Immediate, Instruction, Label, Program
from proofs.ptx.races import find_race
from proofs.ptx.steps import BUILDERS, Step, build_arithmetic
from proofs.ptx.values import Array
from proofs.ptx.warps import WarpError

CONTROL = ("bra", "ret", "exit", "bar", "barrier")
LANES_AT_ONCE = 8192  # CTAs are run in groups of about so many threads


@dataclass
class Group:
    """Lanes that stand at one place; None stands for all lanes."""

    place: int
    lanes: Array | None


class Machine:
    """A program, ready to run.

    Raises:
        PtxError: the program has an opcode that the machine does not know.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._steps = [_build(instruction) for instruction in program.instructions]

    def run(self, grid: int, parameters: list[Array], memory: GlobalMemory, shared: int) -> None:
        """Run all CTAs of a launch, and look for races.

        Raises:
            PtxError: a thread did what it must not do.
        """
        at_once = max(1, LANES_AT_ONCE // self.program.threads)
        for start in range(0, grid, at_once):
            ctas = range(start, min(grid, start + at_once))
            lanes = Lanes(self.program, ctas, grid, parameters, memory, shared)
            with np.errstate(all="ignore"):
                self._run_lanes(lanes)
            self._refuse_races(lanes.shared, is_shared=True)
        for region in memory.regions:
            self._refuse_races(region, is_shared=False)

    def _refuse_races(self, region: Region, is_shared: bool) -> None:
        race = find_race(region, self.program.threads, is_shared)
        if race is not None:
            texts = {instruction.line: instruction.text for instruction in self.program.instructions}
            lines = "; ".join(f"line {line}: {texts[line]}" for line in race.lines)
            raise PtxError(f"nothing orders accesses to byte {race.byte} of {race.region}: {lines}")

    def _run_lanes(self, lanes: Lanes) -> None:
        groups, parked = [Group(0, None)], list[Group]()
        while groups or parked:
            if not groups:
                groups, parked = self._release(lanes, parked), []
            groups = _merge(groups, lanes)
            first, *others = groups
            limit = others[0].place if others else len(self._steps)
            groups = others + self._run_group(lanes, first, limit, parked)
        if lanes.live.any():
            raise PtxError("threads went past the last instruction")

    def _run_group(self, lanes: Lanes, group: Group, limit: int, parked: list[Group]) -> list[Group]:
        """Run lanes up to a place, or until they part or stop. Returns where they are."""
        place, mask = group.place, group.lanes
        while place < limit:
            instruction, step = self.program.instructions[place], self._steps[place]
            lanes.undefined = None
            try:
                active = mask if instruction.guard is None else _guard(lanes, instruction, mask)
                if step is not None:
                    if active is None or active.any():
                        step(lanes, active)
                    place += 1
                    continue
            except (AccessError, UninitialisedError, WarpError) as error:
                raise PtxError(str(error), instruction) from error
            name = instruction.opcode.split(".")[0]
            if name in ("bar", "barrier"):
                if not self._pass_barrier(lanes, mask):
                    parked.append(Group(place, mask))
                    return []
                place += 1
                continue
            goes = lanes.live if active is None else active
            stays = (lanes.live if mask is None else mask) & ~goes
            if name == "bra":
                target = self._find_target(instruction)
                if goes.any() and stays.any():
                    return [Group(place + 1, stays), Group(target, goes)]
                place = target if goes.any() else place + 1
                continue
            lanes.live = lanes.live & ~goes
            if not stays.any():
                return []
            place, mask = place + 1, stays
        return [Group(place, mask)] if place < len(self._steps) else []

    def _find_target(self, instruction: Instruction) -> int:
        label = instruction.operands[0]
        if not isinstance(label, Label) or label.name not in self.program.labels:
            raise PtxError("there is no such label", instruction)
        return self.program.labels[label.name]

    def _pass_barrier(self, lanes: Lanes, mask: Array | None) -> bool:
        """Pass a barrier if all live threads of the CTAs that stand at it are there."""
        here = (lanes.live if mask is None else mask).reshape(-1, lanes.threads)
        ctas = here.any(1)
        if (here[ctas] != lanes.live.reshape(-1, lanes.threads)[ctas]).any():
            return False
        lanes.pass_barrier(ctas.repeat(lanes.threads))
        return True

    def _release(self, lanes: Lanes, parked: list[Group]) -> list[Group]:
        """Let lanes that wait at barriers go on, where all threads of a CTA wait.

        Raises:
            PtxError: some threads of a CTA can never come, a warp stands at two barriers, or the barriers differ.
        """
        waiting = np.zeros(lanes.count, bool)
        barrier = np.full(lanes.count, -1)
        for group in parked:
            mask = lanes.live if group.lanes is None else group.lanes
            instruction = self.program.instructions[group.place]
            split = mask.reshape(-1, WARP).any(1) & (mask != lanes.live).reshape(-1, WARP).any(1)
            if split.any():
                raise PtxError("a part of a warp waits at a barrier", instruction)
            waiting |= mask
            barrier[mask] = _barrier_number(instruction)
        by_cta = barrier.reshape(-1, lanes.threads)
        most = np.where(lanes.live.reshape(-1, lanes.threads), by_cta, -1).max(1, keepdims=True)
        if (waiting != lanes.live).any() or ((by_cta != most) & lanes.live.reshape(-1, lanes.threads)).any():
            raise PtxError("threads wait for others that never come", self.program.instructions[parked[0].place])
        lanes.pass_barrier(waiting)
        return [Group(group.place + 1, group.lanes) for group in parked]


def _barrier_number(instruction: Instruction) -> int:
    number = instruction.operands[0] if instruction.operands else Immediate(0)
    return number.value if isinstance(number, Immediate) else 0


def _build(instruction: Instruction) -> Step | None:
    """Return the step of an instruction, or None where it changes the order of execution.

    Raises:
        PtxError: the machine does not know the opcode.
    """
    name, *modifiers = instruction.opcode.split(".")
    try:
        if name in CONTROL and modifiers != ["warp", "sync"]:
            _check_control(instruction, modifiers)
            return None
        return BUILDERS.get(name, build_arithmetic)(instruction)
    except (UnknownOpcodeError, ValueError) as error:
        raise PtxError(str(error), instruction) from error


def _check_control(instruction: Instruction, modifiers: list[str]) -> None:
    name = instruction.opcode.split(".")[0]
    waits = name in ("bar", "barrier")
    known = "sync" in modifiers and set(modifiers) <= {"cta", "sync", "aligned"} if waits else set(modifiers) <= {"uni"}
    if not known or (waits and (instruction.guard is not None or len(instruction.operands) > 1)):
        raise UnknownOpcodeError("the machine does not know this form")


def _guard(lanes: Lanes, instruction: Instruction, mask: Array | None) -> Array | None:
    """Return for which lanes an instruction counts."""
    assert instruction.guard is not None
    holds: Array = lanes.spread(lanes.read(instruction.guard)) != instruction.negated
    lanes.require_defined(mask)
    if mask is not None:
        return holds & mask
    return None if holds.all() else holds


def _merge(groups: list[Group], lanes: Lanes) -> list[Group]:
    """Put groups that stand at one place together, the lowest first."""
    places = dict[int, Group]()
    for group in sorted(groups, key=lambda group: group.place):
        known = places.get(group.place)
        if known is None:
            places[group.place] = group
        elif known.lanes is not None and group.lanes is not None:
            merged = known.lanes | group.lanes
            places[group.place] = Group(group.place, None if merged.all() else merged)
    return list(places.values())
