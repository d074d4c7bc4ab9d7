"""The sections on several runs side by side: their results, curves, equal budgets, seeds and recipes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cram.errors import CramError
from cram.reporting.page.blocks import Section
from cram.reporting.reading.runs import RunData
from cram.reporting.sections.axes import Places, shared_axes
from cram.reporting.sections.comparable import comparable_notes
from cram.reporting.sections.curves import training_curves
from cram.reporting.sections.equal_budget import equal_budget_blocks
from cram.reporting.sections.recipe_differences import recipe_differences
from cram.reporting.sections.results import results_blocks
from cram.reporting.sections.seeds import seed_blocks


def comparison_sections(runs: Sequence[RunData], axis: str | None = None) -> list[Section]:
    """Show several runs side by side. Links start from the folder that the paths of the runs start from.

    Args:
        runs: two at least.
        axis: name of the axis that curves are shown over first; None for `seconds`.

    Raises:
        CramError: a run has no records, and so no axis that it could be drawn over.
    """
    labels = tell_apart([run.folder for run in runs])
    _check_records(runs)
    places = [Places(run) for run in runs]
    axes = [shared.name for shared in shared_axes(places, axis)]
    sections = [
        Section("comparison", "Runs side by side", [*comparable_notes(runs, labels), *results_blocks(runs, labels)]),
        Section("compared-curves", "Curves", training_curves(runs, labels, axis)),
        Section("equal-budgets", "Loss at equal budgets", equal_budget_blocks(runs, places, labels, axes)),
    ]
    if seeds := seed_blocks(runs, labels):
        sections.append(Section("seeds", "Runs of the same recipe", seeds))
    title = "How the recipes differ"
    return [*sections, Section("recipe-differences", title, recipe_differences(runs, labels))]


def tell_apart(folders: Sequence[Path]) -> list[str]:
    """Name folders by their last parts: one where that tells them apart, else as many as it takes."""
    parts = [folder.resolve().parts for folder in folders]
    depths = [1] * len(parts)
    while True:
        names = ["/".join(path[-depth:]) for path, depth in zip(parts, depths, strict=True)]
        count = Counter(names)
        deeper = [
            depth + (count[name] > 1 and depth < len(path))
            for name, depth, path in zip(names, depths, parts, strict=True)
        ]
        if deeper == depths:
            return names
        depths = deeper


def _check_records(runs: Sequence[RunData]) -> None:
    for run in runs:
        if not run.of_kind("train") and not run.of_kind("held_out"):
            raise CramError(
                f"run={run.folder} shares no axis with the others: it has no records of training. Leave it out, or "
                "wait until it has written some."
            )
