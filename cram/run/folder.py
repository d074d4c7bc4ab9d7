"""The folder of a run: which config it belongs to, whether it is finished, and a lock against a second process."""

import shutil
from pathlib import Path
from typing import IO

from cram.budget import Budget
from cram.config.config import Config
from cram.config.planned import keep_plan
from cram.config.schema import collect_keys, get_value
from cram.errors import CramError
from cram.files.atomic import sha256_bytes
from cram.files.lock import take_lock
from cram.files.sealed import CHECKSUMS
from cram.run.checkpoint import Checkpoints, list_differing_hashes
from cram.run.checksums import (
    RECIPE,
    RESULT_FILES,
    START_FILES,
    hash_identity,
    is_finished,
    open_checkpoints,
    read_identity,
    read_receipt,
    read_run_config,
    read_shard_folder,
    unregister_results,
    write_start_files,
)

SUBFOLDERS = ("checkpoints", "export", "tensorboard", "wandb")  # folders that a run writes into
# What `RunFolder.set_aside` does when a run gets a longer budget: it moves the results, and copies what stays valid.
MOVED = (*RESULT_FILES, "loss.png", "export", "glue.json", "glue")
PAGE = "report.html"  # moves with the results, but is not a result: an unfinished run may have a page
COPIED = (*START_FILES, "metrics.jsonl")


