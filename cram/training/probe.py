"""Two short measurements before training, both charged to the budget: the micro-batch that fits, and the pace."""

import statistics

import torch

from cram.config.config import Config
from cram.errors import CramError
from cram.planner.micro_batch import cpu_micro_rows, power_of_two
from cram.terminal.progress import format_tokens
from cram.training.loop import requested_rows
from cram.training.passes import PROBE_SECONDS, run_or_halve, run_pass, time_pass
from cram.training.protocols import LoaderProtocol
from cram.training.session import Session

MOST_RECORDS = 2000  # of training in a run, about, unless log_interval= says more
_ROUND_INTERVALS: list[int] = [digit * 10**power for power in range(15) for digit in (1, 2, 5)]
PARTS = 100  # of the budget, in each of which the size of an update is taken to be constant
HEADROOM = 0.9  # share of the GPU's memory that a micro-batch may fill: evaluation and fragmentation need the rest


def check_one_batch(loader: LoaderProtocol, config: Config) -> None:
    """Check that the data holds the largest update of the recipe.

    Raises:
        CramError: where it does not.
    """
    tokens = max(config.batch.tokens, config.batch.start_tokens or 0) * (config.objective.superposition or 1)
    available = loader.rows_total * config.data.seq_len
    if available < tokens:
        raise CramError(
            f"the corpus is too small for one batch: it has {available:,} tokens, an update reads {tokens:,}.\n"
            "Give more text (data.source=), or lower batch.tokens."
        )


def find_micro_rows(session: Session, requested: int | None) -> None:
    """Set the micro-batch of a rank: `requested` rows, or the largest power of two that fits into memory and an update.

    On a CPU the ranks share what would be the micro-batch of one of them, so that updates have the same sizes.
    """
    ranks = session.ranks.size
    session.state.ranks = ranks
    most = max(1, round(session.parts.batch_tokens(1.0) / session.parts.seq_len))
    most = max(1, min(most, session.parts.loader.rows_total) // ranks)
    if requested is not None:
        session.state.micro_rows = max(1, min(requested, most))
    elif session.parts.device.type == "cpu":
        session.state.micro_rows = max(1, cpu_micro_rows(most * ranks, session.parts.seq_len) // ranks)
    else:
        with session.clock.account("probe"):
            session.state.micro_rows = _largest_that_fits(session, power_of_two(most))


def _largest_that_fits(session: Session, most: int) -> int:
    """Double the rows until memory is short. The moments of the optimizer, which do not exist yet, are counted in."""
    total = torch.cuda.get_device_properties(session.parts.device).total_memory
    parameters = sum(p.numel() for p in session.parts.model.parameters())
    moments = 2 * 4 * parameters // session.ranks.size
    rows = 1
    while rows < most:
        torch.cuda.reset_peak_memory_stats(session.parts.device)
        if not run_pass(session, 2 * rows):
            torch.cuda.empty_cache()
            break
        if torch.cuda.max_memory_allocated(session.parts.device) + moments > HEADROOM * total:
            break
        rows *= 2
    return rows


def measure_pace(session: Session) -> None:
    """Measure the seconds of a position and tell them to the clock: one warm-up pass, then passes for about a second.

    What the clock had learned before is forgotten. The warm-up is booked to `compilation`, because it makes kernels and
    buffers; the other passes to `probe`.

    Raises:
        CramError: where one row does not fit into memory.
    """
    clock = session.clock
    clock.forget_pace()
    with clock.account("compilation"):
        run_or_halve(session)
    paces: list[float] = []
    end = clock.charged() + PROBE_SECONDS
    while not paces or clock.charged() < end:
        paces.append(time_pass(session))
    # The median, because a single pass that was held up does not change it.
    clock.learn_pace(statistics.median_low(paces))


def rows_needed(session: Session) -> int:
    """Compute the rows of the model that the whole budget would take, however many the data has."""
    clock = session.clock
    if clock.budget.clock == "tokens":
        return round(clock.budget.limit / session.parts.seq_len)
    if clock.budget.clock == "wall":
        left = clock.budget.limit - clock.charged()
        return session.parts.loader.rows_taken + round(
            left / (clock.seconds_per_position or 1.0) / session.parts.seq_len
        )
    if clock.budget.clock == "rst":
        return session.parts.loader.rows_taken + round(
            (clock.budget.limit - clock.spent()) / (clock.cost(session.parts.seq_len) or 1.0)
        )
    return sum(requested_rows(session, step / clock.budget.limit) for step in range(int(clock.budget.limit)))


def choose_log_interval(session: Session) -> int:
    """Choose the updates between two training records: 1 for a short run, for others one that gives at most 2,000.

    It is one of 1, 2, 5, 10, 20 and so on, so that a resumed run, which may predict another number of updates, mostly
    chooses the same.
    """
    updates = predict_updates(session)
    fitting = (interval for interval in _ROUND_INTERVALS if updates <= interval * MOST_RECORDS)
    return next(fitting, _ROUND_INTERVALS[-1])


def predict_updates(session: Session) -> float:
    """Predict the updates of the whole run, from the rows that it takes and the size of the updates over progress."""
    parts, budget = session.parts, session.clock.budget
    sizes = [requested_rows(session, (part + 0.5) / PARTS) for part in range(PARTS)]
    available = parts.loader.rows_total / _rows_read(session)
    if budget.clock == "steps":
        return min(budget.limit, available / statistics.fmean(sizes))
    return min(rows_needed(session), available) * statistics.fmean(1 / size for size in sizes)


def _rows_read(session: Session) -> float:
    """Compute how many rows are read for each row of the model, on average over the budget."""
    joined = [session.parts.objective.rows_joined((part + 0.5) / PARTS) for part in range(PARTS)]
    return session.parts.methods.reads_ahead * statistics.fmean(joined)


def data_report(session: Session, needed: int, tokens: int) -> str:
    """Describe in one or two lines how many tokens there are and are needed, and what to do where they do not suffice.

    Args:
        needed: rows that the budget takes, and `tokens`: tokens that the data has, all epochs together.
    """
    rows = session.parts.loader.rows_total / _rows_read(session)
    share = rows / max(needed, 1)
    tokens_needed = float(f"{tokens / share:.2g}")
    line = f"data: {format_tokens(tokens)} tokens, about {format_tokens(tokens_needed)} needed for the budget"
    if share >= 1.0:
        return line + "."
    return (
        f"{line}: it will run out at about {share:.0%} of the budget, and the schedule lands there.\n"
        f"To use it all: give more text (data.source=, data.tokens=), or allow data.epochs={-(-needed // rows)}."
    )
