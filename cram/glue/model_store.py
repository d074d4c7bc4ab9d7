"""The fine-tuned models on the disk: one stock folder for each task and learning rate, that of the median seed."""

import shutil
from pathlib import Path

import torch
from torch import nn

from cram.files.sealed import check_folder, write_checksums
from cram.glue.pretrained import PretrainedModel
from cram.glue.results_file import Job, ResultsFile, median_seed, plan_jobs
from cram.glue.transformers_calls import quiet_transformers


class ModelStore:
    """Finds fine-tuned models, and removes those that are not of the median seed.

    Args:
        folder: where the models are, each in a folder with the name of its job.
        file: outcomes of the jobs.
    """

    def __init__(self, folder: Path, file: ResultsFile) -> None:
        self._folder = folder
        self._file = file

    def find(self, task: str, rate: float) -> dict[int, Path]:
        """Folders of the models that exist, by seed."""
        seeds = self._file.outcomes_by_seed(task, rate)
        folders = {seed: self._folder / Job(task, rate, seed).name for seed in seeds}
        return {seed: folder for seed, folder in folders.items() if (folder / "config.json").is_file()}

    def keep_median(self, task: str, rate: float, seeds: int) -> None:
        """Once all seeds are finished, remove the models of all but the median seed."""
        folders = self.find(task, rate)
        if folders and not self._file.missing(plan_jobs([task], [rate], seeds)):
            median = median_seed(self._file.outcomes_by_seed(task, rate), folders)
            for seed in folders.keys() - {median}:
                shutil.rmtree(folders[seed])


def save_model(folder: Path, pretrained: PretrainedModel, model: nn.Module, name: str) -> None:
    """Save a model, whole or not at all. An earlier model of the job is replaced; its predictions are removed.

    Args:
        folder: where the models are.
        pretrained: the checkpoint that it was fine-tuned from.
        name: of the job.
    """
    target, partial = folder / name, folder / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    try:
        pretrained.save(model, partial)
        write_checksums(partial, sorted(path.name for path in partial.iterdir()))
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for path in (folder / "predictions").glob(f"{name}-*.tsv"):
        path.unlink()
    partial.rename(target)


def check_model(folder: Path) -> None:
    """Compare the files of a saved model with their checksums.

    Raises:
        CramError: where one differs.
    """
    check_folder(folder, "Remove it, and its task has no predictions; or choose another to=.")


def load_model(folder: Path, device: torch.device) -> nn.Module:
    """Load a fine-tuned model by the stock class."""
    from transformers import AutoModelForSequenceClassification

    with quiet_transformers():
        model: nn.Module = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        )
    return model.to(device)
