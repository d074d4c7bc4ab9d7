"""One fine-tuning after another on one device: fine-tune, score, save the model."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cram.config.commands import GlueConfig
from cram.glue.finetune import Hyperparameters, finetune, predict
from cram.glue.metrics import compute_metrics
from cram.glue.model_store import save_model
from cram.glue.pretrained import PretrainedModel
from cram.glue.results_file import Job
from cram.glue.splits import Split, TaskData
from cram.glue.tokens import TokenizedSplit, tokenize_split


@dataclass(frozen=True)
class FineTuning:
    """What all fine-tunings of a command share. It can be sent to another process.

    Attributes:
        config: the keys of the command.
        folder: where the results are written.
        pretrained: the checkpoint.
        hyperparameters: of all jobs, apart from the learning rate.
        precision: dtype of autocast; float32 for none.
    """

    config: GlueConfig
    folder: Path
    pretrained: PretrainedModel
    hyperparameters: Hyperparameters
    precision: torch.dtype

    @property
    def models(self) -> Path:
        """The folder of the fine-tuned models and of what belongs to them."""
        return self.folder / "glue"

    def tokenize(self, split: Split) -> TokenizedSplit:
        """Tokenize the examples of a split, or read their tokens from the folder of results."""
        return tokenize_split(split, self.pretrained.tokenizer, self.pretrained.longest, self.models / "tokens")


class JobRunner:
    """Runs jobs on one device. The examples of a task stay in memory until those of another one are loaded.

    Args:
        shared: what all jobs share.
        device: to fine-tune on.
    """

    def __init__(self, shared: FineTuning, device: torch.device) -> None:
        self._shared = shared
        self._device = device
        self._data: TaskData | None = None

    def load(self, data: TaskData) -> None:
        """Load the examples of the jobs to come; the test sets are not needed."""
        self._data = data
        self._train = self._shared.tokenize(data.train)
        self._dev = {name: self._shared.tokenize(split) for name, split in data.dev.items()}

    def run(self, job: Job, advance: Callable[[int], None]) -> dict[str, Any]:
        """Fine-tune, score, and save the model.

        Args:
            job: of the task whose examples were loaded last.
            advance: called with 1 after each update.

        Returns:
            The outcome, as glue.json holds it.

        Raises:
            CramError: for weights of the checkpoint that cannot be loaded.
        """
        assert self._data is not None and self._data.task.name == job.task
        began = time.monotonic()
        shared, data, task, train = self._shared, self._data, self._data.task, self._train
        config, pad_id = shared.config, shared.pretrained.pad_id
        hyperparameters = replace(shared.hyperparameters, learning_rate=job.learning_rate)
        model = shared.pretrained.new_classifier(task, job.seed, config.dropout, config.pooling, job.untrained)
        model = model.to(self._device)
        loss = finetune(model, train, hyperparameters, job.seed, pad_id, shared.precision, advance)
        scores = {
            name: compute_metrics(task, predict(model, split, pad_id), data.dev[name].known_labels)
            for name, split in self._dev.items()
        }
        if not job.untrained:
            save_model(shared.models, shared.pretrained, model, job.name)
        return {
            "scores": scores,
            "loss": loss,
            "rows": len(train),
            "updates": hyperparameters.updates(len(train)),
            **asdict(hyperparameters),
            "train": data.train.hash,
            "began_with": f"seed {job.seed}" if job.untrained else shared.pretrained.identity,
            "data": data.hash,
            "seconds": round(time.monotonic() - began, 3),
        }
