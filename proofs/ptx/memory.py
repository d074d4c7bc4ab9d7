"""Global and shared memory: bytes with bounds, alignment, and a log of who touched what.

Global addresses are made up: each storage of the call's tensors gets a window of 2^40 bytes of its own, so that an
offset that went wrong, such as one that overflowed 32 bits, lands in no tensor. The first megabyte of a window is left
free, so that an access a little before a tensor is reported as one of that tensor.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from proofs.ptx.values import UNSIGNED, Array

WINDOW_BITS = 40
FREE_BYTES = 1 << 20


class AccessError(Exception):
    """An access outside of memory, or not aligned to its width."""


@dataclass(frozen=True)
class Access:
    """What one instruction touched: a number of bytes from each offset on, by a thread, after some barriers."""

    offsets: Array
    size: int
    threads: Array  # numbered over all CTAs
    epochs: Array  # barriers that each thread had passed, of its CTA in the first row and of its warp in the second
    line: int
    written: Array | None = None  # what was written: (offsets, entries), or None for a read


@dataclass
class Region:
    """A run of bytes.

    Attributes:
        name: for messages.
        data: its bytes.
        base: what an address in it must be below the offset.
        accesses: every access so far, in order.
    """

    name: str
    data: Array
    base: int = 0
    accesses: list[Access] = field(default_factory=list)

    def view(self, bits: int) -> Array:
        """Return all whole entries of so many bits."""
        size = bits // 8
        return self.data[: len(self.data) // size * size].view(UNSIGNED[bits])

    def check(self, offsets: Array, size: int) -> None:
        """Refuse accesses outside of the bytes, and those that are not aligned to their size.

        Raises:
            AccessError: for the first such access.
        """
        outside = (offsets < 0) | (offsets + size > len(self.data))
        if outside.any():
            offset = int(offsets[outside.argmax()])
            raise AccessError(f"{size} bytes at offset {offset} of {self.name}, which has {len(self.data)} bytes")
        if ((offsets + self.base) % size).any():
            offset = int(offsets[((offsets + self.base) % size).argmax()])
            raise AccessError(f"{size} bytes at offset {offset} of {self.name} are not aligned")

    def gather(self, offsets: Array, bits: int, count: int) -> Array:
        """Return `count` entries of so many bits from each offset on, as (offsets, count)."""
        entries = (offsets // (bits // 8))[:, None] + np.arange(count)
        return self.view(bits)[entries]

    def scatter(self, offsets: Array, values: Array) -> None:
        """Write (offsets, count) entries from each offset on."""
        size = values.itemsize
        entries = (offsets // size)[:, None] + np.arange(values.shape[1])
        self.view(8 * size)[entries] = values


class GlobalMemory:
    """The storages of the tensors of a call."""

    def __init__(self) -> None:
        self.regions: list[Region] = []
        self._number_of: dict[int, int] = {}  # by the storage's true address
        self._kept: list[torch.Tensor] = []  # the regions are views of their memory

    def add(self, name: str, tensor: torch.Tensor) -> int:
        """Add a tensor, unless its storage is known. Returns its made-up address."""
        storage = tensor.untyped_storage()
        number = self._number_of.get(storage.data_ptr())
        if number is None:
            number = self._number_of[storage.data_ptr()] = len(self.regions)
            whole = torch.empty(0, dtype=torch.uint8).set_(storage)
            self._kept.append(whole)
            base = ((number + 1) << WINDOW_BITS) + FREE_BYTES + storage.data_ptr() % 256
            self.regions.append(Region(name, whole.numpy(), base))
        return self.regions[number].base + int(tensor.storage_offset()) * tensor.element_size()

    def find(self, addresses: Array, size: int) -> list[tuple[Region, Array, Array]]:
        """Return the regions of addresses: region, which of the addresses lie in it, and their offsets.

        Raises:
            AccessError: an access is outside of all regions, or not aligned.
        """
        signed = addresses.view(np.int64)
        numbers = (signed >> WINDOW_BITS) - 1
        found = []
        # Nearly always all are in one region.
        for number in numbers[:1] if len(numbers) and (numbers == numbers[0]).all() else np.unique(numbers):
            if not 0 <= number < len(self.regions):
                address = int(addresses[(numbers == number).argmax()])
                raise AccessError(f"{size} bytes at address {address:#x}, which belongs to no tensor")
            region = self.regions[number]
            which = np.flatnonzero(numbers == number)
            offsets = signed[which] - region.base
            region.check(offsets, size)
            found.append((region, which, offsets))
        return found
