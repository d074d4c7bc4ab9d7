"""The config of `cram.train` and `cram.prepare`: all keys of a run.

A component of the run receives only its own group of keys, such as `config.optimizer`.
"""

from dataclasses import dataclass
from typing import Literal

from cram.budget import Budget
from cram.config.choices import TRACKERS
from cram.config.data import DataConfig, SpecialConfig, WordPieceConfig
from cram.config.methods import (
    CurriculumConfig,
    DroppingConfig,
    PruningConfig,
    RhoConfig,
    SelectiveConfig,
    StackingConfig,
)
from cram.config.model import ModelConfig
from cram.config.objective import ObjectiveConfig
from cram.config.optimizer import OptimizerConfig
from cram.config.plan import PlanConfig
from cram.config.report import PageConfig
from cram.config.schema import group, key
from cram.config.training import (
    AveragingConfig,
    BatchConfig,
    CardConfig,
    CheckpointConfig,
    CompileConfig,
    EvaluationConfig,
    FaultsConfig,
    RstConfig,
    ScheduleConfig,
)


@dataclass
class Config:
    """All keys of a run, which recipes and the words of `cram.train` and `cram.prepare` set."""

    recipe: str = key("", "name of a recipe that comes with cram, or path of a yaml file", path=True, identifies=False)
    budget: str = key(
        "24h",
        "length of the training: 90s, 10m or 24h of wall clock, 2.5e9tokens, 5000steps, or rst:24h of a reference "
        "machine",
        identifies=False,
    )
    run: str | None = key(None, "folder of the run (null: runs/RECIPE)", path=True, identifies=False)
    init: str | None = key(
        None, "run or exported folder with the initial weights (null: random weights from the seed)", path=True
    )
    seed: int = key(0, "seed of the initial weights, the masks and the order of the rows", least=0, most=2**63 - 1)
    device: str = key(
        "auto",
        "device to train on: auto (a GPU if there is one), cpu, cuda, or cuda:N for GPU number N",
        identifies=False,
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = key(
        "auto",
        "number format of the matrix products; auto takes bf16 where the device has it, fp16 with loss scaling on "
        "older GPUs, else fp32",
    )
    threads: int | None = key(
        None,
        "CPU threads (null: the fastest number, measured, for a budget of time on a CPU; else all cores)",
        "threads",
        least=1,
        most=1024,
        identifies=False,
    )
    log_interval: int | None = key(
        None,
        "updates between two training records in metrics.jsonl (null: 1, and for runs of more than 2,000 updates as "
        "many as make about 1,000 records)",
        "updates",
        least=1,
        most=10**9,
        identifies=False,
    )
    track: str | None = key(
        None,
        "tracker that gets the metrics too (null: TensorBoard's files and metrics.jsonl only); needs pip install "
        "-e '.[track]'",
        choices=TRACKERS,
        identifies=False,
    )
    tokenizer: str | None = key(
        None, "path of a tokenizer.json (null: a WordPiece tokenizer is trained on the data)", path=True
    )
    special: SpecialConfig = group(SpecialConfig)
    wordpiece: WordPieceConfig = group(WordPieceConfig)
    data: DataConfig = group(DataConfig)
    model: ModelConfig = group(ModelConfig)
    plan: PlanConfig = group(PlanConfig)
    objective: ObjectiveConfig = group(ObjectiveConfig)
    optimizer: OptimizerConfig = group(OptimizerConfig)
    schedule: ScheduleConfig = group(ScheduleConfig)
    batch: BatchConfig = group(BatchConfig)
    rst: RstConfig = group(RstConfig)
    compile: CompileConfig = group(CompileConfig)
    curriculum: CurriculumConfig = group(CurriculumConfig)
    selective: SelectiveConfig = group(SelectiveConfig)
    rho: RhoConfig = group(RhoConfig)
    pruning: PruningConfig = group(PruningConfig)
    stacking: StackingConfig = group(StackingConfig)
    dropping: DroppingConfig = group(DroppingConfig)
    averaging: AveragingConfig = group(AveragingConfig)
    checkpoint: CheckpointConfig = group(CheckpointConfig)
    faults: FaultsConfig = group(FaultsConfig)
    evaluation: EvaluationConfig = group(EvaluationConfig)
    report: PageConfig = group(PageConfig)
    card: CardConfig = group(CardConfig)
    dry_run: bool = key(
        False,
        "print the resolved config and the sizes, and train nothing; the word --print does the same",
        identifies=False,
    )

    def parse_budget(self) -> Budget:
        """Return the budget that the key `budget` describes.

        Raises:
            CramError: the text is not a valid budget.
        """
        return Budget.parse(self.budget)
