"""The keys of the other commands. Those of `cram.train` and `cram.prepare` are in `cram.config.config`."""

from dataclasses import dataclass
from typing import Literal

from cram.config.schema import group, key
from cram.config.training import CardConfig

CHECKPOINT = "which checkpoint to use: newest, or its number (null: the finished run)"


@dataclass
class ShardsConfig:
    """The keys of `cram.prepare` that inspect existing shards; they take the place of a recipe."""

    verify: str | None = key(None, "shard folder whose checksums and rows are all checked", path=True)
    show: str | None = key(
        None, "shard folder whose figures, dropped documents and rows are printed, and whose plots are drawn", path=True
    )
    row: int | None = key(
        None, "with show=: number of the row to print (null: a few from all parts)", "row", least=0, most=2**63 - 1
    )


@dataclass
class EvaluateConfig:
    """The keys of `cram.evaluate`."""

    run: str = key("", "folder of the run", path=True)
    checkpoint: str | None = key(None, CHECKPOINT)
    text: str | None = key(
        None, "file or glob of text files to evaluate (null: the held-out documents of the run)", path=True
    )
    text_field: str = key("text", "field with the text in records of .jsonl and .parquet")
    document: Literal["file", "blank_line", "line"] = key(
        "file", "what a document is in a .txt file: the whole file, a block between blank lines, or a line"
    )
    tokens: int = key(262_144, "largest amount of text that is evaluated", "tokens", least=1, most=10**12)
    device: str = key("auto", "device to evaluate on, as in a recipe")


@dataclass
class ExportConfig:
    """The keys of `cram.export`."""

    run: str = key("", "folder of the run", path=True)
    checkpoint: str | None = key(None, CHECKPOINT)
    to: str | None = key(None, "folder to write (null: RUN/export, or RUN/export-STEP for a checkpoint)", path=True)
    card: CardConfig = group(CardConfig)


@dataclass
class AblateConfig:
    """The keys of `cram.ablate` itself; all other words belong to the config of every arm."""

    table: str = key("", "name of a table that comes with cram, or path of a yaml file", path=True)
    budget: str | None = key(None, "budget of each arm, as in a recipe (null: as in the table)")
    tokens: float | None = key(
        None,
        "budget of each arm in the columns of a table that compare at equal tokens (null: as in the table)",
        "tokens",
        least=1,
        most=1e15,
    )
    seeds: int | None = key(None, "number of seeds for each arm (null: as in the table)", "seeds", least=1, most=1000)
    jobs: int | None = key(
        None,
        "runs at the same time; more than one needs threads=1 (null: as in the table)",
        "runs",
        least=1,
        most=1000,
    )
    devices: list[str] | None = key(
        None,
        "GPUs that train one run each at the same time, by number, such as [0,1]; or [cpu,cpu], which needs threads=1 "
        "(null: jobs= runs on the device of the recipe)",
    )
    arms: list[str] = key([], "names of the arms to run (empty: all)")
    columns: list[str] = key([], "names of the columns to run (empty: all)")
    dir: str = key("runs/ablations", "folder in which the runs of the arms are made", path=True)


@dataclass
class ReportConfig:
    """The keys of `cram.report`."""

    run: str | None = key(None, "folder of a run; give the word once for each of several runs", path=True)
    table: str | None = key(None, "folder of a table of cram.ablate, such as runs/ablations/recipe-600s", path=True)
    data: str | None = key(None, "shard folder of cram.prepare", path=True)
    glue: str | None = key(None, "folder with the results of cram.glue", path=True)
    plan: str | None = key(None, "yaml file that cram.plan has written", path=True)
    price: float | None = key(
        None, "what an hour of the machine costs, in any currency: pages of runs then tell their cost", above=0
    )
    to: str | None = key(
        None,
        "html file to write (null: report.html in the folder of the run, table or data, or here where there are "
        "several)",
        path=True,
    )


