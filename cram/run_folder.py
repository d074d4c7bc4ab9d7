"""The folder of one run: whose it is, whether it is finished, and that one process at a time writes to it."""

import shutil
from pathlib import Path
from typing import IO

from cram.checkpoint import Checkpoints
from cram.clock import Budget
from cram.config import Config
from cram.errors import CramError
from cram.lock import take_lock
from cram.recipe import load_config, save_config
from cram.record import read_json, write_atomic, write_json
from cram.schema import keys, value_of

# What a longer budget sets aside, beside copies of what names the run.
OF_BUDGET = ("model.safetensors", "held_out.safetensors", "loss.png", "export", "glue.json", "glue", "receipt.json")
OF_RUN = ("recipe.yaml", "environment.json", "tokenizer.json", "metrics.jsonl")


class RunFolder:
    """`runs/NAME/`, opened for the config that trains there.

    Errors: CramError when the folder belongs to another recipe, to something else, or to a process at work.
    """

    def __init__(self, config: Config) -> None:
        assert config.run is not None
        self.path = Path(config.run)
        self._config = config
        recipe = self.path / "recipe.yaml"
        if recipe.exists():
            self._check_same(load_config(recipe))
        elif self.path.is_dir() and any(self.path.iterdir()) and not (self.path / ".lock").exists():
            raise CramError(f"run={self.path}: the folder holds other files. Choose another run=.")
        elif self.path.exists() and not self.path.is_dir():
            raise CramError(f"run={self.path} is a file. Choose another run=.")
        self._lock = self._take_lock()

    @property
    def finished(self) -> bool:
        """Whether everything a run leaves behind is there: its receipt, and the export that the receipt speaks of."""
        receipt = self.path / "receipt.json"
        return receipt.exists() and (read_json(receipt)["export"] != "export/" or (self.path / "export").exists())

    @property
    def budget(self) -> Budget | None:
        """The budget that the run has: its receipt's, or its newest readable checkpoint's. None before there is one."""
        if (self.path / "receipt.json").exists():
            there = read_json(self.path / "receipt.json")["budget"]
            return Budget(there["clock"], there["limit"])
        newest = Checkpoints(self.path).newest_state()
        return Budget(**newest["budget"]) if newest else None

    def set_aside(self, budget: Budget) -> Path | None:
        """Keep the results of a budget in a folder of their own, a finished run like any other; None if there are none.

        A call that was killed is finished by the next one.
        """
        results = [name for name in OF_BUDGET if (self.path / name).exists()]
        if not results:
            return None
        kept = self.path / f"budget-{budget.words()}"
        kept.mkdir(exist_ok=True)
        for name in OF_RUN:
            shutil.copyfile(self.path / name, kept / name)
        for name in results:
            (self.path / name).rename(kept / name)
        return kept

    @property
    def shards(self) -> Path | None:
        """The shard folder this run began with, if it has begun and the folder is still there.

        A source that changes, or a hub that is out of reach, must not keep a run from being resumed.
        """
        if not (self.path / "recipe.yaml").exists():
            return None
        folder = Path(read_json(self.path / "environment.json")["shards"])
        return folder if folder.is_dir() else None

    def begin(self, shards: Path, environment: dict[str, object]) -> None:
        """Write what names the run; called when all that the user said has proved usable."""
        recipe = self.path / "recipe.yaml"
        if not recipe.exists():
            write_atomic(self.path / "tokenizer.json", (shards / "tokenizer.json").read_bytes())
            facts = {"seed": self._config.seed, "shards": str(shards.resolve())}
            write_json(self.path / "environment.json", environment | facts)
            write_atomic(recipe, save_config(self._config).encode())

    def _check_same(self, there: Config) -> None:
        different = differences(there, self._config)
        if different:
            raise CramError(
                f"run={self.path} belongs to another recipe: {'; '.join(different[:3])}.\n"
                "Choose another run=, or give the words that this run was started with."
            )

    def _take_lock(self) -> IO[bytes]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = take_lock(self.path / ".lock")
        except OSError as error:
            raise CramError(f"run={self.path}: cannot be written ({error}). Choose another run=.") from None
        if lock is None:
            raise CramError(f"run={self.path}: another process is at work there. Wait for it, or choose another run=.")
        return lock


def existing_run(name: str) -> Path:
    """The folder of a run that has begun, as `run=` names it. Errors: CramError for anything else, naming runs."""
    folder = Path(name)
    if (folder / "recipe.yaml").is_file():
        return folder
    what = "there is no recipe.yaml in it" if folder.is_dir() else "there is no such folder"
    runs = sorted(str(path.parent) for path in folder.parent.glob("*/recipe.yaml"))
    others = f" Runs beside it: {', '.join(runs[:5])}." if runs else ""
    raise CramError(f"run={name} is not a run folder: {what}.{others}")


def differences(there: Config, here: Config) -> list[str]:
    """What differs between two configs, of the keys that a run's result depends on."""
    return [
        f"{name} is {value_of(there, name)} there, {value_of(here, name)} here"
        for name, item in keys(Config).items()
        if item.metadata["identifies"] and value_of(there, name) != value_of(here, name)
    ]
