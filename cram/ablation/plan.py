"""The runs of a table: each arm with each seed, and the words that `cram.train` gets for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cram.ablation.table import AblationTable
from cram.budget import Budget
from cram.config.config import Config
from cram.config.recipe import keep_last_words, read_config, suggest_nearest
from cram.errors import CramError


@dataclass(frozen=True)
class ArmRun:
    """One arm with one seed.

    Attributes:
        arm: its name.
        seed: its `seed=`.
        words: for `cram.train`; they name the folder as well.
        config: made from the words.
    """

    arm: str
    seed: int
    words: tuple[str, ...]
    config: Config

    @property
    def folder(self) -> Path:
        """The run folder."""
        assert self.config.run is not None
        return Path(self.config.run)

    @property
    def log(self) -> Path:
        """The file that gets the output of its training."""
        return self.folder / "train.log"


def plan_runs(table: AblationTable, folder: Path, words: Sequence[str]) -> list[ArmRun]:
    """Plan all runs of a table, seed by seed, so that a change on the machine meets all arms alike.

    Args:
        folder: for the run folders.
        words: `key=value` for every arm. They override the table's words, and an arm's words override them.

    Raises:
        CramError: for words that do not make a config, naming the arm.
    """
    arm_words, configs = {}, {}
    for name, arm in table.arms.items():
        budget_word = f"budget={scale_budget(table.budget, arm.budget_share)}"
        arm_words[name] = keep_last_words((*table.words, *words, *arm.words, budget_word))
        try:
            configs[name] = read_config([*arm_words[name], "seed=0", f"run={folder / name}"])
        except CramError as error:
            raise CramError(f"arm {name}: {error}") from None
    runs = []
    for seed in range(table.seeds):
        for name, config in configs.items():
            run = f"{config.run}-seed{seed}"
            run_words = (*arm_words[name], f"seed={seed}", f"run={run}")
            runs.append(ArmRun(name, seed, run_words, replace(config, seed=seed, run=run)))
    return runs


def scale_budget(budget: str, share: float) -> str:
    """Multiply a budget string by a share.

    Raises:
        CramError: if it is not a budget.
    """
    whole = Budget.parse(budget)
    if share == 1.0:
        return budget
    if whole.clock == "wall":
        return f"{whole.limit * share:.10g}s"
    return f"{max(1, round(whole.limit * share))}{whole.clock}"


def select_runs(runs: Sequence[ArmRun], arms: Sequence[str]) -> list[ArmRun]:
    """Select the runs of some arms; all runs if no arm is named.

    Raises:
        CramError: for an unknown arm.
    """
    names = list(dict.fromkeys(run.arm for run in runs))
    for arm in arms:
        if arm not in names:
            raise CramError(f"arms={arm} is unknown.{suggest_nearest(arm, names)} Arms: {', '.join(names)}.")
    return [run for run in runs if not arms or run.arm in arms]
