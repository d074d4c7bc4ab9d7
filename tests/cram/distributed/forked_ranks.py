"""Ranks as processes of a test. One process imports torch and the test's module, and is forked once for each rank.

A fork takes milliseconds, where a process that imports torch itself takes seconds.
"""

import importlib
import multiprocessing
import multiprocessing.connection
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cram.distributed.launch import Launch
from cram.distributed.ranks import Ranks
from cram.machine.processes import end_with_parent, start_child

# After this time an exchange that another rank does not take part in ends with an error.
LIMIT = timedelta(minutes=2)


def run_forked(function: Callable[[int, Path], None], size: int, folder: Path) -> None:
    """Let `size` processes call a function of a module with their number and the folder, in a process group by gloo."""
    log = folder / "ranks.log"
    command = [sys.executable, "-m", __name__, function.__module__, function.__name__, str(size), str(folder)]
    with log.open("w") as output:
        child = start_child(command, output)
        try:
            child.wait()
        finally:
            child.kill()
    assert child.returncode == 0, log.read_text()


def ranks_of_first(size: int, number: int) -> Ranks:
    """Make the ranks of the first `size` processes; all processes call it, in the same order of sizes."""
    host, device = (dist.new_group(list(range(size)), timeout=LIMIT) for _ in range(2))
    if number >= size:
        return Ranks()
    return Ranks(Launch(number, size, number, size), torch.device("cpu"), host, device)


def _be_rank(module: str, function: str, number: int, size: int, folder: str) -> None:
    end_with_parent()
    torch.set_num_threads(1)
    try:
        store = f"file://{folder}/store"
        dist.init_process_group("gloo", init_method=store, rank=number, world_size=size, timeout=LIMIT)
        getattr(importlib.import_module(module), function)(number, Path(folder))
        dist.barrier()
    except BaseException:
        # The other ranks may wait for this one, so all of them end.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _main(module: str, function: str, size: int, folder: str) -> int:
    end_with_parent()
    importlib.import_module(module)
    importlib.import_module("torch._dynamo")  # which torch's optimizers import when the first one is made
    return fork_ranks(_be_rank, [(module, function, number, size, folder) for number in range(size)])


def fork_ranks(target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> int:
    """Fork a process for each tuple of arguments, and wait for all. If one fails, the others are killed.

    Returns:
        0 if all have ended without an error, else 1.
    """
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=target, args=of_rank) for of_rank in arguments]
    for process in processes:
        process.start()
    waiting = {process.sentinel: process for process in processes}
    while waiting:
        for sentinel in multiprocessing.connection.wait(list(waiting)):
            ended = waiting.pop(sentinel)  # type: ignore[call-overload]
            ended.join()
            if ended.exitcode:
                for process in waiting.values():
                    process.kill()
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
