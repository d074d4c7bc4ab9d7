"""Whether the figures of several runs compare, and why not."""

from collections.abc import Callable, Sequence
from typing import Any

from cram.reporting.page.blocks import Text
from cram.reporting.reading.runs import RunData, find_value
from cram.run.checksums import HELD_OUT, read_identity

OBJECTIVES = {"masked": "masked tokens", "causal": "the next token"}
FEW_NAMES = 6  # of runs in a sentence


def losses_compare(runs: Sequence[RunData]) -> bool:
    """Whether the held-out losses of runs mean the same: one objective, one vocabulary, one held-out set."""
    objectives = {run.config.objective.held_out for run in runs}
    vocabularies = {read_identity(run.folder)["tokenizer"] for run in runs}
    return len(objectives) == len(vocabularies) == len(set(_held_out_sets(runs))) == 1


def comparable_notes(runs: Sequence[RunData], labels: Sequence[str]) -> list[Text]:
    """State in sentences what stands between the figures of runs and a fair comparison.

    Args:
        runs: two at least.
        labels: their names, all different.
    """
    identities = [read_identity(run.folder) for run in runs]
    objectives = _group(labels, [run.config.objective.held_out for run in runs])
    vocabularies = _group(labels, [identity["tokenizer"] for identity in identities])
    data = _group(labels, [identity["data"] for identity in identities])
    held_out = _group(labels, _held_out_sets(runs))
    notes = []
    if len(objectives) > 1:
        found = _describe(objectives, OBJECTIVES.__getitem__)
        notes.append(Text(f"The losses are not comparable, because the objectives differ: {found}.", "warning"))
    if len(vocabularies) > 1:
        sizes = dict(zip(labels, [run.figure("data", "vocab_size") for run in runs], strict=True))
        found = _describe(vocabularies, sizes=sizes)
        notes.append(
            Text(
                f"The losses per token are not comparable, because the vocabularies differ: {found}. Bits per byte are "
                "comparable where the held-out text and the objective are the same.",
                "warning",
            )
        )
    if len(held_out) > 1 and len(objectives) == len(vocabularies) == 1:
        notes.append(
            Text(f"The losses are not comparable, because the held-out sets differ: {_describe(held_out)}.", "warning")
        )
    if len(data) > 1:
        same = "; the held-out set is the same" if len(held_out) == 1 else ""
        notes.append(Text(f"The training data differ: {_describe(data)}{same}.", "note" if same else "warning"))
    return [*notes, *_machine_notes(runs, labels), *_state_notes(runs, labels)]


def _held_out_sets(runs: Sequence[RunData]) -> list[Any]:
    """The checksums of the held-out sets, or where a run is not finished the keys that they follow from."""
    checksums = [find_value(run.receipt, "files", HELD_OUT) for run in runs]
    if None not in checksums:
        return checksums
    return [
        (
            run.config.data.source,
            run.config.data.held_out,
            run.config.data.seq_len,
            run.config.evaluation.tokens,
            run.config.evaluation.mask_rate,
        )
        for run in runs
    ]


def _machine_notes(runs: Sequence[RunData], labels: Sequence[str]) -> list[Text]:
    devices = _group(labels, [run.environment.get("device_name") for run in runs])
    ranks = _group(labels, [_ranks(run) for run in runs])
    notes = []
    for what, groups in (("devices", devices), ("numbers of ranks", ranks)):
        if len(groups) > 1:
            found = _describe(groups, str)
            text = f"The {what} differ, so compare over tokens or compute rather than over time: {found}."
            notes.append(Text(text, "note"))
    return notes


def _ranks(run: RunData) -> int:
    """The number of ranks at the end of a run; 1 for a run of an earlier version."""
    processes = run.told("processes") or [{}]
    number: int = processes[-1].get("ranks", 1)
    return number


def _state_notes(runs: Sequence[RunData], labels: Sequence[str]) -> list[Text]:
    """Sentences on runs that are not finished or have failed."""
    pairs = list(zip(runs, labels, strict=True))
    open_runs = [label for run, label in pairs if run.receipt is None]
    notes = []
    if open_runs:
        verb, its = ("is", "its") if len(open_runs) == 1 else ("are", "their")
        names = _list_names(open_runs)
        notes.append(Text(f"{names} {verb} not finished: the figures are those of {its} latest records.", "note"))
    for run, label in pairs:
        if run.status == "failed":
            notes.append(Text(f"{label} has no usable model: {run.figure('failed')}", "bad"))
    return notes


def _group(labels: Sequence[str], values: Sequence[Any]) -> dict[Any, list[str]]:
    """The labels of the runs by a value of theirs."""
    groups: dict[Any, list[str]] = {}
    for label, value in zip(labels, values, strict=True):
        groups.setdefault(value, []).append(label)
    return groups


def _describe(
    groups: dict[Any, list[str]],
    words: Callable[[Any], str] = lambda _: "",
    sizes: dict[str, Any] | None = None,
) -> str:
    """List the groups with their values: `demo and adamw (masked tokens); gpt (the next token)`."""
    parts = []
    for value, labels in groups.items():
        size = (sizes or {}).get(labels[0])
        described = words(value) if size is None else f"{size:,} entries"
        parts.append(_list_names(labels) + (f" ({described})" if described else ""))
    return "; ".join(parts)


def _list_names(labels: Sequence[str]) -> str:
    if len(labels) > FEW_NAMES:
        return f"{', '.join(labels[:FEW_NAMES])} and {len(labels) - FEW_NAMES} more"
    return ", ".join(labels[:-1]) + " and " + labels[-1] if len(labels) > 1 else labels[0]
