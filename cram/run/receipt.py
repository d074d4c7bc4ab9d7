"""Parts of receipt.json that are computed from other figures: the rules of Cramming, the table of time, MFU."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cram.budget import Budget
from cram.clock import CHARGED, NOT_CHARGED
from cram.config.plan import PlanConfig

DAY = 86400.0  # seconds
LEAST_USED = 0.97  # share of a wall-clock budget that must be spent, without stalls
TOLERANCE = 0.5  # seconds by which a wall-clock budget may be exceeded, however short the updates are
MASKED_RULE = "masked language modelling"
BUDGET_RULE = "budget kept within half an update, and used"
# Names of the downstream benchmark and its tasks, as parts of a path or of the name of a data set.
DOWNSTREAM = {
    "glue",
    "super_glue",
    "cola",
    "sst-2",
    "sst2",
    "mrpc",
    "sts-b",
    "stsb",
    "qqp",
    "mnli",
    "qnli",
    "rte",
    "wnli",
}
# Figures at the top level of a receipt that `summarize` takes.
SUMMARIZED = (
    *("updates", "positions", "predicted_tokens", "repeated_rows", "tokens_per_second", "mfu"),
    *("device", "precision", "seed", "commit", "failed"),
)
MFU_FORMULA = (
    "sum over training passes of their flops_per_position * positions / seconds of updates / peak FLOP/s of the device"
)


@dataclass(frozen=True)
class RuleInputs:
    """The figures of a run that its rules are judged by.

    Attributes:
        budget: of the run.
        charged_seconds: seconds charged to the budget, whatever its clock.
        stalls: seconds of stalls, which `charged_seconds` includes.
        spent: in the unit of the budget.
        half_update: half of the latest update, in the unit of the budget.
        devices: name of every device that took part.
        objective: kind of the objective, or a description of its phases.
        tokenizer_trained_here: whether the tokenizer was trained on the data of the run.
        source: value of `data.source`.
        repeated_rows: number of rows that were seen more than once.
        held_out_check: counts of the search for held-out documents in the training rows, from the manifest.
        initial_weights: SHA-256 of the weights that the run began with.
        seeded_weights: SHA-256 of the weights that its seed gives.
        decontaminated: documents dropped because they share words with task files; None if none were compared.
        extensions: longer budgets that the run was given, each in words.
        init: name of the run or export that the initial weights come from.
    """

    budget: Budget
    charged_seconds: float
    stalls: float
    spent: float
    half_update: float
    devices: list[str]
    objective: str
    tokenizer_trained_here: bool
    source: str
    repeated_rows: int
    held_out_check: dict[str, int]
    initial_weights: str
    seeded_weights: str
    decontaminated: int | None
    extensions: tuple[str, ...] = ()
    init: str | None = None


# The text under `found` goes into receipts and into the model cards of exports.
def judge_rules(inputs: RuleInputs) -> list[dict[str, Any]]:
    """Judge the rules of Cramming. The rule on masked language modelling is left out for a causal model.

    Source: arXiv:2212.14034 section 2. Added: the rules on the budget, on repeated samples and on held-out text.

    Returns:
        For each rule its name as `rule`, whether it was kept as `passed`, and the reason as `found`.
    """
    budget_kept, spent = _judge_budget(inputs)
    origin = f"the weights of {inputs.init}," if inputs.init else "weights"
    downstream = sorted(set(re.split(r"[/:.,{}\[\]\"' ]", inputs.source.lower())) & DOWNSTREAM)
    compared = "documents were not compared with task files"
    if inputs.decontaminated is not None:
        compared = f"{inputs.decontaminated} documents dropped that share words with data.dedupe.decontaminate"
    longest = DAY + (_wall_tolerance(inputs) if inputs.budget.clock == "wall" else 0.0)
    named = ", ".join(downstream) or "none named in data.source"
    is_causal = inputs.objective.endswith("causal")
    masked = [] if is_causal else [(MASKED_RULE, inputs.objective == "masked", inputs.objective)]
    lines = [
        ("one device", len(inputs.devices) == 1, ", ".join(inputs.devices)),
        ("at most 24 hours", inputs.charged_seconds <= longest, f"{inputs.charged_seconds:.1f} s charged"),
        (BUDGET_RULE, budget_kept, "; ".join([spent, *inputs.extensions])),
        *masked,
        (
            "no pretrained weights",
            inputs.initial_weights == inputs.seeded_weights,
            f"began with {origin} {inputs.initial_weights[:12]}, the seed gives {inputs.seeded_weights[:12]}",
        ),
        (
            "no pretrained tokenizer",
            inputs.tokenizer_trained_here,
            "trained on this corpus" if inputs.tokenizer_trained_here else "given by path: its origin is unknown",
        ),
        ("no downstream data by name", not downstream, f"{named}; {compared}"),
        ("no sample repeated", inputs.repeated_rows == 0, f"{inputs.repeated_rows} rows repeated"),
        ("held-out text never trained on", *_judge_held_out(inputs.held_out_check)),
    ]
    return [{"rule": rule, "passed": passed, "found": found} for rule, passed, found in lines]


def _wall_tolerance(inputs: RuleInputs) -> float:
    """Return the seconds by which a wall-clock budget may be exceeded."""
    return max(inputs.half_update, TOLERANCE)


def _judge_held_out(check: dict[str, int]) -> tuple[bool, str]:
    """Return whether the training rows hold nothing of the held-out documents but boilerplate, and the counts."""
    found = (
        f"{check['documents']} documents searched for in the rows: {check['sequences_found']} stand there, and "
        f"{check['windows_found']} of their {check['windows']} runs of 64 tokens, beside "
        f"{check['boilerplate_windows']} of boilerplate in {check['boilerplate_documents']} documents"
    )
    return check["documents"] > 0 and check["sequences_found"] == check["windows_found"] == 0, found


def _judge_budget(inputs: RuleInputs) -> tuple[bool, str]:
    """Return whether the budget was kept to half an update and nearly all used, and the figures.

    Stalls count against the budget, but are not taken for use of it.
    """
    limit, clock = inputs.budget.limit, inputs.budget.clock
    if clock != "wall":
        least, most = limit - inputs.half_update, limit + inputs.half_update
        found = f"{inputs.spent:.10g} of {limit:.10g} {clock}; asked are {least:.10g} to {most:.10g}"
        return least <= inputs.spent <= most, found
    tolerance = _wall_tolerance(inputs)
    least, most = min(LEAST_USED * limit, limit - tolerance), limit + tolerance
    found = (
        f"{inputs.spent:.2f} of {limit:.10g} s, {inputs.stalls:.2f} s of it stalls; asked are at most {most:.2f} s, "
        f"and at least {least:.2f} s without stalls"
    )
    return least <= inputs.spent - inputs.stalls and inputs.spent <= most, found


def compare_plan(plan: PlanConfig, came: dict[str, float | None]) -> dict[str, Any] | None:
    """Put what came of a run beside what its plan had predicted.

    Args:
        plan: with the predictions.
        came: figures of the run, by the names of the plan's keys; None for a figure that there is none of.

    Returns:
        `budget` and `device` of the plan, and for each prediction `predicted`, `came` and `ratio`, which is came over
        predicted. None for a run without a plan.
    """
    if plan.budget is None:
        return None
    compared = {}
    for name, value in came.items():
        predicted = getattr(plan, name)
        ratio = round(value / predicted, 4) if predicted and value is not None else None
        compared[name] = {"predicted": predicted, "came": value, "ratio": ratio}
    return {"budget": plan.budget, "device": plan.device, **compared}


def tabulate_time(seconds: dict[str, float | None]) -> dict[str, dict[str, float | None]]:
    """Sort the accounts of a clock into those charged to the budget and those not charged.

    Args:
        seconds: of each account. A missing account has 0, None means unknown.

    Returns:
        `charged` and `not_charged`, each with seconds by account, rounded to milliseconds.
    """
    charged, not_charged = ({name: seconds.get(name, 0.0) for name in names} for names in (CHARGED, NOT_CHARGED))
    return {
        kind: {name: None if value is None else round(value, 3) for name, value in accounts.items()}
        for kind, accounts in (("charged", charged), ("not_charged", not_charged))
    }


def summarize(receipt: Mapping[str, Any]) -> dict[str, float | str | bool]:
    """Choose the figures of a receipt that stand for a run in a list of many, named as `receipt/held_out/accuracy`."""
    chosen = {name: receipt[name] for name in SUMMARIZED}
    for group in ("held_out", "model"):
        chosen |= {f"{group}/{name}": value for name, value in receipt[group].items()}
    chosen["charged_seconds"] = sum(receipt["time"]["charged"].values())
    chosen["rules_kept"] = all(rule["passed"] for rule in receipt["rules"])
    return {f"receipt/{name}": value for name, value in chosen.items() if isinstance(value, bool | int | float | str)}


def compute_mfu(flops: float, seconds: float, peak: float | None) -> float | None:
    """Compute the model FLOP utilisation, a share of the peak, by `MFU_FORMULA`.

    Args:
        flops: floating-point operations of all training passes, forward and backward.
        seconds: of the updates.
        peak: FLOP/s of the device, or None if unknown.

    Returns:
        The share; None if the peak is unknown or no time was spent.
    """
    if peak is None or seconds <= 0.0:
        return None
    return flops / seconds / peak
