"""The history of a run, for checkpoints and the receipt: its processes, threads, and the extensions of its budget."""

import itertools
from dataclasses import asdict, dataclass
from typing import Any

from cram.budget import Budget
from cram.config.config import Config

# Entries of a process that change the bytes of a result without changing the recipe.
BYTE_CHANGING = (
    *("ranks", "threads", "device", "precision", "compile", "attention", "torch", "kernels", "kernel_settings"),
)

DEFAULT_SETTINGS = "by rule"  # also of a process of an older version, which records none
# What else a process of an older version did, whose record does not say so.
EARLIER = {"ranks": 1}


@dataclass(frozen=True)
class Extension:
    """A longer budget that a run was given.

    Attributes:
        clock: of both budgets: wall, tokens or steps.
        old_limit: of the budget before, in the unit of the clock.
        limit: of the longer budget.
        update: number of updates at the checkpoint that the run continued from.
        old_progress: progress at that checkpoint under the old budget.
        progress: the same under the longer budget.
        discarded_updates: number of updates after that checkpoint, which were thrown away.
        discarded_seconds: seconds that had been charged for them.
        changed: values that go back with progress, as text `old -> new` by name.
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
        """Return the extension as JSON, for checkpoints and the receipt."""
        return asdict(self)


def describe_extension(extension: dict[str, Any]) -> str:
    """Describe a recorded extension in one line."""
    old, new = (Budget(extension["clock"], extension[name]).words() for name in ("old_limit", "limit"))
    line = f"extended from {old} to {new} at update {extension['update']}"
    if extension["discarded_updates"]:
        line += (
            f" ({extension['discarded_updates']} later updates, {extension['discarded_seconds']:.1f} s, were thrown "
            "away and are outside the budget)"
        )
    return line


def record_process(
    config: Config, update: int, threads: int, precision: str, environment: dict[str, Any], ranks: int = 1
) -> dict[str, Any]:
    """Return the record of a process of a run, as JSON; several ranks count as one process.

    Args:
        config: of the process. Keys that do not identify a run may differ between its processes.
        update: number of updates before the process.
        threads: CPU threads.
        precision: number format, such as bfloat16.
        environment: versions and hardware.
        ranks: number of ranks.
    """
    return {
        "update": update,
        "ranks": ranks,
        "budget": config.budget,
        "threads": threads,
        "device": environment["device_name"],
        "precision": precision,
        "compile": config.compile.kind,
        "attention": config.model.attention,
        "torch": environment["packages"]["torch"],
        "kernels": environment["kernels"],
        "kernel_settings": _name_settings(environment["kernel_settings"]),
        "environment": environment,
    }


def _name_settings(file: dict[str, Any] | None) -> str:
    """Name the file of launch settings that the kernels take, with the beginning of its SHA-256."""
    return DEFAULT_SETTINGS if file is None else f"{file['file']} ({file['sha256'][:12]})"


def newest_threads(processes: list[dict[str, Any]], choices: list[dict[str, Any]]) -> int:
    """Return the number of CPU threads at the end of the last process.

    Args:
        processes: one at least.
        choices: of the number of threads, each with `update` and `threads`.
    """
    process, choice = processes[-1], choices[-1] if choices else None
    threads: int = (choice if choice and choice["update"] > process["update"] else process)["threads"]
    return threads


def describe_changes(processes: list[dict[str, Any]]) -> list[str]:
    """Describe what changed from one process to the next so that a repeated run would not give the same bytes."""
    changes = []
    for earlier, later in itertools.pairwise(processes):
        for name in BYTE_CHANGING:
            before, after = (process.get(name, EARLIER.get(name, DEFAULT_SETTINGS)) for process in (earlier, later))
            if before != after:
                changes.append(f"{name} {before} until update {later['update']}, then {after}")
    return changes
