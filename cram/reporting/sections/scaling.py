"""The sections on fits of cram.plan fit=: scaling laws beside the published ones, and one epoch against several."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from cram.errors import CramError
from cram.planner.fit_file import KindFits
from cram.planner.fit_plot import list_panels
from cram.planner.fit_report import describe_fits, list_constants
from cram.planner.repeated_data import EpochRun, Speedup, Window
from cram.planner.repeated_data_report import PUBLISHED_SPEEDUPS, RepeatedData, draw_size, list_sizes
from cram.planner.size_rules import ONE_EPOCH_WINDOW
from cram.reporting.page.blocks import Block, Cell, Column, Facts, Fold, Picture, Section, Side, Table, Text
from cram.reporting.pictures.svg import draw_svg
from cram.reporting.sections.formats import ABSENT, format_fixed, format_large, format_share

PANEL_WIDTH, PANEL_HEIGHT = 5.0, 3.9  # inches: two stand beside each other


def scaling_sections(fits: Sequence[KindFits], repeated_data: RepeatedData | None) -> list[Section]:
    """Show the fits to finished runs.

    Args:
        fits: of each kind of runs.
        repeated_data: what runs on repeated data say; None without such runs.

    Raises:
        CramError: a number is impossible, so that nothing can be drawn of it.
    """
    try:
        return _make_sections(fits, repeated_data)
    except (ArithmeticError, ValueError) as error:
        raise CramError(
            f"fit.json or one_epoch.json: damaged, it holds an impossible number ({error}). Make both again with "
            "python -m cram.plan fit=DIR."
        ) from None


def _make_sections(fits: Sequence[KindFits], repeated_data: RepeatedData | None) -> list[Section]:
    sections = []
    for number, kind_fits in enumerate(fits):
        kind = kind_fits.kind
        title = "Scaling laws" if len(fits) == 1 else f"Scaling laws: {kind.model}, {kind.objective}"
        sections.append(Section(f"scaling-{number}", title, _kind_blocks(kind_fits, f"fit-{number}")))
    if repeated_data is not None:
        sections.append(Section("one-epoch", "One epoch against several", _epoch_blocks(repeated_data)))
    return sections


def _kind_blocks(fits: KindFits, name: str) -> list[Block]:
    kind = fits.kind
    pictures = [
        Picture(
            panel.title.capitalize(),
            draw_svg(
                f"{name}-{panel.name}",
                partial(_draw_panel, panel.draw),
                PANEL_WIDTH,
                PANEL_HEIGHT,
            ),
            f"{panel.title.capitalize()}, with the fitted lines. The tables below hold the constants and all runs.",
        )
        for panel in (list_panels(fits.runs, fits.laws, fits.batches) if fits.laws or fits.batches else ())
    ]
    facts = [
        ("runs", str(len(fits.runs))),
        ("model", kind.model),
        ("objective", kind.objective),
        ("text", kind.text),
        ("vocabulary", f"{kind.vocab_size:,}"),
    ]
    return [
        Facts(facts),
        *(Side(pictures[begin : begin + 2]) for begin in range(0, len(pictures), 2)),
        *_constants(fits),
        _remarks(fits),
        Fold("All runs of the fits", [_runs(fits)]),
    ]


def _draw_panel(draw: Callable[[Any], None], figure: Any, axes: Any) -> None:
    """Draw a panel, with room for a label at the end of an axis: the page's font may be wider than the drawing's."""
    figure.get_layout_engine().set(w_pad=0.12)
    draw(axes)


def _constants(fits: KindFits) -> list[Block]:
    """The constants of all laws beside the published ones; nothing where no law was fitted."""
    rows = [
        [Cell(law), Cell(constant), Cell(value), Cell(interval), Cell(published or ABSENT)]
        for law, constant, value, interval, published in list_constants(fits)
    ]
    columns = [
        Column("law"),
        Column("constant"),
        Column("fitted", numeric=True),
        Column("5th to 95th percentile", numeric=True),
        Column("published", numeric=True),
    ]
    note = "Published: Kaplan et al., arXiv:2001.08361, for decoders on WebText2."
    return [Table(columns, rows, title="Fitted constants", note=note, sortable=False)] if rows else []


def _remarks(fits: KindFits) -> Table:
    """What each fit was made from, how well it fits, and what the runs cannot tell."""
    parts = [sentence.partition(": ") for sentence in describe_fits(fits)]
    rows = [[Cell(law), Cell(remark[:1].upper() + remark[1:])] for law, _, remark in parts]
    return Table([Column("law"), Column("remark")], rows, title="How far the fits hold", sortable=False)


def _runs(fits: KindFits) -> Table:
    columns = [
        Column("run"),
        Column("parameters", "without embedding", numeric=True),
        Column("tokens", numeric=True),
        Column("tokens of an update", numeric=True),
        Column("epochs", numeric=True),
        Column("held-out loss", "nats", numeric=True),
        Column("of unigram", numeric=True),
    ]
    rows = [
        [
            Cell(run.name),
            _number(run.parameters),
            _number(run.tokens),
            _number(run.batch),
            Cell(format_fixed(run.epochs, 2), run.epochs),
            Cell(format_fixed(run.nats), run.nats),
            Cell(format_share(run.relative_loss), run.relative_loss),
        ]
        for run in fits.runs
    ]
    return Table(columns, rows)


def _epoch_blocks(found: RepeatedData) -> list[Block]:
    pictures = [_size_picture(found.runs, size, number) for number, size in enumerate(list_sizes(found.runs))]
    blocks: list[Block] = [
        Text(
            "S trains on each token once, M10 ten times on a tenth of them, D with dropout. The tokens are counted as "
            "often as they are seen."
        ),
        *(Side(pictures[begin : begin + 2]) for begin in range(0, len(pictures), 2)),
    ]
    if found.speedups:
        blocks.append(_speedups(found.speedups))
    if found.windows:
        blocks.append(_windows(found.windows))
    return [*blocks, Fold("The same in sentences", [Text(sentence) for sentence in found.describe()])]


def _size_picture(runs: Sequence[EpochRun], size: int, number: int) -> Picture:
    def draw(axes: Any) -> None:
        draw_size(axes, runs, size)
        axes.set(title="", ylabel="held-out nats per predicted token")
        axes.legend(frameon=False)

    least = {run.arm: run.run.least_nats for run in runs if run.all_parameters == size}
    described = ", ".join(f"{arm} {nats:.3f}" for arm, nats in sorted(least.items()))
    title = f"Held-out loss over tokens, {size:,} parameters"
    return Picture(
        title,
        draw_svg(f"epochs-{number}", partial(_draw_panel, draw), PANEL_WIDTH, PANEL_HEIGHT),
        f"Least losses: {described}.",
    )


def _speedups(speedups: Sequence[Speedup]) -> Table:
    columns = [
        Column("parameters", numeric=True),
        Column("epochs", numeric=True),
        Column("dropout"),
        Column("its least loss", "nats", numeric=True),
        Column("after tokens", numeric=True),
        Column("one epoch needs", "tokens", numeric=True),
        Column("speed-up", "times", numeric=True),
        Column("between", numeric=True),
        Column("published", numeric=True),
    ]
    rows = [
        [
            _number(speedup.all_parameters),
            Cell(f"{speedup.epochs:.0f}", speedup.epochs),
            Cell("yes" if speedup.dropout else "no"),
            Cell(format_fixed(speedup.nats), speedup.nats),
            _number(speedup.tokens_to_best),
            _number(speedup.tokens_of_single),
            Cell(format_fixed(speedup.factor, 2), speedup.factor),
            Cell("{:.2f} to {:.2f}".format(*speedup.interval) if speedup.interval else ABSENT),
            Cell(PUBLISHED_SPEEDUPS.get(round(speedup.epochs), ABSENT)),
        ]
        for speedup in speedups
    ]
    note = "Published: One Epoch Is All You Need, arXiv:1906.06669. A dash: one epoch does not reach the loss."
    return Table(columns, rows, title="How much faster one epoch is than several", note=note)


def _windows(windows: Sequence[Window]) -> Table:
    columns = [
        Column("parameters", numeric=True),
        Column("best from", "tokens", numeric=True),
        Column("to", "tokens", numeric=True),
        Column("from", "tokens per parameter", numeric=True),
        Column("to", "tokens per parameter", numeric=True),
    ]
    rows = []
    for window in windows:
        low, high = window.first / window.all_parameters, window.last / window.all_parameters
        sizes = [_number(value) for value in (window.all_parameters, window.first, window.last)]
        rows.append([*sizes, Cell(f"{low:.2f}", low), Cell(f"{high:.2f}", high)])
    least, most = ONE_EPOCH_WINDOW
    note = f"Published: {least} to {most} tokens per parameter."
    return Table(columns, rows, title="For which tokens each size is the best", note=note)


def _number(value: float | None) -> Cell:
    if value is None or not math.isfinite(value):
        return Cell(ABSENT)
    return Cell(format_large(value), value)