class RunFolder:
    """The folder of a run, opened and locked for a config. The lock is held until this object is deleted.

    Args:
        config: with the path of the folder in `config.run`. A folder that does not exist is made.

    Raises:
        CramError: the folder belongs to another recipe, holds other files, cannot be written, or is locked by another
            process.
    """

    def __init__(self, config: Config) -> None:
        assert config.run is not None
        self.path = Path(config.run)
        self._config = config
        if self._has_begun:
            self._check_recipe(read_run_config(self.path))
        elif self.path.is_dir() and any(self.path.iterdir()) and not (self.path / ".lock").exists():
            raise CramError(f"run={self.path}: the folder holds other files. Choose another run=.")
        elif self.path.exists() and not self.path.is_dir():
            raise CramError(f"run={self.path} is a file. Choose another run=.")
        # A link could lead to the files of somebody else, which the run would remove or replace.
        for folder in (*(self.path / name for name in SUBFOLDERS), *self.path.glob("budget-*")):
            if folder.is_symlink():
                raise CramError(f"{folder} is a link, but a run writes only into folders of its own. Remove the link.")
        self._lock = self._take_lock()

    def plan(self, config: Config) -> None:
        """Take the config with the planned numbers in place of the one that left them open. The run has not begun."""
        assert not self._has_begun
        self._config = config

    @property
    def _has_begun(self) -> bool:
        return (self.path / RECIPE).exists()

    @property
    def finished(self) -> bool:
        """Whether the run has ended: its receipt exists, and so does the export if the receipt names one."""
        if not is_finished(self.path):
            return False
        return read_receipt(self.path)["export"] != "export/" or (self.path / "export").exists()

    @property
    def budget(self) -> Budget | None:
        """The budget of the receipt, else of the newest intact checkpoint; None for a run that has neither."""
        if is_finished(self.path):
            budget = read_receipt(self.path)["budget"]
            return Budget(budget["clock"], budget["limit"])
        newest = self.checkpoints().read_newest_state()
        return Budget(**newest["budget"]) if newest else None

    @property
    def shards(self) -> Path | None:
        """The shard folder that the run began with; None if the run has not begun, or the folder is gone.

        A run is resumed with these shards even if the source has changed or the Hub cannot be reached.
        """
        folder = read_shard_folder(self.path) if self._has_begun else None
        return folder if folder and folder.is_dir() else None

    def checkpoints(self, decay: float = 1.0) -> Checkpoints:
        """Return the checkpoints of the run.

        Args:
            decay: progress at which the learning rate begins to fall.
        """
        return open_checkpoints(self.path, decay) if self._has_begun else Checkpoints(self.path, decay)

    def begin(self, shards: Path, data: str, tokenizer: bytes, environment: dict[str, object]) -> dict[str, str]:
        """Write the start files of a new run, or check that a begun run has the same data and tokenizer.

        Call it after every other check of the words of the user, so that a mistake leaves no run behind.

        Args:
            shards: the shard folder.
            data: hash of its rows.
            tokenizer: content of its tokenizer.json.
            environment: versions and hardware, for environment.json.

        Returns:
            The identity of the run, as in `hash_identity`.

        Raises:
            CramError: the run began with other data or another tokenizer.
        """
        if not self._has_begun:
            origin = {"seed": self._config.seed, "shards": str(shards.resolve())}
            write_start_files(self.path, self._config, environment | origin, tokenizer, data)
        identity = hash_identity(self._config, data, sha256_bytes(tokenizer))
        begun = read_identity(self.path)
        # The recipe has been compared key by key. Its hash also changes with each key that a later version adds.
        identity["recipe"] = begun["recipe"]
        if differing := list_differing_hashes(identity, begun):
            raise CramError(
                f"run={self.path} was begun with another {' and another '.join(differing)} than there is now.\n"
                "Put it back as it was, or choose another run=."
            )
        return identity

    def set_aside(self, budget: Budget) -> Path | None:
        """Move the results of a budget into a subfolder, which then is a finished run of its own.

        A call that was killed can be repeated.

        Args:
            budget: that the results were made with; it names the subfolder, such as budget-75s.

        Returns:
            The subfolder; None if there are no results.
        """
        results = [name for name in MOVED if (self.path / name).exists()]
        if not results:
            return None
        subfolder = self.path / f"budget-{budget.words()}"
        subfolder.mkdir(exist_ok=True)
        for name in COPIED:
            shutil.copyfile(self.path / name, subfolder / name)
        # A killed call may have removed the results from the list of the run, but not from the copy.
        if not (subfolder / CHECKSUMS).exists():
            shutil.copyfile(self.path / CHECKSUMS, subfolder / CHECKSUMS)
        unregister_results(self.path)
        for name in (*results, PAGE):
            if (self.path / name).exists():
                (self.path / name).rename(subfolder / name)
        return subfolder

    def _check_recipe(self, config: Config) -> None:
        differences = list_differences(config, self._config)
        if differences:
            raise CramError(
                f"run={self.path} belongs to another recipe: {'; '.join(differences[:3])}.\n"
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


def begun_config(config: Config) -> Config | None:
    """Read the config that the run of a config has begun with; None if it has not begun."""
    assert config.run is not None
    folder = Path(config.run)
    return read_run_config(folder) if (folder / RECIPE).exists() else None


def keep_begun_plan(config: Config) -> Config:
    """Give a config with `model.size=auto` the plan of its run, if that has begun; other configs stay as they are."""
    if config.model.size == "auto" and (begun := begun_config(config)):
        return keep_plan(config, begun)
    return config


def find_run(name: str) -> Path:
    """Return the folder of a run that has begun.

    Args:
        name: the value of `run=`.

    Raises:
        CramError: it is not the folder of a run. The message names the runs beside it.
    """
    folder = Path(name)
    if (folder / RECIPE).is_file():
        return folder
    reason = f"there is no {RECIPE} in it" if folder.is_dir() else "there is no such folder"
    runs = sorted(str(path.parent) for path in folder.parent.glob(f"*/{RECIPE}"))
    others = f" Runs beside it: {', '.join(runs[:5])}." if runs else ""
    raise CramError(f"run={name} is not a run folder: {reason}.{others}")


def list_differences(begun: Config, requested: Config) -> list[str]:
    """Describe the differences between two configs, of the keys that identify a run.

    Args:
        begun: config in a run folder, called "there" in the text.
        requested: config of the words of the user, called "here".
    """
    return [
        f"{name} is {get_value(begun, name)} there, {get_value(requested, name)} here"
        for name, spec in collect_keys(Config).items()
        if spec.metadata["identifies"] and get_value(begun, name) != get_value(requested, name)
    ]
