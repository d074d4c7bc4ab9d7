"""The section on a plan: what was chosen, what is predicted, and the candidates that it was chosen among."""

import shlex
from collections.abc import Sequence
from typing import Any

from cram.config.plan import PLANNED_KEYS
from cram.config.schema import collect_keys, get_value
from cram.planner.picture import draw_candidates
from cram.planner.plan import Candidate
from cram.planner.plan_file import WrittenPlan
from cram.planner.plan_report import best_of_each_size
from cram.reporting.page.blocks import (
    Block,
    Cell,
    Code,
    Column,
    Facts,
    Figure,
    Fold,
    Headline,
    Picture,
    Section,
    Table,
    Text,
)
from cram.reporting.pictures.svg import draw_svg
from cram.reporting.reading.plans import PlanData
from cram.reporting.sections.formats import (
    ABSENT,
    format_bytes,
    format_fixed,
    format_large,
    format_share,
    format_whole,
)
from cram.reporting.sections.recipe_differences import format_value


def plan_sections(plan: PlanData) -> list[Section]:
    """Show a plan. Links start from the folder of its file."""
    blocks: list[Block] = [
        _headline(plan),
        *_notes(plan),
        Code(f"python -m cram.train recipe={shlex.quote(str(plan.path))}", "Run it"),
    ]
    blocks.append(_chosen(plan))
    sections = [Section("plan", "Plan", blocks)]
    if plan.written is not None:
        sections.append(Section("candidates", "Candidates", _candidate_blocks(plan.written)))
    return sections


def _headline(plan: PlanData) -> Headline:
    predicted, model, written = plan.config.plan, plan.config.model, plan.written
    shape = f"{model.layers} layers of {model.width}, {model.heads} heads"
    parameters = None if written is None else written.plan.chosen.size.parameters
    figures = [
        Figure("budget", str(predicted.budget), detail=predicted.device or ""),
        Figure("model", format_large(parameters), "parameters", shape),
        Figure("predicted held-out loss", format_fixed(predicted.nats), "nats per token", _beside_unigram(plan)),
        Figure("tokens", format_large(predicted.tokens), detail=_ratio(written)),
        Figure("updates", format_whole(predicted.updates), detail=f"of {plan.config.batch.tokens:,} tokens"),
        Figure("speed", format_whole(predicted.tokens_per_second), "tokens per second"),
    ]
    return Headline([figure for figure in figures if figure.value != ABSENT])


def _beside_unigram(plan: PlanData) -> str:
    unigram = None if plan.written is None else plan.written.unigram
    return "" if unigram is None else f"unigram baseline {unigram:.3f}"


def _ratio(written: WrittenPlan | None) -> str:
    return "" if written is None else f"{written.plan.chosen.tokens_per_parameter:.1f} per parameter"


def _notes(plan: PlanData) -> list[Text]:
    written = plan.written
    if written is None:
        name = plan.path.with_suffix(".json").name
        return [Text(f"The candidates are not known: {name} is not beside the recipe. Plan again to get it.", "note")]
    chosen, candidates = written.plan.chosen, written.plan.candidates
    timed = sum(candidate.measured for candidate in candidates)
    basis = "the least loss that a law fitted to finished runs predicts"
    if not written.plan.by_law:
        basis = "the rule of tokens per parameter, because no fitted law covers such runs"
    error = "" if written.pace_error is None else f", off by {written.pace_error:.1%} at shapes left out"
    notes = [
        Text(
            f"Chosen among {len(candidates)} shapes, {timed} of them timed here, by {basis}. Seconds of an update: "
            f"{written.pace}{error}."
        )
    ]
    if written.available is not None and chosen.needed > written.available:
        notes.append(
            Text(
                f"The data holds {format_large(written.available)} tokens, and the budget has time for "
                f"{format_large(chosen.needed)}.",
                "warning",
            )
        )
    return notes


def _chosen(plan: PlanData) -> Facts:
    """The keys that the plan has chosen, or that were kept, with their meaning."""
    specs, kept = collect_keys(type(plan.config)), plan.config.plan.keep
    facts = []
    for name in PLANNED_KEYS:
        unit = specs[name].metadata["unit"]
        value = format_value(get_value(plan.config, name))
        own = " (given, not planned)" if name in kept else ""
        facts.append((name, f"{value}{f' {unit}' if unit and value != 'null' else ''}{own}"))
    return Facts(facts, title="What the plan has chosen")


def _candidate_blocks(written: WrittenPlan) -> list[Block]:
    plan = written.plan
    best = best_of_each_size(plan)

    def draw(_: Any, axes: Any) -> None:
        draw_candidates(axes, plan, written.unigram)

    seen = "Predicted loss" if plan.by_law else "Tokens per parameter"
    title = f"{seen} of the best candidate of each size"
    described = (
        f"The choice has {format_large(plan.chosen.size.parameters)} parameters. Vertical lines are the sizes that "
        "published rules give for the same compute."
    )
    others = [candidate for candidate in plan.candidates if candidate not in best]
    others.sort(key=lambda candidate: (candidate.size.parameters, candidate.shape.batch_tokens))
    blocks: list[Block] = [
        Picture(title, draw_svg("plan-candidates", draw, height=4.2), described),
        _table(best, written, "The best candidate of each size, the choice first"),
    ]
    if others:
        blocks.append(Fold(f"The other {len(others)} candidates", [_table(others, written)]))
    return blocks


def _table(candidates: Sequence[Candidate], written: WrittenPlan, title: str = "") -> Table:
    columns = [
        Column("layers x width"),
        Column("heads", numeric=True),
        Column("MLP width", numeric=True),
        Column("update", "tokens", numeric=True),
        Column("parameters", numeric=True),
        Column("speed", "tokens/s", numeric=True),
        Column("pace"),
        Column("tokens", numeric=True),
        Column("updates", numeric=True),
        Column("tokens per parameter", numeric=True),
        Column("predicted loss", "of unigram" if written.unigram is None else "nats", numeric=True),
        Column("memory", numeric=True),
        Column("data"),
    ]
    return Table(columns, [_row(candidate, written) for candidate in candidates], title=title)


def _row(candidate: Candidate, written: WrittenPlan) -> list[Cell]:
    shape, chosen = candidate.shape, candidate == written.plan.chosen
    loss = candidate.relative_loss
    if loss is None:
        predicted = Cell(ABSENT)
    elif written.unigram is None:
        predicted = Cell(format_share(loss), loss)
    else:
        predicted = Cell(format_fixed(loss * written.unigram), loss)
    if written.available is None:
        enough = Cell(ABSENT)
    else:
        enough = Cell("enough") if candidate.needed <= written.available else Cell("too little", tone="warning")
    return [
        Cell(f"{shape.layers} x {shape.width}", shape.layers * 1e6 + shape.width, tone="good" if chosen else "plain"),
        Cell(str(shape.heads), shape.heads),
        Cell(str(shape.mlp_width), shape.mlp_width),
        Cell(format_whole(shape.batch_tokens), shape.batch_tokens),
        Cell(format_large(candidate.size.parameters), candidate.size.parameters),
        Cell(format_whole(candidate.tokens_per_second), candidate.tokens_per_second),
        Cell("timed" if candidate.measured else "model"),
        Cell(format_large(candidate.needed), candidate.needed),
        Cell(format_whole(candidate.updates), candidate.updates),
        Cell(format_fixed(candidate.tokens_per_parameter, 1), candidate.tokens_per_parameter),
        predicted,
        Cell(format_bytes(candidate.size.memory), candidate.size.memory),
        enough,
    ]
