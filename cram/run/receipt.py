"""The receipt: what a result cost and which of Cramming's rules it kept. Every field is computed."""

import re
from dataclasses import dataclass
from typing import Any

from cram.clock import CHARGED, NOT_CHARGED, Budget

DAY = 86400.0
# What must have been spent of a wall-clock budget, stalls left out.
USED = 0.97
# A wall-clock budget is not kept to less than this many seconds, however short its updates are.
RESOLUTION = 0.5
MASKED_RULE = "masked language modelling"
BUDGET_RULE = "budget kept within half an update, and used"
# Task folders and repositories of the downstream benchmark, as a path or name part.
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
MFU_FORMULA = "flops_per_position * positions / seconds of updates / peak FLOP/s of the device"


@dataclass(frozen=True)
class RuleInputs:
    """What the rules are judged by.

    devices: a name for each that took part. decontaminated: documents dropped because they share words with task files,
    None where none were compared.
    spent, half_update: in the budget's unit. stalls: seconds that the charged ones include.
    extensions: of the budget, in words. init: name of the run or export that the weights were taken from.
    initial_weights, seeded_weights: sha256 of the weights the run began with, and of those its seed gives.
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


def judge_rules(facts: RuleInputs) -> list[dict[str, Any]]:
    """A line for each of Cramming's rules: `rule`, `passed`, `found`. A causal model has none on masked modelling.

    Source: arXiv:2212.14034 section 2 (the rules); added: budget kept, one epoch, held-out unseen.
    """
    kept, budget = _budget_kept(facts)
    origin = f"the weights of {facts.init}," if facts.init else "weights"
    downstream = sorted(set(re.split("[/:.]", facts.source.lower())) & DOWNSTREAM)
    compared = (
        "documents were not compared with task files" if facts.decontaminated is None
        else f"{facts.decontaminated} documents dropped that share words with data.dedupe.decontaminate"
    )  # fmt: skip
    longest = DAY + (_allowed(facts) if facts.budget.clock == "wall" else 0.0)
    named = ", ".join(downstream) or "none named in data.source"
    masked = [(MASKED_RULE, facts.objective == "masked", facts.objective)] if facts.objective != "causal" else []
    lines = [
        ("one device", len(facts.devices) == 1, ", ".join(facts.devices)),
        ("at most 24 hours", facts.charged_seconds <= longest, f"{facts.charged_seconds:.1f} s charged"),
        (BUDGET_RULE, kept, "; ".join([budget, *facts.extensions])),
        *masked,
        (
            "no pretrained weights",
            facts.initial_weights == facts.seeded_weights,
            f"began with {origin} {facts.initial_weights[:12]}, the seed gives {facts.seeded_weights[:12]}",
        ),
        (
            "no pretrained tokenizer",
            facts.tokenizer_trained_here,
            "trained on this corpus" if facts.tokenizer_trained_here else "given by path: its origin is unknown",
        ),
        ("no downstream data by name", not downstream, f"{named}; {compared}"),
        ("no sample repeated", facts.repeated_rows == 0, f"{facts.repeated_rows} rows repeated"),
        ("held-out text never trained on", *_unseen(facts.held_out_check)),
    ]
    return [{"rule": rule, "passed": passed, "found": found} for rule, passed, found in lines]


def _allowed(facts: RuleInputs) -> float:
    """Seconds that a wall-clock budget may be overrun by: half an update, or the resolution."""
    return max(facts.half_update, RESOLUTION)


def _unseen(check: dict[str, int]) -> tuple[bool, str]:
    """Whether a search of the rows found nothing of the held-out documents but boilerplate, and what it found."""
    found = (
        f"{check['documents']} documents searched for in the rows: {check['sequences_found']} stand there, and "
        f"{check['windows_found']} of their {check['windows']} runs of 64 tokens, beside "
        f"{check['boilerplate_windows']} of boilerplate in {check['boilerplate_documents']} documents"
    )
    return check["documents"] > 0 and check["sequences_found"] == check["windows_found"] == 0, found


def _budget_kept(facts: RuleInputs) -> tuple[bool, str]:
    """Whether what was spent is at most half an update too much and, stalls left out, nearly all of the budget."""
    limit, clock = facts.budget.limit, facts.budget.clock
    if clock != "wall":
        least, most = limit - facts.half_update, limit + facts.half_update
        found = f"{facts.spent:.10g} of {limit:.10g} {clock}; asked are {least:.10g} to {most:.10g}"
        return least <= facts.spent <= most, found
    allowed = _allowed(facts)
    least, most = min(USED * limit, limit - allowed), limit + allowed
    found = (
        f"{facts.spent:.2f} of {limit:.10g} s, {facts.stalls:.2f} s of it stalls; asked are at most {most:.2f} s, and "
        f"at least {least:.2f} s without stalls"
    )
    return least <= facts.spent - facts.stalls and facts.spent <= most, found


def tabulate_time(seconds: dict[str, float | None]) -> dict[str, dict[str, float | None]]:
    """Where the time went, in seconds: what was charged to the budget and what was not; None where that is unknown."""
    charged, not_charged = ({name: seconds.get(name, 0.0) for name in names} for names in (CHARGED, NOT_CHARGED))
    return {
        kind: {name: None if value is None else round(value, 3) for name, value in accounts.items()}
        for kind, accounts in (("charged", charged), ("not_charged", not_charged))
    }


def compute_mfu(flops_per_position: float, positions: int, seconds: float, peak: float | None) -> float | None:
    """Model FLOP utilisation by `MFU_FORMULA`; None for a device whose peak is unknown."""
    if peak is None or seconds <= 0.0:
        return None
    return flops_per_position * positions / seconds / peak
