"""The config that `cram.train` and `cram.prepare` take: the keys of a whole run, and those of its components.

A component receives its own dataclass, never the whole. No torch here: `--help` must be quick.
"""

from dataclasses import dataclass
from typing import Literal

from cram.clock import Budget
from cram.config.data import DataConfig, SpecialConfig, WordPieceConfig
from cram.config.model import ModelConfig
from cram.config.schema import group, key
from cram.config.training import (
    AveragingConfig,
    BatchConfig,
    CardConfig,
    CheckpointConfig,
    CompileConfig,
    EvaluationConfig,
    FaultsConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
)


@dataclass
class Config:
    """What a recipe holds and `cram.train` and `cram.prepare` take."""

    recipe: str = key("", "a name in recipes/ or a path to a yaml file", path=True, identifies=False)
    budget: str = key("24h", "90s, 10m, 24h (wall clock), 2.5e9tokens or 5000steps", identifies=False)
    run: str | None = key(None, "run folder (null: runs/RECIPE)", path=True, identifies=False)
    init: str | None = key(
        None, "run or exported folder whose weights to begin with (null: those of the seed)", path=True
    )
    seed: int = key(0, "seed of weights, masks and order", least=0, most=2**63 - 1)
    device: str = key(
        "auto", "where to train: auto (a GPU if there is one), cpu, cuda, or cuda:N for the GPU N", identifies=False
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = key(
        "auto", "auto: bf16 autocast where the device has it, fp16 with a loss scale on older GPUs, else fp32"
    )
    threads: int | None = key(None, "CPU threads (null: all cores)", "threads", least=1, most=1024, identifies=False)
    log_interval: int = key(
        10, "updates between two lines of metrics.jsonl", "updates", least=1, most=10**9, identifies=False
    )
    tokenizer: str | None = key(None, "a tokenizer.json to use (null: WordPiece trained on the data)", path=True)
    special: SpecialConfig = group(SpecialConfig)
    wordpiece: WordPieceConfig = group(WordPieceConfig)
    data: DataConfig = group(DataConfig)
    model: ModelConfig = group(ModelConfig)
    objective: ObjectiveConfig = group(ObjectiveConfig)
    optimizer: OptimizerConfig = group(OptimizerConfig)
    schedule: ScheduleConfig = group(ScheduleConfig)
    batch: BatchConfig = group(BatchConfig)
    compile: CompileConfig = group(CompileConfig)
    averaging: AveragingConfig = group(AveragingConfig)
    checkpoint: CheckpointConfig = group(CheckpointConfig)
    faults: FaultsConfig = group(FaultsConfig)
    evaluation: EvaluationConfig = group(EvaluationConfig)
    card: CardConfig = group(CardConfig)
    dry_run: bool = key(False, "say what would run, and end; the word --print does the same", identifies=False)

    def parse_budget(self) -> Budget:
        """Return the budget that the key `budget` describes.

        Raises:
            CramError: the text is not a valid budget.
        """
        return Budget.parse(self.budget)
