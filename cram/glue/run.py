"""Carry out `cram.glue`: choose tasks, checkpoint and folder, run the experiment under a lock, and draw the plot."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cram.config.commands import GlueConfig
from cram.errors import CramError
from cram.files.limits import report_disk_errors
from cram.files.lock import take_lock
from cram.files.whole_folder import check_folder_path
from cram.glue.data import find_runnable
from cram.glue.plot import plot_scores
from cram.glue.tasks import Task, find_tasks

# Keys that only fine-tuning reads.
FINE_TUNING_KEYS = (
    "protocol",
    "seeds",
    "learning_rate",
    "batch",
    "epochs",
    "optimizer",
    "layer_decay",
    "dropout",
    "precision",
    "devices",
)


@dataclass(frozen=True)
class GlueReport:
    """The results of the command, for printing.

    Attributes:
        folder: where the results were written.
        results: as glue.json holds them.
        left_out: for each task without data, a line that names what is missing.
    """

    folder: Path
    results: dict[str, Any]
    left_out: list[str]

    @property
    def title(self) -> str:
        """The title of the table and the plot."""
        protocol = self.results["protocol"]
        departs = "" if protocol["kept"] else ", not as published"
        return f"{self.folder.name}: GLUE dev scores, medians over seeds (protocol {protocol['name']}{departs})"


def run_glue(config: GlueConfig) -> GlueReport:
    """Fine-tune a checkpoint on the tasks, as far as results are missing, and write all files.

    Raises:
        CramError: for words, data or a checkpoint that cannot be used; where another process writes to the folder.
    """
    config, tasks, left_out, folder = _prepare(config)
    from cram.glue.experiment import GlueExperiment  # imports torch, which takes seconds
    from cram.glue.pretrained import open_pretrained

    pretrained = open_pretrained(config.run, config.length, config.pooling)
    with _locked(folder), report_disk_errors(folder, "to"):
        results = GlueExperiment(config, folder, tasks, pretrained).run()
        report = GlueReport(folder, results, left_out)
        plot_scores(folder / "glue" / "glue.png", results, report.title)
    return report


def run_probe(config: GlueConfig) -> list[str]:
    """Score the hidden states of a checkpoint on the tasks, and write probe.json.

    Returns:
        The lines to print.

    Raises:
        CramError: for words, data or a checkpoint that cannot be used; where another process writes to the folder.
    """
    config, tasks, left_out, folder = _prepare(config)
    from cram.glue.pretrained import open_pretrained
    from cram.glue.printing import probe_lines
    from cram.glue.probe import FrozenProbe

    pretrained = open_pretrained(config.run, config.length, "first")  # the probe pools by itself, for every class
    with _locked(folder), report_disk_errors(folder, "to"):
        return probe_lines(FrozenProbe(config, folder, tasks, pretrained).run(), folder, left_out)


def _prepare(config: GlueConfig) -> tuple[GlueConfig, list[Task], list[str], Path]:
    """Check the words, and export the checkpoint that they name.

    Returns:
        The config with its pooling chosen, the tasks, a line for each task without data, and the folder of results.
    """
    check_words(config)
    config = replace(config, devices=choose_devices(config))
    tasks, left_out = find_tasks(config.tasks), list[str]()
    if not config.tasks:
        tasks, left_out = find_runnable(config.data, tasks)
    if config.to:
        check_folder_path(Path(config.to), follow_link=True)
    if config.checkpoint:
        config = export_checkpoint(config)
    if config.pooling == "auto":
        config = replace(config, pooling="mean" if config.frozen else "first")
    folder = results_folder(config)
    check_folder_path(folder / "glue")
    return config, tasks, left_out, folder


def check_words(config: GlueConfig) -> None:
    """Check what can be checked before anything is loaded.

    Raises:
        CramError: naming the key.
    """
    if not config.run:
        raise CramError("run= is missing. Give run=DIR with a run folder or an exported one, or run=hf:NAME.")
    defaults = GlueConfig()
    for name in FINE_TUNING_KEYS if config.frozen else ():
        if getattr(config, name) != getattr(defaults, name):
            raise CramError(f"{name}= has no effect with frozen=true, which does not fine-tune. Leave it out.")
    if config.devices is not None and config.device != defaults.device:
        raise CramError(f"device={config.device}: devices= names the devices already. Leave one of the two out.")


def choose_devices(config: GlueConfig) -> list[str] | None:
    """Choose the devices that fine-tune side by side.

    Returns:
        The word for `device=` of each; None where `devices=` is not given.

    Raises:
        CramError: a device is not valid or not there, or several fine-tunings would take each other's cores.
    """
    if config.devices is None:
        return None
    from cram.machine.device_list import find_devices, format_devices  # imports torch, which takes seconds

    devices = find_devices(config.devices)
    if devices.count("cpu") > 1 and config.threads != 1:
        raise CramError(
            f"{format_devices(devices)} has threads={config.threads or 'null'}, and fine-tunings at the same time must "
            "not take each other's cores. Add threads=1, or name the CPU once."
        )
    return devices


def export_checkpoint(config: GlueConfig) -> GlueConfig:
    """Export the checkpoint that `checkpoint=` names.

    Returns:
        The config with the exported folder as its run, and a results folder of its own.

    Raises:
        CramError: where `run=` is not a run folder.
    """
    from cram.hub.export import export_run

    run = Path(config.run)
    if not (run / "recipe.yaml").is_file():
        raise CramError(
            f"checkpoint={config.checkpoint}: run={config.run} is not a run folder, and only these have checkpoints."
        )
    exported = export_run(run, checkpoint=config.checkpoint)
    to = config.to or str(run / exported.name.replace("export", "glue"))
    return replace(config, run=str(exported), to=to)


def results_folder(config: GlueConfig) -> Path:
    """Where the results go: `to=`, the run folder, or runs/glue-NAME for a checkpoint that is not a run."""
    if config.to:
        return Path(config.to)
    run = config.run.removeprefix("hf:")
    if (Path(run) / "recipe.yaml").is_file() and run == config.run:
        return Path(run)
    return Path("runs") / f"glue-{Path(run).resolve().name}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make the folder, and hold its lock in the `with` body."""
    try:
        (folder / "glue").mkdir(parents=True, exist_ok=True)
        lock = take_lock(folder / "glue" / ".lock")
    except OSError as error:
        raise CramError(f"to={folder}: cannot be a folder ({error.strerror}). Choose another to=.") from None
    if lock is None:
        raise CramError(f"{folder}/glue: another process is at work there. Wait for it, or choose another to=.")
    with lock:
        yield
