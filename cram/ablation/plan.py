"""The runs of a table: each arm with each budget, column and seed, and the words that `cram.train` gets for it."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cram.ablation.table import AblationTable, Column
from cram.budget import RST, Budget
from cram.config.config import Config
from cram.config.recipe import keep_last_words, read_config, suggest_nearest
from cram.config.schema import get_value
from cram.errors import CramError

# What recipes ask for that an arm does without, unless the table or the user says so: nobody watches each of its runs.
ARM_WORDS = ("report.live=false",)


@dataclass(frozen=True)
class ArmRun:
    """One arm with one seed.

    Attributes:
        arm: its name.
        seed: its `seed=`.
        words: for `cram.train`; they name the folder as well.
        config: made from the words.
        column: of the table; empty where it has none.
        share: the budget relative to that of the table.
        factor: of a run that tries a learning rate, what it multiplies the rate of the words by; else None.
    """

    arm: str
    seed: int
    words: tuple[str, ...]
    config: Config
    column: str = ""
    share: float = 1.0
    factor: float | None = None

    @property
    def folder(self) -> Path:
        """The run folder."""
        assert self.config.run is not None
        return Path(self.config.run)

    @property
    def log(self) -> Path:
        """The file that gets the output of its training."""
        return self.folder / "train.log"


def plan_runs(
    table: AblationTable, folder: Path, words: Sequence[str], rates: Mapping[str, float] | None = None
) -> list[ArmRun]:
    """Plan all runs of a table, the smallest budget first, seed by seed, so that a change on the machine meets all.

    Args:
        folder: for the run folders.
        words: `key=value` for every arm. They override the table's words, and an arm's words override them.
        rates: for each arm whose learning rate was chosen, what the rate of its words is multiplied by.

    Raises:
        CramError: for words that do not make a config, naming the arm.
    """
    runs = []
    for share in sorted(table.shares):
        cells = list(itertools.product(_columns(table), table.arms))
        configs = [_read_arm(table, folder, words, arm, column, share, (rates or {}).get(arm)) for column, arm in cells]
        for seed in range(table.seeds):
            for (column, arm), (arm_words, config) in zip(cells, configs, strict=True):
                run = f"{config.run}-seed{seed}"
                run_words = (*arm_words, f"seed={seed}", f"run={run}")
                runs.append(ArmRun(arm, seed, run_words, replace(config, seed=seed, run=run), column, share))
    return runs


def plan_trials(table: AblationTable, folder: Path, words: Sequence[str]) -> list[ArmRun]:
    """Plan the runs that try learning rates: each arm with each rate, one seed, half of the table's budget.

    Raises:
        CramError: for words that do not make a config, naming the arm.
    """
    runs = []
    for factor, arm in itertools.product(table.rates, table.arms):
        column = table.rate_column or next(_columns(table))
        arm_words, config = _read_arm(table, folder, words, arm, column, 0.5, factor)
        run = f"{folder / arm}-rate{factor:g}"
        run_words = (*arm_words, "seed=0", f"run={run}")
        runs.append(ArmRun(arm, 0, run_words, replace(config, seed=0, run=run), column, 0.5, factor))
    return runs


def _columns(table: AblationTable) -> Iterator[str]:
    return iter(table.columns or [""])


def _read_arm(
    table: AblationTable,
    folder: Path,
    words: Sequence[str],
    name: str,
    column: str,
    share: float,
    factor: float | None,
) -> tuple[list[str], Config]:
    """The words and the config of an arm in a column, without a seed."""
    arm, of_column = table.arms[name], table.columns.get(column, Column())
    budget = scale_budget(_budget(table, column), arm.budget_share * share)
    arm_words = keep_last_words((*ARM_WORDS, *table.words, *words, *arm.words, *of_column.words, f"budget={budget}"))
    parts = [name, *([column] if column else []), *([f"{share:g}"] if len(table.shares) > 1 else [])]
    run = f"run={folder / '-'.join(parts)}"
    try:
        config = read_config([*arm_words, "seed=0", run])
        if factor is not None:
            key = arm.rate_key or table.rate_key
            assert key is not None
            arm_words = keep_last_words((*arm_words, f"{key}={get_value(config, key) * factor:.6g}"))
            config = read_config([*arm_words, "seed=0", run])
    except CramError as error:
        raise CramError(f"arm {name}: {error}") from None
    return arm_words, config


def _budget(table: AblationTable, column: str) -> str:
    """The budget of the arms in a column.

    Raises:
        CramError: for a column at equal tokens in a table without tokens.
    """
    clock = table.columns.get(column, Column()).clock
    if clock != "tokens":
        return RST + table.budget if clock == "rst" else table.budget
    if table.tokens is None:
        raise CramError(f"column {column} compares at equal tokens: give tokens=N, such as tokens=900_000.")
    return f"{table.tokens:.15g}tokens"


def scale_budget(budget: str, share: float) -> str:
    """Multiply a budget string by a share.

    Raises:
        CramError: if it is not a budget.
    """
    whole = Budget.parse(budget)
    if share == 1.0:
        return budget
    if whole.clock in ("wall", "rst"):
        return f"{RST if whole.clock == 'rst' else ''}{whole.limit * share:.10g}s"
    return f"{max(1, round(whole.limit * share))}{whole.clock}"


def select_runs(runs: Sequence[ArmRun], arms: Sequence[str], columns: Sequence[str] = ()) -> list[ArmRun]:
    """Select the runs of some arms and columns; all of them if none is named.

    Raises:
        CramError: for an unknown arm or column.
    """
    for key, wanted, names in (
        ("arms", arms, list(dict.fromkeys(run.arm for run in runs))),
        ("columns", columns, list(dict.fromkeys(run.column for run in runs if run.column))),
    ):
        for name in wanted:
            if name not in names:
                known = ", ".join(names) or "none"
                raise CramError(f"{key}={name} is unknown.{suggest_nearest(name, names)} {key.capitalize()}: {known}.")
    return [run for run in runs if (not arms or run.arm in arms) and (not columns or run.column in columns)]
