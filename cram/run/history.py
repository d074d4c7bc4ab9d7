"""What befell a run: the machine that each of its processes had, and the longer budgets that it was given."""

import itertools
from dataclasses import asdict, dataclass
from typing import Any

from cram.clock import Budget
from cram.config.config import Config

# What decides, beside seed, data and recipe, which bytes a process writes.
OF_BYTES = ("threads", "device", "precision", "compile", "attention", "torch")


@dataclass(frozen=True)
class Extension:
    """A longer budget for a run that had a shorter one.

    update: the one it goes on from; discarded_updates, discarded_seconds: what the run had done after that, and what
    was charged for it. progress: at that update, under the old budget and under the new one.
    changed: what follows progress and so steps back, as text by name.
    """

    clock: str
    old_limit: float
    limit: float
    update: int
    old_progress: float
    progress: float
    discarded_updates: int
    discarded_seconds: float
    changed: dict[str, str]

    def record(self) -> dict[str, Any]:
        """For checkpoints and the receipt, as JSON."""
        return asdict(self)


def describe_extension(facts: dict[str, Any]) -> str:
    """One extension in a few words."""
    old, new = (Budget(facts["clock"], facts[name]).words() for name in ("old_limit", "limit"))
    line = f"extended from {old} to {new} at update {facts['update']}"
    if facts["discarded_updates"]:
        line += (
            f" ({facts['discarded_updates']} later updates, {facts['discarded_seconds']:.1f} s, were thrown away and "
            "are outside the budget)"
        )
    return line


def record_process(
    config: Config, update: int, threads: int, precision: str, environment: dict[str, Any]
) -> dict[str, Any]:
    """One process of a run: the update it began at, and what of its machine and words does not name the run."""
    return {
        "update": update,
        "budget": config.budget,
        "threads": threads,
        "device": environment["device_name"],
        "precision": precision,
        "compile": config.compile.kind,
        "attention": config.model.attention,
        "torch": environment["packages"]["torch"],
        "environment": environment,
    }


def describe_changes(processes: list[dict[str, Any]]) -> list[str]:
    """Why a run's bytes would not repeat: what a process had that differs from the one before it."""
    found = []
    for before, now in itertools.pairwise(processes):
        found += [
            f"{name} {before[name]} until update {now['update']}, then {now[name]}"
            for name in OF_BYTES
            if before[name] != now[name]
        ]
    return found
