"""A table of arms: what each trains, what came out, and how it compares at equal budget."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cram.clock import Budget
from cram.config.config import Config
from cram.config.recipe import (
    OUTPUT_KEYS,
    RECIPES,
    YAML_ENDINGS,
    check_inside_working_folder,
    keep_last_words,
    read_config,
    read_mapping,
    suggest_nearest,
)
from cram.config.schema import key
from cram.config.yaml_texts import read_yaml
from cram.errors import CramError
from cram.run.checksums import is_finished, read_receipt, read_run_config
from cram.run.folder import list_differences

TABLES = RECIPES / "ablations"
# Words that would be for all runs of a table, and what to say instead.
OF_RUNS = {"seed": "seeds: N", "run": "dir= to cram.ablate", "budget": "budget: at the top, or budget_share: of an arm"}
ARM = re.compile(r"\w[\w.+-]{0,99}", re.ASCII)  # what names a folder everywhere


@dataclass
class Arm:
    """One line of a table: the words that make it, and its share of the table's budget."""

    words: list[str] = key([], "words of this arm alone")
    budget_share: float = key(1.0, "its part of the table's budget", "share", above=0, most=1)


@dataclass
class Table:
    """What a file in recipes/ablations/ holds; the arms by their names."""

    about: str = key("", "what the table compares")
    budget: str = key("10m", "of an arm, as in a recipe")
    seeds: int = key(1, "seeds of each arm", "seeds", least=1, most=1000)
    baseline: str = key("", "the arm that the others are compared with")
    words: list[str] = key([], "words of every arm")
    arms: dict[str, Arm] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One arm with one seed: the words for `cram.train`, which name the folder too."""

    arm: str
    seed: int
    words: tuple[str, ...]
    config: Config

    @property
    def folder(self) -> Path:
        """Where it trains."""
        assert self.config.run is not None
        return Path(self.config.run)


def table_names() -> list[str]:
    """Names of the tables that come with cram."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


def load_table(name: str) -> tuple[str, Table]:
    """A table's name and content, given its name or the path of a yaml file.

    Errors: CramError for a table that is unknown or broken, or has no such baseline or an impossible share.
    """
    path = Path(name) if name.endswith(YAML_ENDINGS) else TABLES / f"{name}.yaml"
    if not path.is_file():
        raise CramError(
            f"table={name} is unknown.{suggest_nearest(name, table_names())} Tables: {', '.join(table_names())}, "
            "or a path to a yaml file."
        )
    mapping = read_yaml(path)
    arms = mapping.pop("arms", None)
    table = read_mapping(Table, mapping, path)
    if not isinstance(arms, dict) or not all(isinstance(content, dict) for content in arms.values()):
        raise CramError(f"{path}: arms: must be a mapping of names to mappings with words and budget_share.")
    for arm, content in arms.items():
        if not ARM.fullmatch(arm):
            raise CramError(
                f"{path}: arms: {arm[:60]!r} cannot name a folder. Use up to 100 letters, digits, _, - and ."
            )
        table.arms[arm] = read_mapping(Arm, content, path)
        _check_words(path, f"arms.{arm}.words", table.arms[arm].words)
    _check_words(path, "words", table.words)
    if table.baseline not in table.arms:
        raise CramError(f"{path}: baseline: {table.baseline} is not one of the arms {', '.join(table.arms)}.")
    return path.stem, table


def _check_words(path: Path, key: str, words: Sequence[str]) -> None:
    for word in words:
        name, _, place = word.partition("=")
        if name in OF_RUNS:
            raise CramError(f"{path}: {key}: {word}: each run of a table has its own {name}. Say {OF_RUNS[name]}.")
        if name in OUTPUT_KEYS:
            check_inside_working_folder(str(Path(place).expanduser()), f"{path}: {key}: {name}=", name)


def scaled(budget: str, share: float) -> str:
    """A share of a budget, in the words of one. Errors: CramError for a budget that is none."""
    whole = Budget.parse(budget)
    if share == 1.0:
        return budget
    if whole.clock == "wall":
        return f"{whole.limit * share:.10g}s"
    return f"{max(1, round(whole.limit * share))}{whole.clock}"


