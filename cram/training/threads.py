"""The number of CPU threads, which is measured at the start and again when the updates become slow.

More threads are not faster on every machine: all of them wait at the end of each operation for the one whose core is
taken by another process. The number decides the order of sums, so that a budget in steps or tokens, whose bytes repeat,
keeps all cores throughout; so does a run on a GPU.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from cram.machine.device import set_threads
from cram.machine.host import cores
from cram.training.passes import PROBE_SECONDS, run_or_halve, time_pass
from cram.training.records import write_record
from cram.training.session import Session
from cram.training.thread_watch import ThreadWatch

REPEATED_SECONDS = 0.5  # like PROBE_SECONDS, for a measurement in the middle of a run
PROBE_SHARE = 0.02  # of the budget, if that is less
# A single row shows cheaply which numbers are not worth a whole micro-batch, which may be slow where threads are few.
ROW_PASSES, ROW_RATIO, LEAST_ROWS = 3, 2.5, 4
RATIO = 1.5  # times the seconds of the fastest number: a slower one is not timed again
TIE = 1.05  # a larger number wins although it takes this much longer: its measurement is the noisier one


@dataclass(frozen=True)
class ThreadChoice:
    """A measurement of the threads.

    Attributes:
        update: number of updates before it.
        threads: the number that was chosen.
        tokens_per_second: of forward and backward passes, by number of threads. A number that is far too slow on a
            single row is not timed on a whole micro-batch, and has the pace of the row.
    """

    update: int
    threads: int
    tokens_per_second: dict[str, float]


def numbers_to_try(most: int) -> list[int]:
    """List the numbers of threads that are compared, the largest first: all cores, one fewer, one."""
    return sorted({most, max(1, most - 1), 1}, reverse=True)


def time_single_rows(numbers: Sequence[int], time_row: Callable[[int], float]) -> dict[int, float]:
    """Time passes over a single row with each number of threads; the first pass of each does not count.

    Args:
        time_row: sets a number of threads and returns the seconds per position of a pass.

    Returns:
        The median of each number.
    """
    return {
        threads: statistics.median_low([time_row(threads) for _ in range(1 + ROW_PASSES)][1:]) for threads in numbers
    }


def time_in_turns(
    numbers: Sequence[int], time_batch: Callable[[int], float], is_over: Callable[[], bool]
) -> dict[int, float]:
    """Time passes over a micro-batch with each number of threads in turns, so that what changes meets all of them.

    Each number has one pass at least. Those that are much slower than the fastest one are not timed again.

    Args:
        time_batch: sets a number of threads and returns the seconds per position of a pass.
        is_over: whether there is no time for another round.

    Returns:
        The median of each number.
    """
    paces: dict[int, list[float]] = {threads: [time_batch(threads)] for threads in numbers}
    while not is_over():
        medians = {threads: statistics.median_low(found) for threads, found in paces.items()}
        for threads in [one for one in numbers if medians[one] <= RATIO * min(medians.values())]:
            paces[threads].append(time_batch(threads))
    return {threads: statistics.median_low(found) for threads, found in paces.items()}


def pick_threads(paces: dict[int, float]) -> int:
    """Pick the largest number of threads whose seconds per position are about those of the fastest."""
    return max(threads for threads, pace in paces.items() if pace <= TIE * min(paces.values()))


def threads_are_measured(session: Session) -> bool:
    """Whether the number of threads follows the machine: on several cores without a GPU, for a budget of time.

    Several ranks share the cores evenly instead, because each waits for the slowest.
    """
    on_cores = session.parts.device.type == "cpu" and cores() > 1 and session.ranks.alone
    return on_cores and session.clock.budget.clock == "wall"


def fit_threads(session: Session) -> None:
    """Choose the number of threads at the start of a process, and watch the pace from then on.

    A resumed run keeps its number, unless it goes on with another number of cores. The pace of the chosen number is
    told to the clock.

    Raises:
        CramError: where one row does not fit into memory.
    """
    clock, processes = session.clock, session.state.processes
    began = clock.charged()
    has_rows = session.parts.loader.rows_left >= session.state.micro_rows
    if has_rows and (not processes or processes[-1]["environment"]["cores"] != cores()):
        _measure_threads(session, PROBE_SECONDS, is_first=True)
        choice = session.state.thread_choices[-1]
        print(f"CPU threads: {choice['threads']} ({_describe(choice['tokens_per_second'])})", flush=True)
    session.thread_watch = ThreadWatch(cores(), clock.charged(), clock.charged() - began)


def adapt_threads(session: Session) -> None:
    """Between two updates, measure the threads again if that is due.

    Raises:
        CramError: where one row does not fit into memory.
    """
    watch, clock = session.thread_watch, session.clock
    if watch is None or session.parts.loader.rows_left < session.state.micro_rows:
        return
    began = clock.charged()
    if not watch.is_due(began, clock.budget.limit - began, session.threads):
        return
    before = session.threads
    _measure_threads(session, REPEATED_SECONDS, is_first=False)
    choice = session.state.thread_choices[-1]
    if session.threads != before:
        print(
            f"CPU threads: {session.threads} instead of {before} from update {clock.updates} on "
            f"({_describe(choice['tokens_per_second'])})",
            flush=True,
        )
    watch.measured(clock.charged(), clock.charged() - began, session.threads != before)
    clock.begin_updates()


def threads_changed(session: Session) -> bool:
    """Whether the number of threads has changed between two measurements."""
    return len({choice["threads"] for choice in session.state.thread_choices}) > 1


def _measure_threads(session: Session, seconds: float, is_first: bool) -> None:
    """Measure the threads, set the best number, and record it in the state and the metrics of the run."""
    clock, before = session.clock, session.threads
    of_row, paces = _compare(session, min(seconds, PROBE_SHARE * clock.budget.limit), is_first)
    session.threads = set_threads(pick_threads(paces))
    if is_first or session.threads != before:
        clock.forget_pace()
        clock.learn_pace(paces[session.threads])
    speeds = {str(threads): round(1.0 / max(pace, 1e-12), 1) for threads, pace in (of_row | paces).items()}
    choice = asdict(ThreadChoice(clock.updates, session.threads, speeds))
    session.state.thread_choices.append(choice)
    write_record(session, "threads", {"threads": session.threads, "tokens_per_second": speeds})


def _compare(session: Session, seconds: float, is_first: bool) -> tuple[dict[int, float], dict[int, float]]:
    """Measure the seconds per position of each number of threads, for about so many seconds.

    Returns:
        Those of single rows, and those of whole micro-batches, which leave out numbers that are far too slow.
    """
    numbers, clock = numbers_to_try(cores()), session.clock
    of_row: dict[int, float] = {}
    if session.state.micro_rows >= LEAST_ROWS:
        of_row = time_single_rows(numbers, lambda threads: _time_with(session, threads, 1))
        numbers = [threads for threads in numbers if of_row[threads] <= ROW_RATIO * min(of_row.values())]
    if is_first:
        set_threads(min(numbers, key=lambda threads: of_row.get(threads, 0.0)))
        with clock.account("compilation"):
            run_or_halve(session)  # makes the buffers for a whole micro-batch
    end = clock.charged() + seconds
    return of_row, time_in_turns(numbers, lambda threads: _time_with(session, threads), lambda: clock.charged() >= end)


def _time_with(session: Session, threads: int, rows: int | None = None) -> float:
    set_threads(threads)
    return time_pass(session, rows)


def _describe(tokens_per_second: dict[str, float]) -> str:
    speeds = (f"{speed:,.0f} with {threads}" for threads, speed in tokens_per_second.items())
    return f"tokens a second: {', '.join(speeds)}"
