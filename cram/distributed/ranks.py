"""The ranks of a run: processes with the same weights, each of which computes a share of the rows of every update.

Rank 0 leads: it alone reads the clock and decides what is done next. `order` carries out a function on every rank, with
the arguments of rank 0, so that nothing is decided twice and no rank waits for something that another one does not do.
Inside of such a function all ranks take part in the same exchanges, in the same order.

Two groups of processes are kept apart: `host` exchanges small figures between the hosts by gloo, and `device` exchanges
tensors of the model, by NCCL on GPUs and by gloo on CPUs. An exchange of the one never waits for one of the other.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import orjson
import torch
import torch.distributed as dist
from torch import Tensor

from cram.distributed.launch import Launch
from cram.machine.device import synchronize

PACKET = 4096  # bytes of a message that need one exchange; a longer one needs two
_LENGTH = 8  # bytes of them that hold the length


class Pending(Protocol):
    """An exchange under way."""

    def wait(self) -> Any:
        """Wait for it; on a GPU, let the device wait for it."""
        ...


class Ranks:
    """All ranks of a run as one of them sees them. A process that is alone is rank 0 of 1, and exchanges nothing.

    Args:
        launch: which rank this process is.
        device: that this rank computes on.
        host: group for figures on the host; None for a process that is alone.
        group: group for tensors on the device.

    Attributes:
        rank: of this process. size: number of ranks. local_size: ranks on this node.
        backend: `nccl` or `gloo`; empty for a process that is alone.
        failed: whether an order has ended with an error on this rank.
        waited: seconds that this rank has waited for others inside of updates.
        state: what this rank is doing, and since when by `time.monotonic`; the watch reads it.
    """

    def __init__(
        self,
        launch: Launch | None = None,
        device: torch.device | None = None,
        host: dist.ProcessGroup | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        launch = launch or Launch()
        self.rank, self.size, self.local_size = launch.rank, launch.size, launch.local_size
        self.device = device or torch.device("cpu")
        self._host, self._group = host, group
        self.backend = dist.get_backend(group) if group is not None else ""
        self.failed = False
        self.waited = 0.0
        self.state: tuple[str, float] = ("starting", time.monotonic())
        self._inside = False  # whether an order is being carried out

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether this is the only rank."""
        return self.size == 1

    def enter(self, state: str) -> None:
        """Say what this rank does from now on. Called again, it shows that the work is going on."""
        self.state = (state, time.monotonic())

    @contextmanager
    def doing(self, state: str) -> Iterator[None]:
        """Say what this rank does in the `with` block."""
        before = self.state[0]
        self.enter(state)
        try:
            yield
        finally:
            self.enter(before)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        began, in_update = time.monotonic(), self.state[0] == "updating"
        with self.doing("waiting for other ranks"):
            yield
        if in_update:
            self.waited += time.monotonic() - began

    @contextmanager
    def order(self, name: str, arguments: Sequence[Any], facts: dict[str, Any]) -> Iterator[None]:
        """Let all ranks carry out a function; the `with` block does it on this rank.

        Args:
            name: of the function. arguments: JSON values. facts: of the run, as JSON, which the others take over first.
        """
        if not (self._inside or self.alone):
            self.spread({"do": name, "arguments": list(arguments), "facts": facts})
        with self.inside():
            yield

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Carry out an order in the `with` block: all ranks are there already, and calls give no orders."""
        before, self._inside = self._inside, True
        try:
            yield
        except BaseException:
            self.failed = True
            raise
        finally:
            self._inside = before

    def receive(self) -> dict[str, Any]:
        """Wait for the next order of rank 0."""
        with self.doing("waiting for an order"):
            order: dict[str, Any] = self.spread(None)
        return order

    def spread(self, message: Any) -> Any:
        """Give a JSON value of rank 0 to all ranks; what the others pass is not looked at."""
        if self.alone:
            return message
        data = orjson.dumps(message) if self.leads else b""
        packet = torch.zeros(PACKET, dtype=torch.uint8)
        head = len(data).to_bytes(_LENGTH, "little") + data[: PACKET - _LENGTH]
        if self.leads:
            packet[: len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8)
        dist.broadcast(packet, 0, group=self._host)
        received = packet.numpy().tobytes()
        length = int.from_bytes(received[:_LENGTH], "little")
        rest = length - (PACKET - _LENGTH)
        if rest <= 0:
            return orjson.loads(received[_LENGTH : _LENGTH + length])
        more = torch.empty(rest, dtype=torch.uint8)
        if self.leads:
            more = torch.frombuffer(bytearray(data[PACKET - _LENGTH :]), dtype=torch.uint8)
        dist.broadcast(more, 0, group=self._host)
        return orjson.loads(received[_LENGTH:] + more.numpy().tobytes())

    def gather(self, value: Any) -> list[Any]:
        """Give a JSON value of each rank to all ranks, in the order of the ranks."""
        if self.alone:
            return [value]
        data = orjson.dumps(value)
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(data)
        with self._waiting():
            dist.all_reduce(lengths, group=self._host)
            rows = torch.zeros(self.size, int(lengths.max()), dtype=torch.uint8)
            rows[self.rank, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            dist.all_reduce(rows, group=self._host)
        return [
            orjson.loads(row[:length].numpy().tobytes()) for row, length in zip(rows, lengths.tolist(), strict=True)
        ]

    def largest(self, values: Tensor) -> Tensor:
        """Give each of some values on the host the largest one that it has on any rank."""
        if not self.alone:
            with self._waiting():
                dist.all_reduce(values, dist.ReduceOp.MAX, group=self._host)
        return values

    def wait(self) -> None:
        """Wait until all ranks have come here."""
        self.largest(torch.zeros(1))

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over all ranks, in place: on the host or on the device, where it lies."""
        if not self.alone:
            on_host = tensor.device.type == "cpu"
            with self._waiting():
                dist.all_reduce(tensor, group=self._host if on_host else self._group)
        return tensor

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Give a tensor of one rank to all ranks, in place."""
        if not self.alone:
            on_host = tensor.device.type == "cpu"
            dist.broadcast(tensor, source, group=self._host if on_host else self._group)
        return tensor

    def spread_tensors(self, tensors: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Give named tensors of rank 0, on the host, to all ranks; None on the others."""
        tensors = tensors or {}
        if self.alone:
            return tensors
        kinds = [[name, str(value.dtype).removeprefix("torch."), list(value.shape)] for name, value in tensors.items()]
        received = {}
        for name, dtype, shape in self.spread(kinds):
            buffer = tensors[name].contiguous() if self.leads else torch.empty(shape, dtype=getattr(torch, dtype))
            if buffer.numel():
                self.broadcast(buffer.view(-1).view(torch.uint8))  # gloo does not know every dtype
            received[name] = buffer
        return received

    def reduce_scatter(self, flat: Tensor) -> list[Pending]:
        """Begin to add up a tensor over all ranks, so that each rank has the sum of its own part.

        Args:
            flat: (size * part), contiguous, on the device. Afterwards `own(flat)` is the sum, and the other parts hold
                anything.
        """
        parts = flat.chunk(self.size)
        if self.backend == "nccl":
            work = dist.reduce_scatter_tensor(self.own(flat), flat, group=self._group, async_op=True)
            return [work]
        # gloo's reduce_scatter_tensor takes four times as long as a reduction to each rank.
        return [dist.reduce(part, owner, group=self._group, async_op=True) for owner, part in enumerate(parts)]

    def all_gather(self, flat: Tensor) -> list[Pending]:
        """Begin to give each rank's part of a tensor, (size * part), contiguous, on the device, to all ranks."""
        if self.backend == "nccl":
            return [dist.all_gather_into_tensor(flat, self.own(flat), group=self._group, async_op=True)]
        parts = flat.chunk(self.size)
        return [dist.broadcast(part, owner, group=self._group, async_op=True) for owner, part in enumerate(parts)]

    def open_device_group(self) -> None:
        """Do each kind of exchange between devices once.

        NCCL connects GPUs in the first exchange of a kind, and takes memory for it outside of torch's. Before the
        micro-batch is fitted into the memory this memory is free, and a connection that cannot be made is named early.
        """
        if self.alone:
            return
        flat = torch.ones(self.size, device=self.device)
        self.finish(self.reduce_scatter(flat))
        self.finish(self.all_gather(flat))
        self.sum(self.broadcast(flat))
        synchronize(self.device)

    def finish(self, pending: Sequence[Pending]) -> None:
        """Wait for exchanges; on a GPU, let the device wait."""
        with self._waiting():
            for work in pending:
                work.wait()

    def own(self, flat: Tensor) -> Tensor:
        """This rank's part of a tensor of (size * part)."""
        return flat.chunk(self.size)[self.rank]


ALONE = Ranks()
