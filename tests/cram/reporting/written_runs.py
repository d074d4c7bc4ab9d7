"""Run folders written by hand, for tests of reports: quick, and with everything that a page shows of a run."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from cram.config.config import Config
from cram.files.atomic import write_atomic, write_json
from cram.files.sealed import write_sealed
from cram.run.checksums import HELD_OUT, RECEIPT, WEIGHTS, register_results, write_start_files

BEGUN = 1_795_000_000.0  # seconds since the epoch
TENSORS = {
    "embedding.weight": (64, 8),
    "blocks.0.attention.qkv.weight": (24, 8),
    "blocks.0.attention.out.weight": (8, 8),
    "blocks.0.mlp.up.weight": (32, 8),
    "blocks.0.mlp_norm.weight": (8,),
    "final_norm.weight": (8,),
}
ENVIRONMENT: dict[str, Any] = {
    "python": "3.11.7",
    "platform": "Linux-6.1-x86_64",
    "packages": {"cram": "0.1.0", "torch": "2.13.0"},
    "device": "cpu",
    "device_name": "A Processor",
    "cores": 2,
    "cuda": None,
    "kernels": "cpu",
    "kernel_settings": None,
    "commit": "0123456789ab",
    "seed": 0,
    "shards": "/shards/there",
}


def train_record(step: int, **figures: Any) -> dict[str, Any]:
    """A record of training, one second and 4,096 tokens an update; `figures` replace or extend the usual ones."""
    usual = {
        "kind": "train",
        "step": step,
        "time": BEGUN + step,
        "loss": 4.0 + 3.0 * math.exp(-step / 50),
        "lr": {"matrices": 0.02, "embeddings": 0.016},
        "gradient_norm": 0.5,
        "mask_rate": 0.3,
        "mfu": None,
        "gpu_memory_bytes": None,
        "tokens_per_second": 4096.0,
        "batch_tokens": 4096.0,
        "noise_scale": None if step < 20 else 9000.0,
        "progress": step / 100,
        "positions": 4096 * step,
        "flops": 1e6 * 4096 * step,
        "charged_seconds": float(step),
    }
    return usual | figures


def held_out_record(step: int, nats: float, **figures: Any) -> dict[str, Any]:
    """A record of an evaluation."""
    usual = {"kind": "held_out", "step": step, "time": BEGUN + step, "nats_per_token": nats, "accuracy": 0.1}
    scores = {"bits_per_masked_byte": nats / 2.5, "predicted_tokens": 8572}
    places = {"charged_seconds": float(step), "positions": 4096 * step, "flops": 1e6 * 4096 * step}
    return usual | scores | places | figures


def usual_records() -> list[dict[str, Any]]:
    """The records of a run of a hundred updates, with three evaluations and a spike."""
    train = [train_record(step) for step in range(10, 101, 10)]
    held_out = [held_out_record(step, nats) for step, nats in ((30, 6.0), (60, 5.0), (100, 4.5))]
    spike = {"kind": "fault", "event": "spike", "step": 50, "time": BEGUN + 50, "loss": 7.0, "recent": 5.5}
    return sorted([*train, *held_out, spike | {"charged_seconds": 50.0}], key=lambda record: record["step"])


def usual_process(update: int = 0, **facts: Any) -> dict[str, Any]:
    """A process of a run, as its receipt has it."""
    usual = {"update": update, "budget": "100s", "threads": 2, "device": "A Processor", "precision": "bfloat16"}
    more = {"compile": "auto", "attention": "auto", "torch": "2.13.0", "kernels": "cpu", "kernel_settings": "by rule"}
    return usual | more | {"environment": ENVIRONMENT} | facts


def usual_receipt() -> dict[str, Any]:
    """A receipt with every part that a page shows."""
    return {
        "failed": None,
        "budget": {"clock": "wall", "limit": 100.0, "spent": 100.2, "overshoot": 0.2, "progress": 1.0},
        "time": {
            "charged": {"updates": 90.2, "compilation": 1.0, "waiting": 2.0, "probe": 7.0, "crash": 0.0},
            "not_charged": {"preparation": 15.0, "evaluation": 5.0, "saving": 0.2, "asleep": None},
        },
        "stalls": {"number": 0, "seconds": 0.0, "longest_seconds": 0.0},
        "positions": 409_600,
        "predicted_tokens": 122_880,
        "updates": 100,
        "rows_read": 3200,
        "epochs": 0.16,
        "repeated_rows": 0,
        "data": {"source": "wiki-*", "hash": "1c068f06", "tokens": 15_616_144, "seq_len": 128, "vocab_size": 64},
        "model": {"kind": "encoder", "parameters": 912, "parameters_without_embedding": 400, "flops_per_position": 1e6},
        "export": "export/",
        "held_out": {
            "nats_per_token": 4.5,
            "bits_per_masked_byte": 1.8,
            "accuracy": 0.19,
            "predicted_tokens": 8572,
            "unigram_nats_per_token": 6.7,
            "too_few": None,
            "mask_rate": 0.15,
            "unknown_share": 0.001,
            "cramming_rule": {"nats_per_token": 5.1, "rate": 0.25, "mask_share": 0.8, "random_share": 0.1},
        },
        "tokens_per_second": 4442.5,
        "mfu": 0.412,
        "peak_flops": 1e10,
        "peak_memory_bytes": {"host": 1_440_968_704, "gpu": None},
        "device": "A Processor",
        "precision": "bfloat16",
        "plan": {
            "budget": "100s",
            "device": "A Processor",
            "tokens_per_second": {"predicted": 5000.0, "came": 4442.5, "ratio": 0.8885},
            "nats": {"predicted": None, "came": 4.5, "ratio": None},
        },
        "micro_rows": 32,
        "faults": {"skipped": 0, "lr_factor": 1.0, "rollbacks": [], "spikes": [{"step": 50, "loss": 7, "recent": 5.5}]},
        "noise_scale": {"tokens": 9000.0, "critical_batch_tokens": 9000.0, "update_tokens": 4096, "note": "estimated"},
        "compile": {"kind": "eager", "cuda_graphs": False, "seconds": 0.0, "check": None, "failed": {}},
        "threads": 2,
        "thread_choices": [{"update": 0, "threads": 2, "tokens_per_second": {"2": 4500.0, "1": 4000.0}}],
        "processes": [usual_process()],
        "bytes_repeat": True,
        "extensions": [],
        "init": None,
        "seed": 0,
        "versions": ENVIRONMENT["packages"],
        "commit": "0123456789ab",
        "rules": [
            {"rule": "one device", "passed": True, "found": "A Processor"},
            {"rule": "no sample repeated", "passed": False, "found": "12 rows repeated"},
        ],
        "examples": ["the capital of france is [MASK] . -> paris"],
    }


def write_run(
    folder: Path,
    records: list[dict[str, Any]] | None = None,
    receipt: dict[str, Any] | None = None,
    config: Config | None = None,
    finished: bool = True,
) -> Path:
    """Write a run folder, and return its path.

    Args:
        folder: is made.
        records: of metrics.jsonl; None for the usual ones.
        receipt: of a finished run; None for the usual one.
        config: the recipe; None for the usual one.
        finished: whether the run has ended. A run that has not has a checkpoint at update 90.
    """
    if config is None:
        config = Config(recipe="bert_demo", run=str(folder), budget="100s")
    write_start_files(folder, config, ENVIRONMENT, b"{}", data="of the test")
    lines = (json.dumps(record) for record in (usual_records() if records is None else records))
    write_atomic(folder / "metrics.jsonl", "".join(f"{line}\n" for line in lines).encode())
    weights = save({name: np.zeros(shape, np.float32) for name, shape in TENSORS.items()})
    receipt = usual_receipt() if receipt is None else receipt
    if finished:
        write_atomic(folder / WEIGHTS, weights)
        write_atomic(folder / HELD_OUT, b"")
        write_json(folder / RECEIPT, receipt)
        register_results(folder)
    else:
        write_atomic(folder / "checkpoints" / "90" / WEIGHTS, weights)
        write_sealed(folder / "checkpoints" / "90" / "state.json", _state(folder, receipt))
    return folder


def _state(folder: Path, receipt: dict[str, Any]) -> dict[str, Any]:
    """The state of a checkpoint at update 90, of a run with this receipt."""
    identity = json.loads((folder / "checksums.json").read_text())["identity"]
    booked = receipt["time"]["charged"] | receipt["time"]["not_charged"]
    clock = {"limit": 100.0, "updates": 90, "positions": 90 * 4096, "booked": booked, "stalls": 0, "longest_stall": 0.0}
    shared = {name: receipt[name] for name in ("faults", "processes", "extensions", "thread_choices", "micro_rows")}
    budget = {"clock": "wall", "limit": 100.0}
    return {"step": 90, "identity": identity, "budget": budget, "clock": clock, "last_progress": 0.9, **shared}
