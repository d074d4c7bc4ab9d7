"""What `cram.plan fit=DIR` does: fits all laws that finished runs allow, prints them, writes fit.json and a picture."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cram.errors import CramError
from cram.planner.context_report import report_context
from cram.planner.curve_fit import find_power_region, fit_batches
from cram.planner.fit import LawFit, LeftOut, find_doubt, fit_compute, fit_data, fit_size, fit_size_data
from cram.planner.fit_file import FITS_FILE, KindFits, write_fits
from cram.planner.fit_plot import plot_fits
from cram.planner.laws import CRITICAL_BATCH
from cram.planner.loss_law import CONSTANTS, fit_loss_law, write_loss_law
from cram.planner.repeated_data import select_epoch_runs
from cram.planner.repeated_data_report import report_repeated_data
from cram.planner.runs import FittedRun, RunKind, read_runs, runs_of_usual_batch

PLANS = "the law of plans"
PLAIN_WIDTH = 140  # columns where the output is not a terminal
FITS: dict[str, Callable[[Sequence[FittedRun]], LawFit]] = {
    "L(N)": fit_size,
    "L(D)": fit_data,
    "L(N, D)": fit_size_data,
    "L(C)": fit_compute,
}


def print_fit(folder: Path, to: Path | None) -> int:
    """Fit all laws that the finished runs of a folder allow, and print them beside the published constants.

    Writes fit.json and a picture for each kind of runs into the folder. For runs that repeat their data, and for causal
    models, there are reports and pictures of their own.

    Args:
        folder: with finished runs, such as a table of `cram.ablate`, or with such folders.
        to: file for the law that plans predict with; None for none.

    Returns:
        The exit status.

    Raises:
        CramError: the folder has unfinished runs or none, its runs allow no fit, or not the one for `to`.
    """
    runs = read_runs(folder)
    kinds = {run.kind: [other for other in runs if other.kind == run.kind] for run in runs}
    if to is not None and len(kinds) > 1:
        found = "; ".join(f"{kind.model}, {kind.objective}" for kind in kinds)
        raise CramError(f"to=: the runs are of several kinds ({found}). Name a folder with one kind.")
    fits = [fit_kind(kind, group) for kind, group in kinds.items()]
    epoch_runs = select_epoch_runs(runs)
    if not epoch_runs and not any(kind_fits.laws or kind_fits.batches for kind_fits in fits):
        raise next(iter(fits[0].missing.values()))
    if to is not None:
        if fits[0].loss_law is None:
            raise fits[0].missing[PLANS]
        write_loss_law(to, fits[0].loss_law)
    for kind_fits in fits:
        _print_kind(kind_fits)
    write_fits(folder, fits)
    pictures = [plot_fits(folder, kind_fits.runs, kind_fits.laws, kind_fits.batches) for kind_fits in fits]
    print(f"{folder}: {FITS_FILE}, {', '.join(picture.name for picture in pictures)}")
    if epoch_runs:
        report_repeated_data(folder, epoch_runs)
    report_context(folder, runs)
    return 0


def fit_kind(kind: RunKind, runs: list[FittedRun]) -> KindFits:
    """Make all fits that the runs of one kind allow.

    The laws of size, data and compute say nothing of the batch: they are fitted to the most common batch size.
    """
    fits = KindFits(kind, runs)
    one_batch = runs_of_usual_batch(runs)
    for law, fit in FITS.items():
        try:
            fits.laws.append(fit(one_batch))
        except CramError as error:
            fits.missing[law] = error
    try:
        fits.batches = fit_batches(runs)
    except CramError as error:
        fits.missing["the critical batch"] = error
    largest = max(runs, key=lambda run: run.compute)
    fits.curve = find_power_region(largest.curve)
    try:
        fits.loss_law = fit_loss_law(runs)
        fits.left_out = _leave_out(largest, runs)
    except CramError as error:
        fits.missing[PLANS] = error
    return fits


def _leave_out(largest: FittedRun, runs: list[FittedRun]) -> LeftOut | None:
    """Predict one run by the law that plans use, fitted to the others; None where these are too few."""
    try:
        law = fit_loss_law([run for run in runs if run != largest], resamples=0)
    except CramError:
        return None
    predicted = law.predict(largest.parameters, largest.tokens, largest.batch) * largest.unigram_nats
    return LeftOut(largest.name, largest.nats, predicted)


def _print_kind(fits: KindFits) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    kind = fits.kind
    title = f"{len(fits.runs)} runs: {kind.model}, {kind.objective}, {kind.text}, vocabulary of {kind.vocab_size:,}"
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for heading in ("law", "constant", "fitted", "5th to 95th percentile", "published"):
        table.add_column(heading, justify="left" if heading in ("law", "constant") else "right")
    for row in list_constants(fits):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH).print(table)
    for line in describe_fits(fits):
        print(line)


def list_constants(fits: KindFits) -> list[tuple[str, str, str, str, str]]:
    """List all fitted constants as text: law, constant, value, interval, and the published value or nothing."""
    rows = []
    for fit in fits.laws:
        for name, value in fit.constants.items():
            rows.append((fit.law, *_cells(name, value, fit.intervals[name]), f"{fit.published[name]:.3g}"))
    for batch_fit in fits.batches:
        published = {"critical_batch": f"{CRITICAL_BATCH.tokens(batch_fit.nats):.3g}"}
        for name, value in batch_fit.constants.items():
            cells = _cells(name, value, batch_fit.intervals[name])
            rows.append((f"at {batch_fit.nats:.2f} nats", *cells, published.get(name, "")))
    if fits.loss_law is not None:
        for name in CONSTANTS:
            cells = _cells(name, getattr(fits.loss_law, name), fits.loss_law.intervals[name])
            rows.append(("of plans", *cells, ""))
    return rows


def _cells(name: str, value: float, interval: tuple[float, float]) -> tuple[str, str, str]:
    low, high = interval
    return name.replace("_", " "), f"{value:.3g}", f"{low:.3g} to {high:.3g}"


def describe_fits(fits: KindFits) -> list[str]:
    """Describe in sentences what each fit was made from, how well it fits, and what the runs cannot tell."""
    lines = []
    for fit in fits.laws:
        lines.append(
            f"{fit.law}: {fit.runs} {fit.what}, residual {fit.residual:.1%} of the loss.{_predicted(fit.left_out)}"
        )
        lines += [f"{fit.law}: {doubt}" for doubt in fit.doubts]
    for batch_fit in fits.batches:
        lines += [f"at {batch_fit.nats:.2f} nats: {doubt}" for doubt in batch_fit.doubts]
    if fits.loss_law is not None:
        law = fits.loss_law
        lines.append(f"of plans: {law.runs} runs, residual {law.residual:.1%} of the loss.{_predicted(fits.left_out)}")
        names = ("size_exponent", "update_exponent", "critical_batch")
        found = (find_doubt(name, getattr(law, name), law.intervals[name]) for name in names)
        lines += [f"of plans: {doubt}" for doubt in found if doubt is not None]
    if fits.curve is not None:
        low, high = fits.curve.interval
        lines.append(
            f"learning curve of the largest run: a power law of exponent {fits.curve.exponent:.3f} ({low:.3f} to "
            f"{high:.3f}) from {fits.curve.first:,.0f} to {fits.curve.last:,.0f} tokens."
        )
    return lines + [f"{law}: not fitted. {_sentence(error)}" for law, error in fits.missing.items()]


def _sentence(error: CramError) -> str:
    """The message of an error without the key that begins it."""
    message = str(error).removeprefix("fit=: ")
    return message[:1].upper() + message[1:]


def _predicted(left_out: LeftOut | None) -> str:
    if left_out is None:
        return " Without the largest run the others are too few."
    return (
        f" Without {left_out.name} it predicts {left_out.predicted:.3f} nats for that run, which reached "
        f"{left_out.observed:.3f}."
    )