@dataclass
class PlannerConfig:
    """The keys of `cram.plan` itself; all other words belong to the recipe."""

    fit: str | None = key(
        None, "folder of finished runs, such as a table of cram.ablate, to fit scaling laws to (null: plan)", path=True
    )
    to: str | None = key(
        None,
        "yaml file to write the planned recipe to; with fit=, json file for the law that plans predict with (null: "
        "print only)",
        path=True,
    )
    picture: str | None = key(
        None, "png file for the picture of the plan (null: beside the recipe, or none without one)", path=True
    )
    seconds: float = key(2.0, "time spent on each shape of the ladder", "seconds", above=0, most=3600)
    shapes: int = key(24, "number of shapes that are timed", "shapes", least=1, most=1000)
    card: str | None = key(
        None,
        "plan for this GPU by its datasheet instead of timing this machine, such as 'RTX 4090' (null: this machine)",
    )
    mfu: float = key(
        0.4,
        "with card=: share of the peak rate that training is assumed to reach",
        "share of the peak",
        above=0,
        most=1,
    )


@dataclass
class GlueConfig:
    """The keys of `cram.glue`; one setting holds for all tasks."""

    run: str = key(
        "",
        "folder of a run, of an export or of another encoder that transformers loads; or hf:NAME on the Hub",
        path=True,
    )
    checkpoint: str | None = key(None, CHECKPOINT)
    data: str = key("hf:nyu-mll/glue", "folder with the files of GLUE, or hf:NAME of a data set on the Hub", path=True)
    tasks: list[str] = key(
        [], "tasks to run, of cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli (empty: all but wnli)"
    )
    seeds: int = key(5, "number of fine-tunings of each task", "seeds", least=1, most=1000)
    to: str | None = key(
        None,
        "folder for the results (null: the folder of the run, or runs/glue-NAME for a model without a run)",
        path=True,
    )
    protocol: Literal["cramming", "bert"] = key(
        "cramming",
        "cramming trains with learning rate 4e-5 and batch 16; bert with 2e-5 and 32, as the published row of "
        "BERT-base",
    )
    learning_rate: list[float] = key(
        [],
        "peak learning rate for all tasks; of several, the one with the best mean score counts (empty: of the "
        "protocol)",
        above=0,
        below=1,
    )
    batch: int | None = key(None, "rows of an update (null: of the protocol)", "rows", least=1, most=2**20)
    epochs: int = key(
        5, "passes over the training rows of a task; the rules of Cramming allow 5", "passes", least=1, most=1000
    )
    optimizer: Literal["adamw", "muon"] = key(
        "adamw",
        "update rule; muon: Muon for the hidden matrices, scaled to take learning rates of AdamW's size, and AdamW for "
        "the rest",
    )
    layer_decay: float = key(
        1.0, "factor of the learning rate from each layer to the one below (1: one rate for all)", above=0, most=1
    )
    length: int = key(128, "length at which rows are cut", "tokens", least=8, most=2**16)
    dropout: float = key(0.1, "dropout, wherever the class of the model has it", "share", least=0, below=1)
    pooling: Literal["auto", "first", "mean"] = key(
        "auto",
        "input of the classifier: the first token, or the mean of all tokens (auto: first, and mean with frozen=true)",
    )
    frozen: bool = key(
        False,
        "score linear models of the final hidden states instead of fine-tuning; the results go to probe.json",
    )
    limit: int | None = key(
        None,
        "train on this many rows only, from a fixed shuffle; departs from the protocol (null: all)",
        "rows",
        least=1,
        most=10**9,
    )
    check_counts: bool = key(True, "stop when a file has another number of rows than was published")
    untrained: bool = key(False, "also score the same architecture with random weights, as a control")
    device: str = key("auto", "device to fine-tune on, as in a recipe")
    devices: list[str] | None = key(
        None,
        "GPUs that fine-tune at the same time, by number, such as [0,1]; or [cpu,cpu], which needs threads=1 (null: "
        "device= alone)",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = key(
        "auto", "number format of the training, as in a recipe; scores are computed in fp32"
    )
    threads: int | None = key(None, "CPU threads (null: all cores)", "threads", least=1, most=1024)
