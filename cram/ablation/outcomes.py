"""The outcome of each arm: its figures over seeds, beside the baseline's, read from receipts."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cram.ablation.plan import ArmRun
from cram.ablation.table import AblationTable, Arm
from cram.evaluation.halves import HALVES, JUDGING, TUNING
from cram.evaluation.scores import BITS_NAMES
from cram.machine.different_devices import devices_of_receipt
from cram.run.checksums import is_finished, read_receipt, read_run_config
from cram.run.folder import keep_begun_plan, list_differences

RULE = "cramming_rule_"  # before the names of figures by Cramming's masking rule


def choose_rates(trials: Sequence[ArmRun]) -> dict[str, float]:
    """Choose the learning rate of each arm: the one whose run ended with the lowest loss on the tuning half.

    The whole held-out text decides where a half of it is missing: a small corpus may have no document in it.

    Returns:
        The factor of each arm that has a finished run.
    """
    best: dict[str, tuple[float, float]] = {}
    for run in trials:
        if (receipt := _usable_receipt(run)) and run.factor is not None:
            scores = receipt["held_out"].get(TUNING) or receipt["held_out"]
            candidate = (scores["nats_per_token"], run.factor)
            best[run.arm] = min(best.get(run.arm, candidate), candidate)
    return {arm: factor for arm, (_, factor) in best.items()}


def summarize_arms(
    runs: Sequence[ArmRun], table: AblationTable, rates: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Summarize the finished runs of a table.

    Args:
        rates: of `choose_rates`.

    Returns:
        The figures of each arm, in each column and with each budget, that has a finished run with a usable model, as
        results.json holds them. A figure over seeds is a mapping with mean, least, largest and all values.
        `over_baseline` is nats above the baseline's, over the seeds that both have; None without the baseline.
        `compares` says whether that is `better`, `worse`, or `not decided` by the seeds. Both are of the judging half
        of the held-out text; of the whole where a run has no such half, as `judged_by` says. `cramming_rule_compares`
        is the same by Cramming's masking rule, empty for causal models.
    """
    outcomes = {}
    for run in runs:
        place = (run.share, run.column, run.arm)
        if place not in outcomes and run.factor is None:
            same = [other for other in runs if (other.share, other.column, other.arm) == place]
            outcomes[place] = _summarize_arm(table.arms[run.arm], same)
    for (share, column, arm), outcome in outcomes.items():
        baseline = outcomes.get((share, column, table.baseline))
        if outcome is not None:
            outcome["rate"] = (rates or {}).get(arm)
            by = JUDGING if _has_half(outcome) and (baseline is None or _has_half(baseline)) else "whole"
            outcome["judged_by"] = by
            outcome["over_baseline"] = _nats_over(outcome, baseline, by) if baseline else None
            for prefix in ("", RULE):
                compares = _compare(outcome, baseline, by, prefix) if baseline and arm != table.baseline else ""
                outcome[f"{prefix}compares"] = compares
            expected = table.arms[arm].expected
            outcome["agrees"] = _agrees(expected, outcome["compares"])
    return [outcome for outcome in outcomes.values() if outcome is not None]


def _has_half(outcome: dict[str, Any]) -> bool:
    """Whether all runs of an arm have been scored on the judging half."""
    figures = outcome["halves"][JUDGING]["nats"]
    return figures is not None and len(figures["all"]) == len(outcome["seeds"])


def _judged(outcome: dict[str, Any], by: str, prefix: str = "") -> dict[str, Any] | None:
    """The nats over seeds that an arm is judged by."""
    figures: dict[str, Any] | None = (outcome if by == "whole" else outcome["halves"][by])[f"{prefix}nats"]
    return figures


def _compare(outcome: dict[str, Any], baseline: dict[str, Any], by: str, prefix: str) -> str:
    """Whether all seeds of an arm lie below or above all seeds of the baseline; one seed decides nothing."""
    ours, theirs = (_judged(one, by, prefix) for one in (outcome, baseline))
    if ours is None or theirs is None:
        return ""
    if min(len(ours["all"]), len(theirs["all"])) > 1:
        if ours["largest"] < theirs["least"]:
            return "better"
        if ours["least"] > theirs["largest"]:
            return "worse"
    return "not decided"


def _agrees(expected: str, compares: str) -> str:
    """Whether a comparison is what was published; `same` is what seeds do not decide."""
    if not expected or not compares:
        return ""
    return "yes" if (compares == "not decided" and expected == "same") or compares == expected else "no"


