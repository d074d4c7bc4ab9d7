"""The frozen probe: score a checkpoint's hidden states on GLUE by linear models, without training the checkpoint.

Each example becomes one vector, the mean of the encoder's final hidden states over its tokens or the state of its first
token. The vectors are standardised on the training set. A logistic regression is fitted to them, or a ridge regression
for STS-B, and is scored by the metrics of the task on its dev sets. There is no seed, so the scores are deterministic.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from cram.config.commands import GlueConfig
from cram.errors import CramError
from cram.files.sealed import write_sealed
from cram.glue.data import load_task
from cram.glue.finetune import compute_outputs
from cram.glue.metrics import compute_metrics, majority_outputs
from cram.glue.pretrained import PretrainedModel
from cram.glue.splits import Labels, Split, TaskData
from cram.glue.tasks import Task
from cram.glue.tokens import tokenize_split
from cram.machine.device import device_name, device_notes, pick_device, set_threads
from cram.terminal.progress import Progress

Array = npt.NDArray[np.float64]
Scores = dict[str, dict[str, float]]

MOST_ITERATIONS = 1_000  # of the logistic regression's L-BFGS
PENALTY = 1.0  # of half the squared weights, beside the summed cross-entropy or half the summed squared error


class FrozenProbe:
    """The probe of a checkpoint on some tasks. It writes probe.json below `folder`, and replaces an earlier one.

    Args:
        config: the keys of the command.
        folder: where the results are written.
        tasks: the tasks to score.
        pretrained: the checkpoint.
    """

    def __init__(self, config: GlueConfig, folder: Path, tasks: list[Task], pretrained: PretrainedModel) -> None:
        self._config = config
        self._folder = folder
        self._tasks = tasks
        self._pretrained = pretrained
        set_threads(config.threads)
        self._device = pick_device(config.device)
        for note in device_notes(config.device, self._device):
            print(note)
        self._progress = Progress()

    def run(self) -> dict[str, Any]:
        """Score all tasks, write probe.json, and return its content.

        Raises:
            CramError: for examples that cannot be read or fitted, and for hidden states that are not finite.
        """
        data = {task.name: self._load(task) for task in self._tasks}
        config, pretrained = self._config, self._pretrained
        results: dict[str, Any] = {
            "run": config.run,
            "checkpoint": pretrained.identity,
            "pooling": config.pooling,
            "length": pretrained.longest,
            "limit": config.limit,
            "device": device_name(self._device),
            "rows": {name: len(examples.train) for name, examples in data.items()},
            "remarks": [remark for examples in data.values() for remark in examples.remarks],
            "majority": {name: _majority_scores(examples) for name, examples in data.items()},
            "scores": self._score_all(data, untrained=False),
            "untrained": self._score_all(data, untrained=True) if config.untrained else {},
        }
        write_sealed(self._folder / "probe.json", results)
        return results

    def _load(self, task: Task) -> TaskData:
        data = load_task(self._config.data, task, self._config.check_counts)
        if self._config.limit is not None:
            data = replace(data, train=data.train.first(self._config.limit))
        if not task.regression and len(np.unique(data.train.known_labels)) < 2:
            raise CramError(
                f"{task.name}: all training rows have the same label, so that no classifier can be fitted. "
                "Give a larger limit=, or leave it out."
            )
        return data

    def _score_all(self, data: dict[str, TaskData], untrained: bool) -> dict[str, Scores]:
        encoder: Any = self._pretrained.new_classifier(self._tasks[0], 0, 0.0, "first", untrained)
        encoder = encoder.base_model.to(self._device).eval()
        return {name: self._score(examples, encoder) for name, examples in data.items()}

    def _score(self, data: TaskData, encoder: nn.Module) -> Scores:
        train = self._vectors(data.task, data.train, encoder)
        dev = {name: self._vectors(data.task, split, encoder) for name, split in data.dev.items()}
        outputs = fit_linear(data.task, train, data.train.known_labels, dev)
        return {name: compute_metrics(data.task, outputs[name], split.known_labels) for name, split in data.dev.items()}

    def _vectors(self, task: Task, split: Split, encoder: nn.Module) -> Array:
        """The (examples, width) vectors of a split."""
        pretrained, pooling = self._pretrained, self._config.pooling
        tokens = tokenize_split(split, pretrained.tokenizer, pretrained.longest, self._folder / "glue" / "tokens")
        with self._progress.stage(f"hidden states of {task.name}", len(split), "rows") as stage:
            vectors = compute_outputs(
                lambda inputs: pool_states(encoder(**inputs).last_hidden_state, inputs["attention_mask"], pooling),
                tokens,
                pretrained.pad_id,
                self._device,
                stage.advance,
            )
        if not np.isfinite(vectors).all():
            raise CramError(
                f"run={self._config.run}: its hidden states on {task.name} are not finite, so that no probe can be "
                "fitted. Give a checkpoint whose training did not diverge."
            )
        return vectors.astype(np.float64)


def pool_states(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool the hidden states of each example to one vector.

    Args:
        states: (B, T, width), of any dtype.
        mask: (B, T), 1 at tokens and 0 at padding.
        pooling: `first` for the state of the first token, `mean` for the mean over all tokens.

    Returns:
        (B, width) fp32.
    """
    if pooling == "first":
        return states[:, 0].float()
    weights = mask[..., None].float()
    return (states.float() * weights).sum(1) / weights.sum(1)


def fit_linear(task: Task, train: Array, labels: Labels, dev: dict[str, Array]) -> dict[str, Array]:
    """Fit a linear model to the standardised training vectors, and compute its outputs on the dev sets.

    Args:
        train: (examples, width).
        labels: (examples,) int64 class numbers of at least two classes, or float64 scores.
        dev: (examples, width) by name of the subset.

    Returns:
        (examples, task.outputs) by name of the subset: probabilities, 0 for a class that the training set lacks, or
        scores.
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    if task.regression:
        ridge = Ridge(alpha=PENALTY).fit(scaler.transform(train), labels)
        return {name: ridge.predict(scaler.transform(vectors))[:, None] for name, vectors in dev.items()}
    classifier = LogisticRegression(C=1 / PENALTY, max_iter=MOST_ITERATIONS).fit(scaler.transform(train), labels)
    outputs = {name: np.zeros((len(vectors), task.outputs)) for name, vectors in dev.items()}
    for name, vectors in dev.items():
        outputs[name][:, classifier.classes_] = classifier.predict_proba(scaler.transform(vectors))
    return outputs


def _majority_scores(data: TaskData) -> Scores:
    return {
        name: compute_metrics(
            data.task, majority_outputs(data.task, data.train.known_labels, len(split)), split.known_labels
        )
        for name, split in data.dev.items()
    }
