"""`python -m bench.glue_step`: rows a second of fine-tuning, beside the `Trainer` of transformers, in turns.

All contenders train the same stock classifier on the same rows for one epoch, with equal batch, precision, threads,
optimizer, schedule and dropout. `trainer` pads each random batch to its longest row and a multiple of 8. With
`trainer_grouped`, rows of like length share a batch, as `cram.glue` does. Figures are of CPU time, because other
programs may run. The Trainer needs the package `accelerate`.
"""

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bench.options import OUT_HELP, results_folder
from bench.timing import describe_machine, percentiles, write_results
from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.errors import CramError
from cram.glue.data import load_task
from cram.glue.finetune import Hyperparameters, finetune
from cram.glue.pretrained import PretrainedModel, open_pretrained
from cram.glue.tasks import Task, find_tasks
from cram.glue.tokens import MULTIPLE, TokenizedSplit, epoch_batches, tokenize_split
from cram.machine.device import pick_precision, set_threads

ABOUT = """Rows a second of GLUE fine-tuning on a CPU, beside the Trainer of transformers.

    python -m bench.glue_step run=runs/mine data=glue

It writes bench/results/glue_step.json."""

CPU = torch.device("cpu")
LEARNING_RATE, BATCH, DROPOUT = 4e-5, 16, 0.1


@dataclass
class GlueStepConfig:
    """What `bench.glue_step` takes."""

    run: str = key("", "checkpoint, as of cram.glue", path=True)
    data: str = key("", "folder with the files of GLUE", path=True)
    task: str = key("sst2", "task whose rows are trained on")
    rows: int = key(640, "training rows of a round", "rows", least=16, most=10**6)
    rounds: int = key(7, "rounds that count; one before them does not", "rounds", least=2, most=1000)
    precision: Literal["bf16", "fp32"] = key("fp32", "number format of the training")
    threads: int | None = key(1, "CPU threads (null: all cores)", "threads", least=1, most=1024)
    out: str | None = key(None, OUT_HELP, path=True)


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenized rows as a Trainer takes them."""

    def __init__(self, split: TokenizedSplit) -> None:
        assert split.labels is not None
        pieces = [piece.long() for piece in split.ids.split(split.lengths.tolist())]
        self._rows = [{"input_ids": ids, "labels": label} for ids, label in zip(pieces, split.labels, strict=True)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]


def collate(rows: list[dict[str, Tensor]], pad_id: int, counts: list[int]) -> dict[str, Tensor]:
    """Pad rows to the longest and a multiple of 8, and count tokens and positions."""
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    width = -(-int(lengths.max()) // MULTIPLE) * MULTIPLE
    ids = torch.full((len(rows), width), pad_id)
    for row, target in zip(rows, ids, strict=True):
        target[: len(row["input_ids"])] = row["input_ids"]
    counts[0] += int(lengths.sum())
    counts[1] += ids.numel()
    mask = (torch.arange(width) < lengths[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.stack([row["labels"] for row in rows])}


def train_by_trainer(
    model: Any, split: TokenizedSplit, pad_id: int, bf16: bool, grouped: bool, counts: list[int]
) -> None:
    """Train for one epoch by the `Trainer`, and count tokens and positions into `counts`."""
    from transformers import Trainer, TrainingArguments

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            adam_beta2=0.98,
            adam_epsilon=1e-6,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            max_grad_norm=0.0,
            optim="adamw_torch_fused",
            bf16=bf16,
            use_cpu=True,
            train_sampling_strategy="group_by_length" if grouped else "random",
            dataloader_drop_last=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            log_level="error",
        )
        Trainer(
            model, arguments, data_collator=lambda rows: collate(rows, pad_id, counts), train_dataset=_Rows(split)
        ).train()


def padding_of_cram(split: TokenizedSplit, pad_id: int) -> list[int]:
    """Tokens and positions of an epoch of `cram.glue`."""
    masks = [split.batch(batch, pad_id, CPU)["attention_mask"] for batch in epoch_batches(split.lengths, BATCH, 0, 0)]
    return [sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)]


def time_contenders(
    config: GlueStepConfig, pretrained: PretrainedModel, task: Task, split: TokenizedSplit
) -> dict[str, Any]:
    """Train with all contenders in turns, each for an epoch a round, from the same weights.

    Returns:
        For each contender the seconds of CPU time, rows a second, how many times as fast cram is, and the share of
        positions that are padding.
    """
    precision, pad_id = pick_precision(config.precision, CPU), pretrained.pad_id
    bf16 = precision == torch.bfloat16
    counts = {"cram": padding_of_cram(split, pad_id), "trainer": [0, 0], "trainer_grouped": [0, 0]}
    settings = Hyperparameters(LEARNING_RATE, BATCH, 1)
    contenders: dict[str, Callable[[Any], object]] = {
        "cram": lambda model: finetune(model, split, settings, 0, pad_id, precision, lambda _: None),
        "trainer": lambda model: train_by_trainer(model, split, pad_id, bf16, False, counts["trainer"]),
        "trainer_grouped": lambda model: train_by_trainer(model, split, pad_id, bf16, True, counts["trainer_grouped"]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(config.rounds + 1):
        for name, train in contenders.items():
            model = pretrained.new_classifier(task, 0, DROPOUT, "first", untrained=False)
            began = time.process_time()
            train(model)
            if turn:
                seconds[name].append(time.process_time() - began)
    rows = len(split) // BATCH * BATCH
    return {
        name: {
            "cpu_seconds": percentiles(values),
            "rows_per_second": rows / statistics.median(values),
            "cram_is_faster": statistics.median(v / ours for v, ours in zip(values, seconds["cram"], strict=True)),
            "padding": 1.0 - counts[name][0] / counts[name][1],
        }
        for name, values in seconds.items()
    }


def check_words(config: GlueStepConfig) -> None:
    """Check what can be checked before anything is loaded.

    Raises:
        CramError: naming the key or the package that is missing.
    """
    for name in ("run", "data"):
        if not getattr(config, name):
            raise CramError(f"{name}= is missing. Give run=DIR with a checkpoint and data=DIR with the files of GLUE.")
    if importlib.util.find_spec("accelerate") is None:
        raise CramError("The Trainer of transformers needs the package accelerate. Install it: pip install accelerate.")


def main(words: list[str]) -> int:
    """Time all contenders, print a line for each, and write the results."""
    config = read_words(GlueStepConfig, words)
    check_words(config)
    set_threads(config.threads)
    (task,) = find_tasks([config.task])
    pretrained = open_pretrained(config.run, 128, "first")
    data = load_task(config.data, task, check_counts=False)
    with tempfile.TemporaryDirectory() as cache:
        split = tokenize_split(data.train.first(config.rows), pretrained.tokenizer, 128, Path(cache))
    figures = time_contenders(config, pretrained, task, split)
    for name, row in figures.items():
        print(
            f"{name:16} {row['rows_per_second']:7.1f} rows/s   cram is {row['cram_is_faster']:.2f} times as fast   "
            f"padding {row['padding']:.1%}"
        )
    results = {"machine": describe_machine(CPU), "precision": config.precision, "task": task.name, "figures": figures}
    print(write_results(results, results_folder(config.out), "glue_step"))
    return 0


if __name__ == "__main__":
    run_door(main, GlueStepConfig, ABOUT)
