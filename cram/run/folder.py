"""The folder of one run: whose it is, whether it is finished, and that one process at a time writes to it."""

import shutil
from pathlib import Path
from typing import IO

from cram.clock import Budget
from cram.config.config import Config
from cram.config.schema import collect_keys, get_value
from cram.errors import CramError
from cram.files.atomic import sha256_bytes
from cram.files.lock import take_lock
from cram.files.sealed import CHECKSUMS
from cram.run.checkpoint import Checkpoints
from cram.run.checksums import (
    RECIPE,
    RESULT_FILES,
    START_FILES,
    hash_identity,
    is_finished,
    open_checkpoints,
    read_receipt,
    read_run_config,
    read_shard_folder,
    unregister_results,
    write_start_files,
)

# What a longer budget sets aside, beside copies of what names the run.
OF_BUDGET = (*RESULT_FILES, "loss.png", "export", "glue.json", "glue")
WRITTEN = ("checkpoints", "export", "tensorboard")  # folders
OF_RUN = (*START_FILES, "metrics.jsonl")


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
            self._check_same(read_run_config(self.path))
        elif self.path.is_dir() and any(self.path.iterdir()) and not (self.path / ".lock").exists():
            raise CramError(f"run={self.path}: the folder holds other files. Choose another run=.")
        elif self.path.exists() and not self.path.is_dir():
            raise CramError(f"run={self.path} is a file. Choose another run=.")
        for folder in (*(self.path / name for name in WRITTEN), *self.path.glob("budget-*")):
            if folder.is_symlink():
                raise CramError(f"{folder} is a link, and a run writes into folders of its own. Remove it.")
        self._lock = self._take_lock()

    @property
    def finished(self) -> bool:
        """Whether everything a run leaves behind is there: its receipt, and the export that the receipt speaks of."""
        if not is_finished(self.path):
            return False
        return read_receipt(self.path)["export"] != "export/" or (self.path / "export").exists()

    @property
    def budget(self) -> Budget | None:
        """The budget that the run has: its receipt's, or its newest readable checkpoint's. None before there is one."""
        if is_finished(self.path):
            there = read_receipt(self.path)["budget"]
            return Budget(there["clock"], there["limit"])
        newest = self.checkpoints().read_newest_state()
        return Budget(**newest["budget"]) if newest else None

    def checkpoints(self, decay: float = 1.0) -> Checkpoints:
        """Its checkpoints; before it has begun it has none."""
        return open_checkpoints(self.path, decay) if self._begun else Checkpoints(self.path, decay)

    @property
    def _begun(self) -> bool:
        return (self.path / RECIPE).exists()

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
        if not (kept / CHECKSUMS).exists():  # else the one that was there has already lost its results
            shutil.copyfile(self.path / CHECKSUMS, kept / CHECKSUMS)
        unregister_results(self.path)
        for name in results:
            (self.path / name).rename(kept / name)
        return kept

    @property
    def shards(self) -> Path | None:
        """The shard folder this run began with, if it has begun and the folder is still there.

        A source that changes, or a hub that is out of reach, must not keep a run from being resumed.
        """
        folder = read_shard_folder(self.path) if self._begun else None
        return folder if folder and folder.is_dir() else None

    def begin(self, shards: Path, data: str, tokenizer: bytes, environment: dict[str, object]) -> dict[str, str]:
        """Write what names the run; called when all that the user said has proved usable. Returns its identity.

        Args:
            shards: the shard folder, and `data` the hash of its rows.
            tokenizer: the bytes of its tokenizer.json.
        """
        if not self._begun:
            facts = {"seed": self._config.seed, "shards": str(shards.resolve())}
            write_start_files(self.path, self._config, environment | facts, tokenizer, data)
        own = hash_identity(self._config, data, sha256_bytes(tokenizer))
        there = self.checkpoints().identity
        if there != own:
            others = [name for name in own if not there or there.get(name) != own[name]]
            raise CramError(
                f"run={self.path} was begun with another {' and another '.join(others)} than there is now.\n"
                "Put it back as it was, or choose another run=."
            )
        return own

    def _check_same(self, there: Config) -> None:
        different = list_differences(there, self._config)
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


def find_run(name: str) -> Path:
    """The folder of a run that has begun, as `run=` names it. Errors: CramError for anything else, naming runs."""
    folder = Path(name)
    if (folder / "recipe.yaml").is_file():
        return folder
    what = "there is no recipe.yaml in it" if folder.is_dir() else "there is no such folder"
    runs = sorted(str(path.parent) for path in folder.parent.glob("*/recipe.yaml"))
    others = f" Runs beside it: {', '.join(runs[:5])}." if runs else ""
    raise CramError(f"run={name} is not a run folder: {what}.{others}")


def list_differences(there: Config, here: Config) -> list[str]:
    """What differs between two configs, of the keys that a run's result depends on."""
    return [
        f"{name} is {get_value(there, name)} there, {get_value(here, name)} here"
        for name, item in collect_keys(Config).items()
        if item.metadata["identifies"] and get_value(there, name) != get_value(here, name)
    ]
