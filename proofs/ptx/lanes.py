"""The threads of some CTAs, in lockstep: a lane is a thread, and a register holds an entry for each lane.

An instruction is carried out for all lanes at once; `active` says for which it counts (None: for all).
"""

import numpy as np

from proofs.ptx.memory import GlobalMemory, Region
from proofs.ptx.parser import Program, Register
from proofs.ptx.values import UNSIGNED, Array

WARP = 32
SHARED_ALIGNMENT = 128
POISON = 0xFF  # a byte of shared memory before the first write; four of them are a NaN


class UninitialisedError(Exception):
    """A register was used before it was written."""


class Lanes:
    """The state of the threads of a run of CTAs.

    Attributes:
        threads: of a CTA.
        count: of all lanes.
        cta: index of each lane's CTA within this run.
        number: of each lane's thread among those of all CTAs of the launch.
        live: which lanes have not returned.
        epochs: barriers that each lane has passed, of its CTA in the first row and of its warp in the second.
        memory: global memory.
        shared: the shared memory of all CTAs, one after the other.
        copies: asynchronous copies that are under way.
        committed: groups of copies that each lane has committed.
    """

    def __init__(
        self, program: Program, ctas: range, grid: int, parameters: list[Array], memory: GlobalMemory, shared: int
    ) -> None:
        self.threads, self.count = program.threads, program.threads * len(ctas)
        lane = np.arange(self.count)
        self.cta, thread = lane // self.threads, lane % self.threads
        self.number = ctas.start * self.threads + lane
        self.live = np.ones(self.count, bool)
        self.epochs = np.zeros((2, self.count), np.int64)
        self.parameters = parameters
        self.memory = memory
        self.shared_bytes = shared
        self.shared_stride = shared + -shared % SHARED_ALIGNMENT
        self.shared = Region("shared memory", np.full(self.shared_stride * len(ctas), POISON, np.uint8))
        self.copies: list[PendingCopy] = []
        self.committed = np.zeros(self.count, np.int64)
        self._bits: dict[str, Array] = {
            "%tid.x": thread.astype(np.uint32),
            "%ctaid.x": (ctas.start + self.cta).astype(np.uint32),
            "%ntid.x": np.array([self.threads], np.uint32),
            "%nctaid.x": np.array([grid], np.uint32),
            "%laneid": (thread % WARP).astype(np.uint32),
            "%warpid": (thread // WARP).astype(np.uint32),
        }
        self._written: dict[str, Array] = {}  # of registers that only some lanes have written: which
        # Which lanes have read an undefined value in this instruction; None for no lane. Compilers let threads compute
        # with what they have not written, as long as the result is not used.
        self.undefined: Array | None = None

    def read(self, register: Register) -> Array:
        """Return the bits of a register: an entry for each lane, or one for all.

        Lanes that have not written it are added to `undefined`. All of their bits are 1, which is a NaN.
        """
        bits = self._bits.get(register.name)
        if bits is None:
            self.undefined = np.ones(self.count, bool)
            return _poison(register)
        written = self._written.get(register.name)
        if written is not None:
            self.undefined = ~written if self.undefined is None else self.undefined | ~written
        return bits

    def write(self, register: Register, bits: Array, active: Array | None) -> None:
        """Write the bits of a register in the active lanes. What came from undefined values is undefined."""
        name = register.name
        if register.width == 0:
            return
        if active is None and self.undefined is None:
            self._bits[name] = bits
            self._written.pop(name, None)
            return
        active = np.ones(self.count, bool) if active is None else active
        before = self._bits.get(name)
        if before is None:
            before, written = _poison(register), np.zeros(self.count, bool)
        else:
            written = self._written.get(name, np.ones(self.count, bool))
        written = np.where(active, True if self.undefined is None else ~self.undefined, written)
        self._bits[name] = np.where(active, bits, before)
        self._written[name] = written
        if written.all():
            del self._written[name]

    def take_undefined(self) -> Array | None:
        """Return `undefined` and begin anew."""
        undefined, self.undefined = self.undefined, None
        return undefined

    def require_defined(self, active: Array | None) -> None:
        """Refuse the use of an undefined value by an active lane.

        Raises:
            UninitialisedError: it has no value there.
        """
        undefined = self.take_undefined()
        if undefined is not None and (undefined if active is None else undefined & active).any():
            raise UninitialisedError("a thread uses a register that it has not written")

    def pass_barrier(self, passing: Array, of_warp: bool = False) -> None:
        """Count a barrier of their CTA, or of their warp, for the lanes that pass it."""
        self.epochs = self.epochs.copy()  # logged accesses may hold the counts so far
        self.epochs[int(of_warp)] += passing

    def indices(self, active: Array | None) -> Array:
        """Return the numbers of the active lanes."""
        return np.arange(self.count) if active is None else np.flatnonzero(active)

    def spread(self, values: Array) -> Array:
        """Return an entry for each lane, where there may be one for all."""
        return np.broadcast_to(values, (self.count, *values.shape[1:]))


def _poison(register: Register) -> Array:
    return np.ones(1, np.bool_) if register.width == 1 else ~np.zeros(1, UNSIGNED[register.width])


class PendingCopy:
    """An asynchronous copy to shared memory, that has been issued by some lanes and not been waited for by all."""

    def __init__(self, lanes: Array, offsets: Array, data: Array, groups: Array, epochs: Array, line: int) -> None:
        self.lanes, self.offsets, self.data = lanes, offsets, data
        self.groups, self.epochs, self.line = groups, epochs, line

    def split(self, done: Array) -> tuple["PendingCopy", "PendingCopy"]:
        """Return the part of the lanes for which it is done, and the rest."""
        finished, rest = (
            PendingCopy(
                self.lanes[part],
                self.offsets[part],
                self.data[part],
                self.groups[part],
                self.epochs[:, part],
                self.line,
            )
            for part in (done, ~done)
        )
        return finished, rest
