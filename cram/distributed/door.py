"""What a command does about ranks before and after its work. This file needs no torch, unless there are several ranks.

Under torchrun each rank runs the whole command. Rank 0 alone prints. When a rank ends with an error, torchrun sends
SIGTERM to the others, so rank 0 must have printed what is wrong before another rank ends.
"""

import os
import signal
import socket
import threading
import time

from cram.distributed.launch import Launch
from cram.errors import CramError
from cram.machine.processes import INTERRUPTED, URGENT
from cram.terminal.output import silence_output

PATIENCE = 5.0  # seconds until a second signal ends a process that does not end by itself


def open_rank(launch: Launch) -> None:
    """Prepare a rank among several: it is quiet unless it leads, and a second signal ends it even in an exchange."""
    if launch.size == 1:
        return
    # torch reports each lost connection with a stack of C++; the watch says the same in a line.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if not launch.leads:
        silence_output()
    if threading.current_thread() is threading.main_thread():
        _watch_signals()


def close_rank(launch: Launch, status: int, message: str = "") -> int:
    """End a rank after everything that it had to print.

    Args:
        message: why it ends, which rank 0 says if it does not end by the same error.

    Returns:
        The exit status of all ranks.
    """
    if launch.size == 1:
        return status
    from cram.distributed.meeting import leave

    return leave(launch, status, message)


def refuse_ranks(launch: Launch) -> None:
    """Refuse several ranks, for a command that they would run once each.

    Raises:
        CramError: there are several ranks.
    """
    if launch.size > 1:
        raise CramError(
            f"torchrun has started this command {launch.size} times, but only cram.train runs on several ranks.\n"
            "Start the command without torchrun."
        )


def _watch_signals() -> None:
    """Count the signals in a thread: Python's handlers wait for the main thread, which may wait in an exchange."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)
    # A forked child would report its own signals here, such as the SIGTERM that ends a worker.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_count_signals, args=(ours,), name="signals of ranks", daemon=True).start()


def _count_signals(ours: socket.socket) -> None:
    count = 0
    while received := ours.recv(64):
        count += sum(number in URGENT for number in received)
        if count > 1:
            time.sleep(PATIENCE)
            os._exit(INTERRUPTED)
