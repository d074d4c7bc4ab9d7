"""Cases of the fuzz proof: real runs of three updates with odd values of the keys that steer the training."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from cram.config.recipe import keep_last_words
from cram.files.atomic import read_json
from proofs.doors import RECIPE
from proofs.fuzz_folders import NEW_RUN, copy_base
from proofs.fuzz_run import Case, Result
from proofs.fuzz_words import make_case

ODD_VALUES = {
    "optimizer.lr": "0 1e-30 1e30 1e300 10",
    "optimizer.beta1": "0 0.999999999",
    "optimizer.beta2": "0 0.999999999999",
    "optimizer.eps": "1e-30 0.99",
    "optimizer.clip": "null 1e-30 1e30",
    "optimizer.weight_decay": "0 1e30 1e3",
    "optimizer.final_decay": "0 1e9",
    "optimizer.kind": "muon adam lion sophia",
    "optimizer.embedding_lr": "0 1e9",
    "optimizer.muon.lr": "0 1e9",
    "optimizer.muon.newton_schulz_steps": "1 100",
    "optimizer.muon.momentum": "0 0.999999",
    "optimizer.muon.cautious": "true",
    "optimizer.decay_others": "true",
    "optimizer.lion.lr": "0 1e9",
    "optimizer.sophia.rho": "1e-30 1e9",
    "optimizer.sophia.interval": "1 1000000000",
    "optimizer.sophia.rows": "1 1000000000",
    "stacking.layers": "1 2",
    "stacking.at": "[0.5] [0.1,0.9]",
    "dropping.theta": "1e-9 1",
    "curriculum.competence": "linear sqrt",
    "curriculum.start": "1e-9 1",
    "curriculum.length": "1e-9 1",
    "selective.beta": "1e-9 100",
    "selective.history": "2 100000000",
    "rho.keep": "1e-9 0.999",
    "rho.hold_out": "1e-9 0.999",
    "rho.reference_share": "1e-9 0.999",
    "pruning.keep": "1e-9 0.999",
    "pruning.which": "easy middle hard random",
    "pruning.scoring_share": "1e-9 0.8",
    "dropping.gamma": "1e-9 1e30",
    "model.norm_eps": "1e-15 0.99",
    "model.init_std": "1e-30 10",
    "model.rope_theta": "1.0000001 1e12",
    "model.zero_init": "false",
    "model.positions": "1 33",
    "model.generator_share": "1e-9 1",
    "objective.discriminator_weight": "0 1e30",
    "model.width": "2 6 16",
    "model.heads": "1 16",
    "model.mlp_width": "1 3",
    "model.layers": "1 20",
    "objective.mask_rate": "1e-9 1",
    "objective.final_mask_rate": "null 1 1e-9",
    "objective.causal_share": "0.99 1e-9",
    "objective.replace_mask": "0",
    "objective.replace_random": "0",
    "schedule.kind": "cosine triangle trapezoid budget-triangle2",
    "schedule.warmup": "0 0.999",
    "schedule.peak": "0 0.99",
    "batch.tokens": "1 33 4096",
    "batch.start_tokens": "1 9999",
    "batch.ramp": "0 1",
    "batch.micro_rows": "1 3",
    "averaging.start": "0 0.99",
    "averaging.decay": "1e-9 0.999",
    "faults.patience": "1",
    "faults.rollbacks": "0",
    "faults.spike": "1e-9",
    "evaluation.tokens": "1 33",
    "evaluation.mask_rate": "1e-9 1",
    "evaluation.interval": "1e-6 1",
    "log_interval": "null 1 1000000000",
    "seed": "9223372036854775807",
    "threads": "1",
    "data.order": "likely_first unlikely_first",
    "model.attention": "softmax sdpa",
    "model.dropout": "0.999 1e-9",
    "precision": "bf16 fp32 fp16",
    "data.epochs": "1 1000000",
    "data.subset_tokens": "1 1000 999999999",
    "budget": "1steps 1tokens 0.001s 100tokens rst:1s",
    "rst.table": "rtx3090_crammed nothing",
    "rst.overheads": "false",
    "checkpoint.shares": "[] [1e-9] [0.5,0.999]",
    "checkpoint.interval": "0s 1h 0.001s",
}


def make_runs(source: random.Random, count: int) -> Iterator[Case]:
    """Yield runs with one to three odd values."""
    for _ in range(count):
        names = source.sample(list(ODD_VALUES), source.choice([1, 1, 2, 3]))
        words = [f"{name}={source.choice(ODD_VALUES[name].split())}" for name in names]
        yield Case("runs", " ".join(words), partial(_make, words), partial(_judge, words), 120.0)


def _make(words: list[str], folder: Path) -> list[str]:
    copy_base(folder, "corpus", "shards")
    return keep_last_words(["train", *RECIPE, *NEW_RUN, *words])


def _judge(words: list[str], folder: Path, result: Result) -> str:
    """A finished run keeps the values that were given, and its figures are finite."""
    receipt = read_json(folder / "new/receipt.json")
    nats = receipt["held_out"]["nats_per_token"]
    if receipt["failed"] or not isinstance(nats, float) or receipt["updates"] < 1:
        return f"status 0 of a run with {nats} nats after {receipt['updates']} updates: {receipt['failed']}"
    recipe = (folder / "new/recipe.yaml").read_text()
    judge_words = make_case("runs", "train", words).judge
    return judge_words(folder, Result(0, f"{recipe}\n\n", "", False, 0.0))


GROUPS: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {"runs": make_runs}
