"""The ranks meet before they can compute together: compare what they are, hear what rank 0 has decided, form groups.

Until the groups exist, rank 0 may need hours to prepare the data. The other ranks wait for it at the store, and end
when rank 0 ends. From the beginning to the end all ranks watch each other (`cram.distributed.watch`).
"""

import math
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from cram import __version__
from cram.distributed.launch import Launch
from cram.distributed.ranks import Ranks
from cram.distributed.store import POLL, open_board
from cram.distributed.watch import SILENCE, Sign, describe_failure, has_ended
from cram.distributed.watch_thread import Watch
from cram.errors import CramError
from cram.machine.host import commit
from cram.machine.kernels import name_kernels
from cram.machine.processes import INTERRUPTED, URGENT

ARRIVAL = 600.0  # seconds until all ranks must have come; importing torch from a network disk takes minutes
# An exchange may last as long as rank 0 needs to evaluate, save or compile. The watch ends ranks that hang.
EXCHANGE = timedelta(days=7)
LAST_WORDS = 10.0  # seconds that rank 0 waits at its end for the others
OWN_FAULT = 3.0  # seconds after which a rank reports its own error, if rank 0 has not ended with the same one


class Meeting:
    """The ranks of a run, before and while they are a group. A process that is alone meets nobody.

    Use it as a context: at its end, ranks need each other no more. After an error all ranks end.

    Args:
        launch: which rank this is.
        number: of meetings that this process has had before.
    """

    def __init__(self, launch: Launch, number: int = 0) -> None:
        self._launch = launch
        self._state = ("preparing" if launch.leads else "starting", time.monotonic())
        self._announced = 0
        self._reported = False  # whether the others know that this rank ends by an error
        if launch.size == 1:
            return
        self._board = open_board(launch, number)
        self._watch = Watch(launch, lambda: self._state, number)
        self._watch.start()

    def __enter__(self) -> "Meeting":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self._launch.size == 1:
            return
        if error is not None:
            self._report(error)
            return
        if dist.is_initialized():
            dist.destroy_process_group()
        self._watch.judges = False  # rank 0 goes on alone
        self.enter("finishing")
        self._watch.read_from(lambda: self._state)

    def enter(self, state: str) -> None:
        """Say what this rank does from now on, one of `cram.distributed.watch.LIMITS`, until there are groups."""
        self._state = (state, time.monotonic())

    def check(self, facts: dict[str, Any]) -> None:
        """Compare facts that have to be the same on all ranks. All ranks call this.

        Args:
            facts: JSON values by name.

        Raises:
            CramError: on rank 0, which names the rank that differs. The other ranks are ended.
        """
        if self._launch.size == 1:
            return
        self._board.write(f"facts/{self._launch.rank}", facts)
        if not self._launch.leads:
            return
        deadline = time.monotonic() + ARRIVAL
        for rank in range(1, self._launch.size):
            while (other := self._board.read(f"facts/{rank}")) is None:
                if time.monotonic() > deadline:
                    raise CramError(
                        f"rank {rank} of {self._launch.size} has not come within {ARRIVAL:.0f} s. Start torchrun on "
                        "all nodes at the same time."
                    )
                time.sleep(POLL)
            differences = [f"{name} is {other[name]}, not {own}" for name, own in facts.items() if other[name] != own]
            if differences:
                raise CramError(
                    f"rank {rank} differs from rank 0: {'; '.join(differences)}.\n"
                    "All ranks need the same installation and the same kind of device."
                )

    def announce(self, value: Any) -> None:
        """Tell the other ranks a JSON value. Only rank 0 calls this."""
        if self._launch.size > 1:
            self._announced += 1
            self._board.write(f"announcement/{self._announced}", value)

    def await_announcement(self) -> Any:
        """Wait for the next value of rank 0, without a time limit. This process ends if rank 0 ends."""
        self._announced += 1
        self.enter("waiting for an order")
        value = self._board.wait(f"announcement/{self._announced}")
        self.enter("starting")
        return value

    def form_groups(self, device: torch.device) -> Ranks:
        """Let all ranks form the groups in which they exchange figures and tensors. All ranks call this.

        Args:
            device: that this rank computes on.

        Raises:
            CramError: this torch cannot exchange tensors between such devices; on rank 0 also if ranks differ.
        """
        if self._launch.size == 1:
            return Ranks(self._launch, device)
        self.enter("waiting for other ranks")
        self.check(rank_facts(device))
        self.enter("starting")
        store = PrefixStore(f"{self._board.prefix}groups", self._board.store)
        dist.init_process_group(
            pick_backend(device),
            store=store,
            rank=self._launch.rank,
            world_size=self._launch.size,
            timeout=EXCHANGE,
            device_id=device if device.type == "cuda" else None,
        )
        host = dist.new_group(backend="gloo", timeout=EXCHANGE)
        assert isinstance(host, dist.ProcessGroup)
        ranks = Ranks(self._launch, device, host, dist.group.WORLD)
        self._watch.read_from(lambda: ranks.state)
        ranks.open_device_group()
        return ranks

    def _report(self, error: BaseException) -> None:
        """Tell the other ranks that this one ends by an error."""
        if _is_lost_connection(error):
            _ignore_signals()  # torchrun sends one now, which is not the user's
            time.sleep(SILENCE + OWN_FAULT)  # another rank has ended; the watch finds it, and ends this process
        status, message = 1, describe_failure(self._launch, error)
        if isinstance(error, CramError):
            status, message = 2, str(error)
        elif isinstance(error, KeyboardInterrupt):
            status, message = INTERRUPTED, ""
        elif isinstance(error, SystemExit):
            status, message = int(error.code or 0) if isinstance(error.code, int | None) else 1, ""
        if self._launch.leads:
            self._watch.judges = False
            self._watch.end(status)
            return
        if isinstance(error, CramError):  # rank 0 may be about to print the same one
            self._wait_until(self._first_has_ended, OWN_FAULT)
        self._watch.end(status, message)
        self._reported = True

    def leave(self, status: int, message: str = "") -> int:
        """End this rank; the last thing that it does.

        Rank 0 waits a moment for the others, because it may host the store, and because torchrun ends all ranks as soon
        as one of them ends with an error.

        Args:
            status: exit status of this rank.
            message: why it ends, if rank 0 has to say so.

        Returns:
            The exit status of rank 0, which is that of all ranks; the own one if rank 0 does not end.
        """
        _ignore_signals()
        if self._launch.leads:
            self._watch.judges = False
            self._watch.end(status)
            self._wait_until(self._others_have_ended, LAST_WORDS)
        else:
            self._watch.judges = not self._reported
            if not self._reported:
                self._wait_until(self._first_has_ended, OWN_FAULT if status else math.inf)
                first = self._first_status()
                self._watch.end(status if first is None else first, message)
            self._wait_until(self._first_has_ended, LAST_WORDS)
            first = self._first_status()
            status = status if first is None else first
        self.stop()
        return status

    def stop(self) -> None:
        """Stop watching the other ranks."""
        if self._launch.size > 1:
            self._watch.stop()

    def _first_status(self) -> int | None:
        """The exit status of rank 0, if rank 0 has ended."""
        with suppress(dist.DistError):
            if sign := self._board.read("sign/0"):
                return Sign(**sign).status
        return None

    def _first_has_ended(self) -> bool:
        return self._first_status() is not None

    def _others_have_ended(self) -> bool:
        """Whether rank 0 is the last one that has not ended, or can no longer know it."""
        try:
            signs = self._board.read_all([f"sign/{rank}" for rank in range(1, self._launch.size)])
        except dist.DistError:
            return True
        return all(sign and has_ended(Sign(**sign)) for sign in signs)

    def _wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(POLL)


