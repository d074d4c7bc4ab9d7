"""How ranks watch each other: what each of them shows every second, and what is judged to be a fault.

A rank shows its state and how long it has been in it. The time is counted in short rounds, and a round that took long
counts little: otherwise a run that is stopped and continued as a whole (Ctrl-Z, a suspended machine) would seem to have
hung, and on a busy machine the limits would come too soon.
"""

import math
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cram.distributed.launch import Launch

ROUND = 1.0  # seconds between two signs of a rank
LONGEST_ROUND = 2.0  # seconds that a round counts at most
SILENCE = 20.0  # seconds without a sign after which a rank is dead or stopped; a busy machine delays a sign by few
# The same in states in which a call can hold the lock of the interpreter for long, so that no other thread shows signs.
LONG_SILENCE = 120.0
LONG_CALLS = ("starting", "restoring", "preparing", "compiling", "probing", "saving", "finishing")
ALL_WAIT = 120.0  # seconds that all ranks may wait at the same time; the first exchange of many GPUs takes up to 60
SLOWNESS = 10.0  # a state may last so many times as long as it has already lasted on this machine
GO_ON = "The last checkpoint is kept: the same command goes on from there."
WAITING = ("waiting for other ranks", "waiting for an order")

# Seconds that a rank may be in a state without showing progress, which is to enter the state again.
LIMITS: dict[str, float] = {
    "starting": 600.0,  # builds the model, or reads a checkpoint from a network disk
    "restoring": 600.0,  # the same for all tensors of a checkpoint
    "preparing": math.inf,  # hours of text; the processes of the preparation are watched by their parent
    "compiling": 1800.0,  # Inductor needs minutes for a large model on a busy machine
    "probing": 600.0,  # each attempt compiles the kernels of another size
    "updating": 40.0,
    "evaluating": 600.0,  # the held-out rows of a long document, without sign in between
    "saving": 600.0,  # gigabytes to a network disk
    "finishing": math.inf,  # rank 0 alone evaluates, exports and draws
    "waiting for other ranks": math.inf,  # the one that is waited for is at fault
    "waiting for an order": math.inf,
}


@dataclass(frozen=True)
class Sign:
    """What a rank shows.

    Attributes:
        beat: number of the sign; a rank whose number stands still is silent.
        state: one of `LIMITS`.
        seconds: in the state since the last progress.
        limit: seconds that the rank may be in the state; None for no limit.
        pid, host: of the process. Ranks with the same `host` can ask the system about each other.
        status: exit status of a rank that ends; None before.
        message: why it ends, if the other ranks have to say so.
    """

    beat: int
    state: str
    seconds: float
    limit: float | None
    pid: int
    host: str
    status: int | None = None
    message: str = ""


@dataclass
class OwnSign:
    """Makes the signs of this rank.

    Args:
        read: gives the state and when it was entered, as `Ranks.state`.
    """

    read: Callable[[], tuple[str, float]]
    status: int | None = None
    message: str = ""
    _beat: int = 0
    _state: str = ""
    _entered: float = math.nan
    _seconds: float = 0.0
    _longest: dict[str, float] = field(default_factory=dict)

    def make(self, elapsed: float, now: float) -> dict[str, Any]:
        """Make the next sign, as JSON.

        Args:
            elapsed: counted seconds since the last one. now: `time.monotonic`.
        """
        state, entered = self.read()
        if entered != self._entered:  # progress: what came before was normal
            self._longest[self._state] = max(self._longest.get(self._state, 0.0), self._seconds)
            self._state, self._entered, self._seconds = state, entered, 0.0
        self._seconds = min(self._seconds + elapsed, max(now - entered, 0.0))
        self._beat += 1
        # The passes of a measurement show how long those of an update may take.
        longest = max(self._longest.get(name, 0.0) for name in (state, *(["probing"] if state == "updating" else [])))
        limit = max(LIMITS.get(state, math.inf), SLOWNESS * longest)
        sign = Sign(
            beat=self._beat,
            state=state,
            seconds=self._seconds,
            limit=None if math.isinf(limit) else limit,
            pid=os.getpid(),
            host=this_host(),
            status=self.status,
            message=self.message,
        )
        return asdict(sign)


@dataclass(frozen=True)
class Fault:
    """Why all ranks end.

    Attributes:
        message: a line for the user; empty if a rank has said why already.
        status: exit status of all ranks.
        culprits: ranks at fault.
    """

    message: str
    status: int
    culprits: tuple[int, ...] = ()


