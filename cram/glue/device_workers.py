"""Fine-tunings on several devices at the same time: one process a device, which runs one job after another.

The processes compute and save models. Only this process writes glue.json.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

from cram.errors import CramError
from cram.files.limits import lift_open_files_limit, raise_if_out_of_memory, report_disk_errors
from cram.glue.job_runner import FineTuning, JobRunner
from cram.glue.results_file import Job
from cram.glue.splits import TaskData
from cram.machine.device import pick_device, set_threads
from cram.machine.processes import leave_stop_signals_to_parent, stop_signals_blocked

# Seconds to wait before a dead worker is reported: a signal that ended the workers may be about to reach this process.
GRACE = 0.5
PATIENCE = 10.0  # seconds that a worker gets to end by itself
REPORT_INTERVAL = 0.5  # seconds between two messages of a worker about its updates


class WorkerEndedError(Exception):
    """A worker process has ended before its job. The message says which one, and how the command can be continued."""


@dataclass(frozen=True)
class Refused:
    """What a worker sends in place of an outcome where it met an error that the user can remedy: its message."""

    message: str


@dataclass
class _Worker:
    """A worker process as its parent sees it.

    Attributes:
        device: word of `device=`.
        process: the process.
        connection: to it.
        job: that it runs; None while it has none.
        task: name of the task whose examples it has.
    """

    device: str
    process: Any
    connection: Connection
    job: Job | None = None
    task: str = ""


class DeviceWorkers:
    """One worker process a device. They are started by `with`, and end with it, or when this process ends.

    Args:
        shared: what all jobs share.
        devices: word of `device=` for each worker.
    """

    def __init__(self, shared: FineTuning, devices: Sequence[str]) -> None:
        self._shared = shared
        self._devices = devices
        self._workers: list[_Worker] = []

    def __enter__(self) -> "DeviceWorkers":
        # The process that multiprocessing keeps for its semaphores would die of some of these signals with error
        # messages, so they stay blocked in it.
        with stop_signals_blocked():
            resource_tracker.ensure_running()
        for device in self._devices:
            with stop_signals_blocked():  # the process unblocks them when it is ready for them
                self._workers.append(_start(device))
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(PATIENCE)
            worker.process.kill()
            worker.process.join()
            worker.connection.close()

    def run(
        self, jobs: Iterable[Job], load: Callable[[str], TaskData], advance: Callable[[int], None]
    ) -> Iterator[tuple[Job, str, dict[str, Any]]]:
        """Run jobs, each on the first device that is free. Call it once.

        Args:
            jobs: in the order in which they are begun.
            load: gives the examples of a task, with their tokens in the folder of results already.
            advance: called with numbers of updates that the workers have done.

        Yields:
            Each job with its device and outcome, as they finish.

        Raises:
            CramError: where a job cannot be done.
            WorkerEndedError: where a worker has ended.
        """
        waiting = deque(jobs)
        for worker in self._workers:
            self._send(worker, (self._shared, worker.device))
        while True:
            for worker in self._workers:
                if waiting and worker.job is None:
                    self._begin(worker, waiting.popleft(), load)
            working = {worker.connection: worker for worker in self._workers if worker.job is not None}
            if not working:
                return
            for connection in wait(list(working)):
                worker = working[connection]  # type: ignore[index]
                message = self._receive(worker)
                if isinstance(message, int):
                    advance(message)
                elif isinstance(message, Refused):
                    raise CramError(f"{worker.device}: {message.message}")
                else:
                    job, worker.job = worker.job, None
                    assert job is not None
                    yield job, worker.device, message

    def _begin(self, worker: _Worker, job: Job, load: Callable[[str], TaskData]) -> None:
        """Give a worker a job, with the examples of the task unless it has them."""
        data = None if worker.task == job.task else replace(load(job.task), test={})
        worker.job, worker.task = job, job.task
        self._send(worker, (job, data))

    def _send(self, worker: _Worker, message: Any) -> None:
        try:
            worker.connection.send(message)
        except OSError:
            raise self._ended(worker) from None

    def _receive(self, worker: _Worker) -> Any:
        try:
            return worker.connection.recv()
        except (EOFError, OSError):
            raise self._ended(worker) from None

    def _ended(self, worker: _Worker) -> WorkerEndedError:
        time.sleep(GRACE)
        worker.process.join(PATIENCE)
        status = worker.process.exitcode
        how = f"was ended by {signal.Signals(-status).name}" if status and status < 0 else f"ended with status {status}"
        where = f"during {worker.job.name}" if worker.job else "before its first job"
        memory = " (out of memory?)" if status == -signal.SIGKILL else ""
        return WorkerEndedError(
            f"device {worker.device}: its process {how} {where}{memory}.\n"
            f"The results so far are in {self._shared.folder / 'glue.json'}; the same command continues."
        )


def _start(device: str) -> _Worker:
    """Start a worker. It is spawned, because neither CUDA nor the tokenizers library survives a fork."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # What the jobs share is sent later, so that all workers load their libraries at the same time.
    process = context.Process(target=_work, args=(theirs,), name=f"worker of {device}", daemon=True)
    process.start()
    theirs.close()  # the connection then ends when the worker does
    return _Worker(device, process, ours)


def _work(connection: Connection) -> None:
    """Run the jobs that arrive, until the parent ends this process or is gone."""
    leave_stop_signals_to_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    lift_open_files_limit()
    try:
        _run_all(connection)
    except (SystemExit, EOFError, BrokenPipeError):
        # A model that was half saved has been removed by now. Python would take seconds to unload its libraries.
        os._exit(1)


def _run_all(connection: Connection) -> None:
    shared, name = connection.recv()
    set_threads(shared.config.threads)
    runner = JobRunner(shared, pick_device(name))
    while True:
        job, data = connection.recv()
        try:
            message: dict[str, Any] | Refused = _run(shared, runner, job, data, connection)
        except CramError as error:
            message = Refused(str(error))
        connection.send(message)


def _run(
    shared: FineTuning, runner: JobRunner, job: Job, data: TaskData | None, connection: Connection
) -> dict[str, Any]:
    """Run a job, and tell the parent of its updates.

    Raises:
        CramError: for an error that the user can remedy, a full disk and memory that does not suffice among them.
    """
    updates = _UpdateReports(connection)
    try:
        with report_disk_errors(shared.folder, "to"):
            if data is not None:
                runner.load(data)
            outcome = runner.run(job, updates.advance)
    except (MemoryError, RuntimeError) as error:
        raise_if_out_of_memory(error)
        raise
    updates.flush()
    return outcome


class _UpdateReports:
    """Sends numbers of updates to the parent, not more often than it can show them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._updates = 0
        self._sent = time.monotonic()

    def advance(self, updates: int) -> None:
        """Count updates, and send their number if the latest message is long enough ago."""
        self._updates += updates
        if time.monotonic() - self._sent >= REPORT_INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Send the number of updates since the latest message."""
        self._connection.send(self._updates)
        self._updates, self._sent = 0, time.monotonic()