def plan(table: Table, folder: Path, words: Sequence[str]) -> list[Run]:
    """All runs of a table, seed by seed, so that whatever changes on the machine meanwhile meets all arms alike.

    Args:
        words: `key=value` on top of every arm's recipe; what makes an arm different stands above them.

    Errors: CramError for words that make no config, naming the arm.
    """
    said, configs = {}, {}
    for name, arm in table.arms.items():
        # An arm's words stand above the user's, and these above the table's.
        own = f"budget={scaled(table.budget, arm.budget_share)}"
        said[name] = keep_last_words((*table.words, *words, *arm.words, own))
        try:
            configs[name] = read_config([*said[name], "seed=0", f"run={folder / name}"])
        except CramError as error:
            raise CramError(f"arm {name}: {error}") from None
    runs = []
    for seed in range(table.seeds):
        for name, config in configs.items():
            run = f"{config.run}-seed{seed}"
            own_words = (*said[name], f"seed={seed}", f"run={run}")
            runs.append(Run(name, seed, own_words, replace(config, seed=seed, run=run)))
    return runs


def chosen(runs: Sequence[Run], arms: Sequence[str]) -> list[Run]:
    """The runs of some arms, of all if none is named. Errors: CramError for an unknown arm."""
    known = list(dict.fromkeys(run.arm for run in runs))
    for name in arms:
        if name not in known:
            raise CramError(f"arms={name} is unknown.{suggest_nearest(name, known)} Arms: {', '.join(known)}.")
    return [run for run in runs if not arms or run.arm in arms]


def outcome(runs: Sequence[Run], table: Table) -> list[dict[str, Any]]:
    """A line for each arm with a finished run: its figures, mean and every seed's, beside the baseline's."""
    lines = [_line(name, arm, [run for run in runs if run.arm == name]) for name, arm in table.arms.items()]
    done = {line["arm"]: line for line in lines if line["seeds"]}
    baseline = done.get(table.baseline)
    for line in done.values():
        line["over_baseline"] = _over(line, baseline) if baseline else None
    return list(done.values())


def _over(line: dict[str, Any], baseline: dict[str, Any]) -> float | None:
    """Nats above the baseline, over the seeds that both have."""
    theirs = dict(zip(baseline["seeds"], baseline["nats"]["all"], strict=True))
    ours = dict(zip(line["seeds"], line["nats"]["all"], strict=True))
    both = ours.keys() & theirs.keys()
    return statistics.fmean(ours[seed] - theirs[seed] for seed in both) if both else None


def _line(name: str, arm: Arm, runs: Sequence[Run]) -> dict[str, Any]:
    there = [run for run in runs if is_finished(run.folder) and _is_its_own(run)]
    found = [(run, read_receipt(run.folder)) for run in there]
    there = [run for run, receipt in found if not receipt.get("failed")]
    receipts = [receipt for _, receipt in found if not receipt.get("failed")]
    if not receipts:
        return {"arm": name, "seeds": []}
    return {
        "arm": name,
        "words": arm.words,
        "budget": there[0].config.budget,
        "seeds": [run.seed for run in there],
        "nats": _spread([receipt["held_out"]["nats_per_token"] for receipt in receipts]),
        "cramming_rule_nats": _spread([nats for receipt in receipts if (nats := _by_cramming_rule(receipt))]),
        "tokens_per_second": _spread([receipt["tokens_per_second"] for receipt in receipts]),
        "tokens": _spread([receipt["positions"] for receipt in receipts]),
        "faults": sum(receipt["faults"]["skipped"] for receipt in receipts),
        "data": sorted({receipt["data"]["hash"] for receipt in receipts}),
        "device": sorted({receipt["device"] for receipt in receipts}),
    }


def _is_its_own(run: Run) -> bool:
    """Whether what is in a run's folder was trained by its words, and not by others of before."""
    there = read_run_config(run.folder)
    extended = read_receipt(run.folder).get("extensions")
    return there.budget == run.config.budget and not extended and not list_differences(there, run.config)


def _by_cramming_rule(receipt: dict[str, Any]) -> float | None:
    """Held-out nats where tokens are hidden as Cramming's training hides them; a decoder's run has none."""
    found = receipt["held_out"].get("cramming_rule")
    return found["nats_per_token"] if found else None


def _spread(values: list[float]) -> dict[str, Any] | None:
    """Mean, least and largest, and all values; None of none."""
    if not values:
        return None
    return {"mean": statistics.fmean(values), "least": min(values), "largest": max(values), "all": values}
