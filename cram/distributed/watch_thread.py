"""The thread of each rank that shows what the rank does, looks at the other ranks, and ends the process after a fault.

A rank that waits in an exchange for a rank that is dead cannot end itself by an exception, so its thread ends the
process. Of all ranks one says why: the lowest one that is alive and not at fault.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from torch.distributed import DistError

from cram.distributed.launch import Launch
from cram.distributed.store import Board, hosted_by_torchrun
from cram.distributed.watch import (
    GO_ON,
    LONGEST_ROUND,
    ROUND,
    SILENCE,
    Fault,
    Judge,
    OwnSign,
    Sign,
    is_gone,
    is_stopped,
    process_state,
    this_host,
)

ANSWER = 5.0  # seconds that the host of the store may take
# Seconds that the others stay when one rank speaks. torchrun ends all ranks as soon as one of them ends with an error,
# and the one that speaks needs time to do so.
SPEAKING = 3.0
REFUSALS = 3.0  # seconds without a host that listens, after which it has ended
VERDICT = "verdict"


class Watch:
    """Shows what a rank does, and ends it when another one is at fault.

    Args:
        launch: which rank this is.
        read: gives the state of this rank and when it was entered, as `Ranks.state`.
        number: of meetings that this process has had before.

    Attributes:
        signs: the newest sign of each rank that has come.
        judges: whether this rank looks for faults of others. Rank 0 no longer needs the others at its end.
    """

    def __init__(self, launch: Launch, read: Callable[[], tuple[str, float]], number: int = 0) -> None:
        self._launch = launch
        self._own = OwnSign(read)
        self._judge = Judge(is_gone, is_stopped)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._number = number
        self._board = Board(launch, number=number, timeout=ANSWER)
        self._failures = 0.0  # seconds without an answer of the store
        self._last_round = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="watch of ranks", daemon=True)
        self.signs: dict[int, Sign] = {}
        self.judges = True

    def start(self) -> None:
        """Show the first sign, and begin the thread."""
        self.show()
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Nothing ends this process any more."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(ANSWER)

    def read_from(self, read: Callable[[], tuple[str, float]]) -> None:
        """Take the state of this rank from somewhere else."""
        self._own.read = read

    def end(self, status: int, message: str = "") -> None:
        """Show that this rank ends.

        Args:
            message: why, if another rank has to say so.
        """
        with self._lock:
            self._own.status, self._own.message = status, message
        self.show()

    def show(self, elapsed: float = 0.0) -> None:
        """Show what this rank does now. A store that does not answer is left to the thread."""
        with suppress(DistError), self._lock:
            self._write(elapsed)

    def _write(self, elapsed: float) -> None:
        self._board.write(f"sign/{self._launch.rank}", self._own.make(elapsed, time.monotonic()))

    def _run(self) -> None:
        while not self._stop.wait(ROUND):
            now = time.monotonic()
            elapsed, self._last_round = min(now - self._last_round, LONGEST_ROUND), now
            try:
                with self._lock:
                    self._round(elapsed)
                self._failures = 0.0
            except DistError:
                self._count_failure(now)

    def _round(self, elapsed: float) -> None:
        self._write(elapsed)
        signs = self._board.read_all([f"sign/{rank}" for rank in range(self._launch.size)])
        self.signs = {rank: Sign(**sign) for rank, sign in enumerate(signs) if sign}
        fault = self._judge.look(self.signs, elapsed)
        if not self.judges or self._own.status is not None:
            return
        verdict = self._board.read(VERDICT)
        if verdict is None and fault:
            verdict = self._board.claim(VERDICT, asdict(fault) | {"speaker": self._choose_speaker(fault)})
        if verdict:
            self._carry_out(verdict)

    def _choose_speaker(self, fault: Fault) -> int:
        alive = [rank for rank in sorted(self.signs) if self._judge.silent[rank] < ROUND + LONGEST_ROUND]
        innocent = [rank for rank in alive if rank not in fault.culprits]
        return (innocent or alive or [self._launch.rank])[0]

    def _carry_out(self, verdict: dict[str, Any]) -> None:
        self._own.status = verdict["status"]
        with suppress(DistError):  # this rank ends, whether the others hear of it or not
            self._write(0.0)
        seconds = ROUND if self._launch.rank in verdict["culprits"] else SPEAKING
        if verdict["speaker"] == self._launch.rank and verdict["message"]:
            _say(verdict["message"])
            seconds = SPEAKING if self._wake(verdict["culprits"]) else 0.0
        time.sleep(seconds)
        _leave(verdict["status"])

    def _wake(self, culprits: list[int]) -> bool:
        """Continue stopped ranks of this machine, so that they end themselves: a stopped process ignores SIGTERM.

        Returns:
            Whether there may be one.
        """
        woken = False
        for rank in culprits:
            sign = self.signs.get(rank)
            if sign and sign.host == this_host() and self._judge.silent[rank] >= SILENCE:
                with suppress(OSError):
                    os.kill(sign.pid, signal.SIGCONT)
                    woken = True
        return woken

    def _count_failure(self, since: float) -> None:
        """End this process when the host of the store has ended, or has not answered for long."""
        if process_state(os.getppid()) == "T":  # by Ctrl-Z, which stops torchrun, but not the ranks that it has started
            return
        self._failures += max(time.monotonic() - since, ROUND)
        try:
            # Connected by hand first, because torch prints a stack of C++ when it cannot connect.
            socket.create_connection((self._launch.address, self._launch.port), ANSWER).close()
            self._board = Board(self._launch, number=self._number, timeout=ANSWER)
            return
        except ConnectionRefusedError:
            if self._failures < REFUSALS:
                return
        except (OSError, DistError):
            if self._failures < SILENCE:
                return
        if not self.judges or self._own.status is not None:
            self._stop.set()
            return
        first = self.signs.get(0)
        if first and first.status is not None:  # rank 0 has ended as it should, and hosted the store
            _leave(first.status)
        torchrun = hosted_by_torchrun()
        if self._launch.rank == (0 if torchrun else 1):
            host = "torchrun has ended" if torchrun else "rank 0 has died"
            _say(f"{host} or cannot be reached; all ranks end. {GO_ON}")
        _leave(1)


def _say(message: str) -> None:
    with suppress(OSError):
        os.write(2, f"cram: {message}\n".encode())


def _leave(status: int) -> None:
    """End the process at once. The main thread may be in an exchange that never returns."""
    # Output may be locked by the main thread, so that flushing it may never return either.
    flusher = threading.Thread(target=_flush, daemon=True)
    flusher.start()
    flusher.join(1.0)
    os._exit(status)


def _flush() -> None:
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
