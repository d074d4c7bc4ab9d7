"""The receipt: what a result cost and which of Cramming's rules it kept. Every field is computed."""

import re
from dataclasses import dataclass
from typing import Any

from cram.clock import CHARGED, NOT_CHARGED, Budget

DAY = 86400.0
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
class Facts:
    """What the rules are judged by.

    overshoot, largest_update: in the budget's unit.
    initial_weights, seeded_weights: sha256 of the weights the run began with, and of those its seed gives.
    """

    budget: Budget
    charged_seconds: float
    overshoot: float
    largest_update: float
    devices: int
    objective: str
    tokenizer_trained_here: bool
    source: str
    repeated_rows: int
    held_out_documents: int
    initial_weights: str
    seeded_weights: str


def rules(facts: Facts) -> list[dict[str, Any]]:
    """A line for each of Cramming's rules: `rule`, `passed`, `found`.

    Source: arXiv:2212.14034 section 2 (the rules); added: budget kept, one epoch, held-out unseen.
    """
    downstream = sorted(set(re.split("[/:.]", facts.source.lower())) & DOWNSTREAM)
    allowed = max(0.01 * facts.budget.limit, facts.largest_update)
    lines = [
        ("one device", facts.devices == 1, f"{facts.devices}"),
        ("at most 24 hours", facts.charged_seconds <= 1.01 * DAY, f"{facts.charged_seconds:.1f} s charged"),
        (
            "budget kept within 1% or one update",
            facts.overshoot <= allowed,
            f"overshoot {facts.overshoot:.3g}, allowed {allowed:.3g} ({facts.budget.clock})",
        ),
        ("masked language modelling", facts.objective == "masked", facts.objective),
        (
            "no pretrained weights",
            facts.initial_weights == facts.seeded_weights,
            f"began with weights {facts.initial_weights[:12]}, the seed gives {facts.seeded_weights[:12]}",
        ),
        (
            "no pretrained tokenizer",
            facts.tokenizer_trained_here,
            "trained on this corpus" if facts.tokenizer_trained_here else "given by path: its origin is unknown",
        ),
        ("no downstream data", not downstream, ", ".join(downstream) or "none named in data.source"),
        ("no sample repeated", facts.repeated_rows == 0, f"{facts.repeated_rows} rows repeated"),
        (
            "held-out text never trained on",
            facts.held_out_documents > 0,
            f"{facts.held_out_documents} documents held out",
        ),
    ]
    return [{"rule": rule, "passed": passed, "found": found} for rule, passed, found in lines]


def time_table(seconds: dict[str, float]) -> dict[str, dict[str, float]]:
    """Where the time went, in seconds: what was charged to the budget and what was not."""
    return {
        "charged": {name: round(seconds.get(name, 0.0), 3) for name in CHARGED},
        "not_charged": {name: round(seconds.get(name, 0.0), 3) for name in NOT_CHARGED},
    }


def mfu(flops_per_position: float, positions: int, seconds: float, peak: float | None) -> float | None:
    """Model FLOP utilisation by `MFU_FORMULA`; None for a device whose peak is unknown."""
    if peak is None or seconds <= 0.0:
        return None
    return flops_per_position * positions / seconds / peak
