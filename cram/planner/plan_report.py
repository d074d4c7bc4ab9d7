"""A plan as text: the table of its candidates, and the choice in two lines."""

import math

from cram.planner.plan import Candidate, Plan
from cram.terminal.progress import format_tokens

ROWS = 12  # the best candidates, one of each size
HEADINGS = ("shape", "batch", "parameters", "tokens/s", "tokens", "updates", "tokens/param", "nats", "memory", "data")


def describe_choice(plan: Plan, unigram: float | None, timed: int) -> str:
    """Describe the choice: shape, pace, tokens, updates, predicted loss, and what these rest on.

    Args:
        plan: with the choice.
        unigram: nats per token of the unigram baseline; None if unknown.
        timed: number of shapes that were timed here.
    """
    chosen = plan.chosen
    shape = chosen.shape
    basis = "a loss fitted to finished runs" if plan.by_law else "the rule of tokens per parameter"
    return (
        f"plan: {shape.layers} layers of {shape.width}, {shape.heads} heads, updates of {shape.batch_tokens:,} tokens: "
        f"{chosen.updates:,} updates, {format_tokens(chosen.tokens)} tokens at {chosen.tokens_per_second:,.0f} a "
        f"second, {chosen.tokens_per_parameter:.1f} per parameter; predicted loss {_format_nats(chosen, unigram)}.\n"
        f"      chosen by {basis} among {len(plan.candidates)} shapes, {timed} of them timed here."
    )


def print_plan_table(plan: Plan, unigram: float | None, available: int | None) -> None:
    """Print the best candidate of each size, the chosen one marked.

    Args:
        plan: to print.
        unigram: nats per token of the unigram baseline; None if unknown.
        available: tokens that the data has; None if unknown.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "shape" else "right")
    for candidate in best_of_each_size(plan)[:ROWS]:
        style = "bold" if candidate == plan.chosen else None
        table.add_row(*_cells(candidate, candidate == plan.chosen, unigram, available), style=style)
    Console(width=140).print(table)


def best_of_each_size(plan: Plan) -> list[Candidate]:
    """Give the candidate with the best batch for each size of model: the chosen one first, then the others, best first.

    The order is that of the predicted loss. Candidates without one come last, those first that are most like the choice
    in tokens per parameter and size of updates.
    """

    def order(candidate: Candidate) -> tuple[float, float]:
        likeness = abs(math.log(max(candidate.tokens_per_parameter, 1e-9) / plan.chosen.tokens_per_parameter))
        likeness += abs(math.log(candidate.shape.batch_tokens / plan.chosen.shape.batch_tokens))
        return (math.inf if candidate.relative_loss is None else candidate.relative_loss, likeness)

    best: dict[tuple[int, ...], Candidate] = {}
    for candidate in sorted(plan.candidates, key=order):
        shape = candidate.shape
        best.setdefault((shape.layers, shape.width, shape.heads, shape.mlp_width), candidate)
    others = [candidate for candidate in best.values() if candidate != plan.chosen]
    return [plan.chosen, *sorted(others, key=order)]


def _cells(candidate: Candidate, is_chosen: bool, unigram: float | None, available: int | None) -> tuple[str, ...]:
    shape = candidate.shape
    enough = "?" if available is None else "enough" if candidate.needed <= available else "too little"
    return (
        f"{'> ' if is_chosen else '  '}{shape.layers} x {shape.width}, {shape.heads} heads",
        f"{shape.batch_tokens:,}",
        f"{candidate.size.parameters / 1e6:.2f} M",
        f"{candidate.tokens_per_second:,.0f}{'' if candidate.measured else ' (model)'}",
        format_tokens(candidate.needed),
        f"{candidate.updates:,}",
        f"{candidate.tokens_per_parameter:.1f}",
        _format_nats(candidate, unigram),
        f"{candidate.size.memory / 1e9:.2f} GB",
        enough,
    )


def _format_nats(candidate: Candidate, unigram: float | None) -> str:
    if candidate.relative_loss is None:
        return "unknown"
    if unigram is None:
        return f"{candidate.relative_loss:.3f} of unigram"
    return f"{candidate.relative_loss * unigram:.3f}"
