"""The key-value store where the ranks meet before they form groups: torchrun hosts it, or else rank 0 does."""

import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import orjson
from torch.distributed import DistError, DistNetworkError, TCPStore  # type: ignore[attr-defined]

from cram.distributed.launch import Launch
from cram.errors import CramError

CONNECT = 300.0  # seconds until the host of the store must be there: ranks start at the same time, on several nodes
FOUND = 30.0  # the same where torchrun hosts it, which has the store before it starts any rank
POLL = 0.2  # seconds between two looks for a key


def hosted_by_torchrun() -> bool:
    """Whether a process of torchrun hosts the store, and not rank 0."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


class Board:
    """A connection to the store, for values in JSON. A thread needs a connection of its own.

    Args:
        hosts: whether this process shall host the store.
        number: of meetings that this process has had before.
        timeout: seconds that the host may take to answer. After them, calls raise `torch.distributed.DistError`.

    Raises:
        DistError: the host of the store cannot be reached within `timeout`.
    """

    def __init__(self, launch: Launch, hosts: bool = False, number: int = 0, timeout: float = CONNECT) -> None:
        self._store = TCPStore(
            launch.address,
            launch.port,
            is_master=hosts,
            timeout=timedelta(seconds=timeout),
            wait_for_workers=False,
        )
        # Another start of the same ranks, which torchrun can make, must not read what the first one has written.
        self.prefix = f"cram/{launch.restart}/{launch.size}/{number}/"

    @property
    def store(self) -> TCPStore:
        """The store itself, for a group of processes. Their keys need `prefix`."""
        return self._store

    def write(self, key: str, value: Any) -> None:
        """Write a JSON value."""
        self._store.set(self.prefix + key, orjson.dumps(value).decode())

    def read(self, key: str) -> Any:
        """Read a JSON value; None if there is none yet."""
        # The store waits for a key that is not there, so it is asked first.
        return orjson.loads(self._store.get(self.prefix + key)) if self._store.check([self.prefix + key]) else None

    def read_all(self, keys: Sequence[str]) -> list[Any]:
        """Read JSON values, None for those that are not there yet."""
        names = [self.prefix + key for key in keys]
        if not self._store.check(names):
            return [self.read(key) for key in keys]
        return [orjson.loads(value) for value in self._store.multi_get(names)]

    def wait(self, key: str) -> Any:
        """Read a JSON value, as soon as it is there, however long that takes."""
        while (value := self.read(key)) is None:
            time.sleep(POLL)
        return value

    def claim(self, key: str, value: Any) -> Any:
        """Write a JSON value if no rank has written one, and return the one that is there."""
        return orjson.loads(self._store.compare_set(self.prefix + key, "", orjson.dumps(value).decode()))


def open_board(launch: Launch, number: int = 0) -> Board:
    """Connect to the store; rank 0 hosts it if torchrun does not.

    Raises:
        CramError: the store cannot be reached.
    """
    hosts = launch.leads and number == 0 and not hosted_by_torchrun()
    patience = FOUND if hosted_by_torchrun() else CONNECT
    try:
        return Board(launch, hosts, number, patience)
    except DistNetworkError as error:
        reason = str(error).splitlines()[0]
        raise CramError(
            f"rank {launch.rank}: MASTER_ADDR={launch.address} MASTER_PORT={launch.port}: "
            f"{'the port cannot be opened' if hosts else 'no other rank can be reached there'} ({reason})."
        ) from None
    except DistError:
        raise CramError(
            f"rank {launch.rank}: no answer from MASTER_ADDR={launch.address} MASTER_PORT={launch.port} for "
            f"{patience:.0f} s. Start all ranks by torchrun at the same time."
        ) from None
