"""The outcome of each arm: its figures over seeds, beside the baseline's, read from receipts."""

import statistics
from collections.abc import Sequence
from typing import Any

from cram.ablation.plan import ArmRun
from cram.ablation.table import AblationTable, Arm
from cram.run.checksums import is_finished, read_receipt, read_run_config
from cram.run.folder import keep_begun_plan, list_differences


def summarize_arms(runs: Sequence[ArmRun], table: AblationTable) -> list[dict[str, Any]]:
    """Summarize the finished runs of a table.

    Returns:
        The figures of each arm that has a finished run with a usable model, as results.json holds them. A figure over
        seeds is a mapping with mean, least, largest and all values. `over_baseline` is nats above the baseline's, over
        the seeds that both have; None without the baseline.
    """
    outcomes = {}
    for name, arm in table.arms.items():
        outcome = _summarize_arm(name, arm, [run for run in runs if run.arm == name])
        if outcome is not None:
            outcomes[name] = outcome
    baseline = outcomes.get(table.baseline)
    for outcome in outcomes.values():
        outcome["over_baseline"] = _nats_over(outcome, baseline) if baseline else None
    return list(outcomes.values())


def _nats_over(outcome: dict[str, Any], baseline: dict[str, Any]) -> float | None:
    """Mean difference to the baseline over the seeds that both have; None if they share none."""
    baseline_nats = dict(zip(baseline["seeds"], baseline["nats"]["all"], strict=True))
    nats = dict(zip(outcome["seeds"], outcome["nats"]["all"], strict=True))
    shared = nats.keys() & baseline_nats.keys()
    return statistics.fmean(nats[seed] - baseline_nats[seed] for seed in shared) if shared else None


def _summarize_arm(name: str, arm: Arm, runs: Sequence[ArmRun]) -> dict[str, Any] | None:
    """The figures of one arm; None without a finished run."""
    finished = [run for run in runs if is_finished(run.folder) and _is_unchanged(run)]
    pairs = [(run, read_receipt(run.folder)) for run in finished]
    usable = [(run, receipt) for run, receipt in pairs if not receipt.get("failed")]
    if not usable:
        return None
    receipts = [receipt for _, receipt in usable]
    return {
        "arm": name,
        "words": arm.words,
        "budget": usable[0][0].config.budget,
        "seeds": [run.seed for run, _ in usable],
        "nats": _over_seeds([receipt["held_out"]["nats_per_token"] for receipt in receipts]),
        "cramming_rule_nats": _over_seeds([nats for receipt in receipts if (nats := _cramming_rule_nats(receipt))]),
        "tokens_per_second": _over_seeds([receipt["tokens_per_second"] for receipt in receipts]),
        "tokens": _over_seeds([receipt["positions"] for receipt in receipts]),
        "faults": sum(receipt["faults"]["skipped"] for receipt in receipts),
        "data": sorted({receipt["data"]["hash"] for receipt in receipts}),
        "device": sorted({receipt["device"] for receipt in receipts}),
    }


def _is_unchanged(run: ArmRun) -> bool:
    """Whether the run folder was trained by the words of the run, and not by others, and not extended."""
    config, expected = read_run_config(run.folder), keep_begun_plan(run.config)
    extended = read_receipt(run.folder).get("extensions")
    return config.budget == expected.budget and not extended and not list_differences(config, expected)


def _cramming_rule_nats(receipt: dict[str, Any]) -> float | None:
    """Held-out nats per token with tokens hidden by Cramming's rule; a decoder's run has none."""
    scores = receipt["held_out"].get("cramming_rule")
    return scores["nats_per_token"] if scores else None


def _over_seeds(values: list[float]) -> dict[str, Any] | None:
    """Mean, least, largest and all values; None if there are none."""
    if not values:
        return None
    return {"mean": statistics.fmean(values), "least": min(values), "largest": max(values), "all": values}