def _nats_over(outcome: dict[str, Any], baseline: dict[str, Any], by: str) -> float | None:
    """Mean difference to the baseline over the seeds that both have; None if they share none."""
    ours, theirs = (_judged(one, by) for one in (outcome, baseline))
    assert ours is not None and theirs is not None
    baseline_nats = dict(zip(baseline["seeds"], theirs["all"], strict=True))
    nats = dict(zip(outcome["seeds"], ours["all"], strict=True))
    shared = nats.keys() & baseline_nats.keys()
    return statistics.fmean(nats[seed] - baseline_nats[seed] for seed in shared) if shared else None


def _usable_receipt(run: ArmRun) -> dict[str, Any] | None:
    """The receipt of a run that is finished by its words and has a usable model; else None."""
    if not (is_finished(run.folder) and _is_unchanged(run)):
        return None
    receipt = read_receipt(run.folder)
    return None if receipt.get("failed") else receipt


def _summarize_arm(arm: Arm, runs: Sequence[ArmRun]) -> dict[str, Any] | None:
    """The figures of one arm; None without a finished run."""
    usable = [(run, receipt) for run in runs if (receipt := _usable_receipt(run))]
    if not usable:
        return None
    receipts, first = [receipt for _, receipt in usable], usable[0][0]
    return {
        "arm": first.arm,
        "column": first.column,
        "words": arm.words,
        "budget": first.config.budget,
        "seeds": [run.seed for run, _ in usable],
        **_losses([receipt["held_out"] for receipt in receipts]),
        "halves": {half: _losses([_half(receipt["held_out"], half) for receipt in receipts]) for half in HALVES},
        "tokens_per_second": _over_seeds([receipt["tokens_per_second"] for receipt in receipts]),
        "tokens": _over_seeds([receipt["positions"] for receipt in receipts]),
        "rows_read": _over_seeds([receipt["rows_read"] for receipt in receipts]),
        "seconds": {
            account: statistics.fmean(receipt["time"]["charged"][account] or 0.0 for receipt in receipts)
            for account in receipts[0]["time"]["charged"]
        },
        "peak_memory_bytes": max(_peak_memory(receipt) for receipt in receipts),
        "published": arm.published,
        "expected": arm.expected,
        "faults": sum(receipt["faults"]["skipped"] for receipt in receipts),
        "data": sorted({receipt["data"]["hash"] for receipt in receipts}),
        "device": sorted({name for receipt in receipts for name in devices_of_receipt(receipt)}),
    }


def _is_unchanged(run: ArmRun) -> bool:
    """Whether the run folder was trained by the words of the run, and not by others, and not extended."""
    config, expected = read_run_config(run.folder), keep_begun_plan(run.config)
    extended = read_receipt(run.folder).get("extensions")
    return config.budget == expected.budget and not extended and not list_differences(config, expected)


def _peak_memory(receipt: dict[str, Any]) -> int:
    """The bytes of the GPU's memory that a run has used, or of the host's for a run on a CPU."""
    peak = receipt["peak_memory_bytes"]
    return peak["gpu"] or peak["host"] or 0


def _half(held_out: dict[str, Any], half: str) -> dict[str, Any]:
    """The scores of a half by the names of those of the whole; empty where the half has none."""
    scores, by_rule = held_out.get(half) or {}, (held_out.get("cramming_rule") or {}).get(half)
    return scores | ({"cramming_rule": by_rule} if by_rule else {})


def _losses(held_out: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collect held-out losses over seeds; a figure is None where no run has it, as Cramming's rule of a decoder.

    Args:
        held_out: of each run, as in its receipt.
    """
    by_rule = [scores["cramming_rule"] for scores in held_out if scores.get("cramming_rule")]
    bits = [scores[name] for scores in held_out for name in BITS_NAMES.values() if name in scores]
    return {
        "nats": _over_seeds([scores["nats_per_token"] for scores in held_out if "nats_per_token" in scores]),
        "bits": _over_seeds(bits),
        f"{RULE}nats": _over_seeds([scores["nats_per_token"] for scores in by_rule]),
    }


def _over_seeds(values: list[float]) -> dict[str, Any] | None:
    """Mean, least, largest and all values; None if there are none."""
    if not values:
        return None
    return {"mean": statistics.fmean(values), "least": min(values), "largest": max(values), "all": values}
