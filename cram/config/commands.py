"""The keys of every command but `cram.train` and `cram.prepare`, whose are in `cram.config.config`."""

from dataclasses import dataclass
from typing import Literal

from cram.config.schema import group, key
from cram.config.training import CardConfig

CHECKPOINT = "newest, or the number of a kept checkpoint (null: the finished run)"


@dataclass
class ShardsConfig:
    """What `cram.prepare` takes instead of a recipe, to look at shards that are there."""

    verify: str | None = key(
        None, "shard folder: compare every checksum, and every row with what must hold of it", path=True
    )
    show: str | None = key(
        None, "shard folder: print its figures, what was dropped, rows as text; draw its plots", path=True
    )
    row: int | None = key(
        None, "with show=: the row to print (null: some from all over)", "row", least=0, most=2**63 - 1
    )


@dataclass
class EvaluateConfig:
    """What `cram.evaluate` takes."""

    run: str = key("", "run folder", path=True)
    checkpoint: str | None = key(None, CHECKPOINT)
    text: str | None = key(None, "glob of text files to evaluate (null: the run's held-out documents)", path=True)
    text_field: str = key("text", "field that holds the text in .jsonl and .parquet records")
    document: Literal["file", "blank_line", "line"] = key("file", "what one document is in a .txt file")
    tokens: int = key(262_144, "text that is evaluated, at most", "tokens", least=1, most=10**12)
    device: str = key("auto", "where to evaluate, as in a recipe")


@dataclass
class ExportConfig:
    """What `cram.export` takes."""

    run: str = key("", "run folder", path=True)
    checkpoint: str | None = key(None, CHECKPOINT)
    to: str | None = key(None, "folder to write (null: RUN/export, or RUN/export-STEP of a checkpoint)", path=True)
    card: CardConfig = group(CardConfig)


@dataclass
class AblateConfig:
    """What `cram.ablate` takes; all other words are the arms'."""

    table: str = key("", "a name in recipes/ablations/ or a path to a yaml file", path=True)
    budget: str | None = key(None, "of an arm, as in a recipe (null: the table's)")
    seeds: int | None = key(None, "seeds of each arm (null: the table's)", "seeds", least=1, most=1000)
    arms: list[str] = key([], "arms to run (empty: all)")
    dir: str = key("runs/ablations", "folder that holds the arms' runs", path=True)


@dataclass
class GlueConfig:
    """What `cram.glue` takes; one setting for all tasks."""

    run: str = key("", "run folder, exported folder or one of another stock encoder, or hf:NAME", path=True)
    checkpoint: str | None = key(None, CHECKPOINT)
    data: str = key("hf:nyu-mll/glue", "folder in GLUE's layout, or hf:NAME of a data set on the Hub", path=True)
    tasks: list[str] = key([], "cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli (empty: all but wnli)")
    seeds: int = key(5, "fine-tunings of each task", "seeds", least=1, most=1000)
    to: str | None = key(
        None, "folder for the results (null: the run folder; runs/glue-NAME for what is none)", path=True
    )
    protocol: Literal["cramming", "bert"] = key(
        "cramming", "cramming: learning rate 4e-5, batch 16; bert: 2e-5 and 32, of the published BERT-base row"
    )
    learning_rate: list[float] = key(
        [],
        "peak learning rate of all tasks; of several the one with the best mean is taken (empty: the protocol's)",
        above=0,
        below=1,
    )
    batch: int | None = key(None, "rows of an update (null: the protocol's)", "rows", least=1, most=2**20)
    epochs: int = key(5, "passes over a task's training rows; the rules allow 5", "passes", least=1, most=1000)
    length: int = key(128, "longest row", "tokens", least=8, most=2**16)
    dropout: float = key(0.1, "dropout wherever the class has it", "share", least=0, below=1)
    pooling: Literal["first", "mean"] = key("first", "what the head reads: the first token, or the mean of all")
    limit: int | None = key(
        None, "first N training rows of a fixed shuffle; not the protocol then (null: all)", "rows", least=1, most=10**9
    )
    check_counts: bool = key(True, "stop at a file whose row count is not the published one")
    untrained: bool = key(False, "also fine-tune the same architecture with random weights, as a control")
    device: str = key("auto", "where to fine-tune, as in a recipe")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = key("auto", "of training, as in a recipe; scoring is in fp32")
    threads: int | None = key(None, "CPU threads (null: all cores)", "threads", least=1, most=1024)