_MEETINGS: list[Meeting] = []  # of this process; the first one keeps the store open
_UNREACHED: set[Launch] = set()  # ranks of this process that have waited for the store in vain


def meet(launch: Launch) -> Meeting:
    """Let this rank meet the others.

    Raises:
        CramError: the store cannot be reached.
    """
    for before in _MEETINGS:
        before.stop()
    try:
        meeting = Meeting(launch, len(_MEETINGS))
    except CramError:
        _UNREACHED.add(launch)
        raise
    _MEETINGS.append(meeting)
    return meeting


def leave(launch: Launch, status: int, message: str = "") -> int:
    """End a rank that may have met the others or not; see `Meeting.leave`."""
    if not _MEETINGS and launch not in _UNREACHED:
        with suppress(CramError):
            meet(launch)
    if _MEETINGS:
        return _MEETINGS[-1].leave(status, message)
    if message and not launch.leads:  # rank 0 cannot hear it
        print(f"cram: {message}", file=sys.stderr)
    return status


def rank_facts(device: torch.device) -> dict[str, Any]:
    """Give what has to be the same on all ranks.

    Raises:
        CramError: this torch cannot exchange tensors between such devices.
    """
    return {
        "cram": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
        "device": device.type,
        "kernels": name_kernels(device),
        "backend": pick_backend(device),
    }


def pick_backend(device: torch.device) -> str:
    """Name the library that exchanges tensors between devices: `nccl` for GPUs, `gloo` for CPUs.

    Raises:
        CramError: this torch is built without it, or without gloo, which every run of several ranks needs.
    """
    if not dist.is_gloo_available():
        raise CramError("several ranks need gloo, and this torch is built without it. Install torch from pytorch.org.")
    if device.type == "cpu":
        return "gloo"
    if not dist.is_nccl_available():
        raise CramError(
            f"device={device.type}: several ranks need NCCL, and this torch is built without it.\n"
            "Install a torch that has it (Linux only), use one GPU without torchrun, or device=cpu."
        )
    return "nccl"


def _is_lost_connection(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that an exchange with another rank has failed."""
    while error is not None:
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _ignore_signals() -> None:
    if threading.current_thread() is threading.main_thread():
        for name in URGENT:
            signal.signal(name, signal.SIG_IGN)