class Judge:
    """Looks at the signs of all ranks, round after round.

    Args:
        is_gone: whether the process of a sign is known to have ended.
        is_stopped: whether it is known to be stopped.
    """

    def __init__(self, is_gone: Callable[[Sign], bool], is_stopped: Callable[[Sign], bool]) -> None:
        self._is_gone, self._is_stopped = is_gone, is_stopped
        self._beats: dict[int, int] = {}
        self.silent: dict[int, float] = {}  # seconds without a new sign, by rank
        self._all_wait = 0.0

    def look(self, signs: Mapping[int, Sign], elapsed: float) -> Fault | None:
        """Judge the newest signs of the ranks that have come.

        Args:
            elapsed: counted seconds since the last call.
        """
        for rank, sign in signs.items():
            heard = self._beats.get(rank) != sign.beat
            self.silent[rank] = 0.0 if heard else self.silent[rank] + elapsed
            self._beats[rank] = sign.beat
        for rank, sign in sorted(signs.items()):
            if sign.status:
                return Fault(sign.message, sign.status, (rank,))
        working = {rank: sign for rank, sign in sorted(signs.items()) if sign.status is None}
        return self._find_dead(working) or self._find_hanging(working, elapsed)

    def _find_dead(self, working: Mapping[int, Sign]) -> Fault | None:
        if gone := [rank for rank, sign in working.items() if self._is_gone(sign)]:
            return _fault(gone, working, "died")
        if silent := [rank for rank, sign in working.items() if self._is_silent(rank, sign)]:
            return _fault(silent, working, f"not answered for {self.silent[silent[0]]:.0f} s")
        return None

    def _is_silent(self, rank: int, sign: Sign) -> bool:
        if self.silent[rank] < SILENCE:
            return False
        return sign.state not in LONG_CALLS or self.silent[rank] >= LONG_SILENCE or self._is_stopped(sign)

    def _find_hanging(self, working: Mapping[int, Sign], elapsed: float) -> Fault | None:
        over = [rank for rank, sign in working.items() if sign.limit is not None and sign.seconds > sign.limit]
        if over:
            return _fault(over, working, f"shown no progress for {working[over[0]].seconds:.0f} s")
        waits = len(working) > 1 and all(sign.state in WAITING for sign in working.values())
        self._all_wait = self._all_wait + elapsed if waits else 0.0
        if self._all_wait > ALL_WAIT:
            return _fault(list(working), working, f"waited for each other for {ALL_WAIT:.0f} s")
        return None


def describe_failure(launch: Launch, error: BaseException) -> str:
    """Say in a line that an error ends this rank, and so all ranks."""
    reason = (str(error).splitlines() or [""])[0]
    return f"rank {launch.rank} has failed ({type(error).__name__}: {reason}); all ranks end. {GO_ON}"


def _fault(culprits: list[int], working: Mapping[int, Sign], what: str) -> Fault:
    if len(culprits) == 1:
        who = f"rank {culprits[0]} has"
    elif len(culprits) == len(working):
        who = "all ranks have"
    else:
        who = f"ranks {', '.join(map(str, culprits))} have"
    state = working[culprits[0]].state
    doing = "" if state in WAITING else f" while {state}"
    return Fault(
        f"{who} {what}{doing}; all ranks end. {GO_ON}",
        1,
        tuple(culprits),
    )


@cache
def this_host() -> str:
    """Name the machine, and on Linux the set of process numbers, which containers of a machine do not share."""
    numbers = ""
    with suppress(OSError):
        numbers = str(Path("/proc/self/ns/pid").readlink())
    return f"{socket.gethostname()} {numbers}"


def has_ended(sign: Sign) -> bool:
    """Whether a rank has said that it ends, or its process has ended."""
    return sign.status is not None or is_gone(sign)


def is_gone(sign: Sign) -> bool:
    """Whether the process of a sign has ended, as far as this machine knows."""
    if os.name != "posix" or sign.host != this_host():
        return False
    try:
        os.kill(sign.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return process_state(sign.pid) == "Z"  # ended, but its parent has not asked for its status


def is_stopped(sign: Sign) -> bool:
    """Whether the process of a sign is stopped, as by SIGSTOP, as far as this machine knows."""
    return sign.host == this_host() and process_state(sign.pid) == "T"


def process_state(number: int) -> str:
    """Return the letter of Linux for the state of a process: T stopped, Z ended; empty where it is not known."""
    try:
        status = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return ""
    return status.rpartition(")")[2].split()[0]  # the name before it may hold anything
