"""What a report knows of a run, read from its folder: finished or not, whole or being written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cram.config.config import Config
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.run.checksums import ENVIRONMENT, is_finished, read_receipt, read_run_config
from cram.run.metrics import read_metrics


@dataclass(frozen=True)
class RunData:
    """A run, as its folder tells of it.

    Attributes:
        folder: its path as the user wrote it.
        config: the recipe that it began with.
        environment: versions and hardware, of environment.json.
        records: lines of metrics.jsonl, in order.
        receipt: of a finished run; None before.
        status: `failed` for a finished run without a usable model.
    """

    folder: Path
    config: Config
    environment: dict[str, Any]
    records: list[dict[str, Any]]
    receipt: dict[str, Any] | None
    status: Literal["running", "unfinished", "finished", "failed"]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The records of a kind, such as `train` or `held_out`."""
        return [record for record in self.records if record["kind"] == kind]


def read_run(folder: Path) -> RunData:
    """Read a run folder.

    Raises:
        CramError: for a folder that is not a run, and for files that are damaged.
    """
    if not (folder / "recipe.yaml").is_file():
        raise CramError(f"run={folder} is not a run folder: it has no recipe.yaml.")
    receipt = read_receipt(folder) if is_finished(folder) else None
    status: Literal["unfinished", "finished", "failed"] = "unfinished"
    if receipt is not None:
        status = "failed" if receipt.get("failed") else "finished"
    metrics = folder / "metrics.jsonl"
    return RunData(
        folder=folder,
        config=read_run_config(folder),
        environment=read_json(folder / ENVIRONMENT),
        records=read_metrics(metrics) if metrics.exists() else [],
        receipt=receipt,
        status=status,
    )
