"""Global memory as a kernel's accesses see it: which tensor, how many bytes, which sectors for the first time."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from bench.sass.integers import Bits, Bools, Long

SECTOR = 32  # bytes that DRAM and the caches move at least
SPACING = 1 << 44  # between the addresses of two tensors, so that an address names its tensor
UNKNOWN_ADDRESS = "unknown address"  # stands for the tensor where an address was not computed
WIDE = 16  # bytes of a thread's access that count as wide


@dataclass(frozen=True)
class TensorInfo:
    """What must be known about a tensor argument: bytes from its first to its last element, and its kind of numbers.

    Attributes:
        elements_bytes: the bytes of its elements, without what lies between rows.
        integers: whether it holds integers. They are read as 1: a class that exists, a position that is kept.
        itemsize: bytes of an element.
    """

    name: str
    span_bytes: int
    elements_bytes: int
    integers: bool
    itemsize: int


@dataclass
class Traffic:
    """What a program moved of one tensor in one direction, in bytes."""

    requested: int = 0  # what several threads of an access share counts once
    wide: int = 0
    sectors: int = 0  # bytes of the sectors of each access of a warp
    touched: set[int] = field(default_factory=set)

    @property
    def first(self) -> int:
        """Return the bytes of the sectors that were touched, each counted once."""
        return SECTOR * len(self.touched)


class GlobalMemory:
    """The tensors of a launch, and the traffic of one program."""

    def __init__(self, tensors: Iterable[TensorInfo]) -> None:
        """Place the tensors."""
        self.tensors = list(tensors)
        self.loads: dict[str, Traffic] = {}
        self.stores: dict[str, Traffic] = {}
        self.cached: frozenset[str] = frozenset()  # tensors that other programs have brought into the L2 cache

    @staticmethod
    def base(index: int) -> int:
        """Return the address of the first byte of a tensor."""
        return (index + 1) * SPACING

    def access(self, addresses: Long | None, width: int, lanes: Bools, is_store: bool) -> tuple[int, bool]:
        """Record an access of some threads. Returns its bytes, and whether any of them is touched for the first time.

        Raises:
            ValueError: where an address lies in no tensor.
        """
        book = self.stores if is_store else self.loads
        count = int(lanes.sum())
        if not count:
            return 0, False
        if addresses is None:
            traffic = book.setdefault(UNKNOWN_ADDRESS, Traffic())
            traffic.requested += width * count
            traffic.sectors += SECTOR * count
            return width * count, True
        where = np.broadcast_to(addresses, lanes.shape)[lanes]
        index = int(where[0]) // SPACING - 1
        if not 0 <= index < len(self.tensors) or int(where.max()) // SPACING - 1 != index:
            raise ValueError(f"address {int(where[0]):#x} lies in no tensor")
        tensor = self.tensors[index]
        offsets = where - np.uint64(self.base(index))
        if int(offsets.max()) + width > tensor.span_bytes:
            raise ValueError(f"byte {int(offsets.max()) + width} of {tensor.name}, which has {tensor.span_bytes}")
        traffic = book.setdefault(tensor.name, Traffic())
        first, last = offsets // np.uint64(SECTOR), (offsets + np.uint64(width - 1)) // np.uint64(SECTOR)
        sectors = set(first.tolist()) | set(last.tolist())
        warps = np.flatnonzero(lanes) // 32
        ends = np.concatenate([first, last]) + (np.tile(warps, 2).astype(np.uint64) << np.uint64(48))
        distinct = width * len(np.unique(offsets))
        traffic.requested += distinct
        traffic.wide += distinct if width >= WIDE else 0
        traffic.sectors += SECTOR * len(np.unique(ends))
        is_new = tensor.name not in self.cached and not sectors <= traffic.touched
        traffic.touched |= sectors
        return width * count, is_new

    def read_integers(self, addresses: Long | None, width: int, lanes: Bools) -> list[Bits] | None:
        """Return the registers that a load of some threads fills, where the tensor holds integers; else None."""
        if addresses is None or not lanes.any():
            return None
        index = int(np.broadcast_to(addresses, lanes.shape)[lanes][0]) // SPACING - 1
        if not 0 <= index < len(self.tensors) or not self.tensors[index].integers:
            return None
        itemsize = self.tensors[index].itemsize
        content = np.zeros(max(4, width), np.uint8)
        content[:width:itemsize] = 1
        return [np.array([word], np.uint32) for word in content.view(np.uint32)]
