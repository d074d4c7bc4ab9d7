"""`python -m bench.costs`: times updates of many shapes, and keeps the cost model that is fitted to them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cram.build import make_measure
from cram.command import run_door
from cram.config.recipe import read_config, read_words
from cram.config.schema import key
from cram.data.shards.shards import ShardSet
from cram.errors import CramError
from cram.files.atomic import to_json, write_atomic
from cram.machine.device import device_name, pick_device, pick_precision, set_threads
from cram.planner.cost_model import COSTS, CostModel, assumed_cost
from cram.planner.ladder import shape_ladder
from cram.planner.shape import Shape
from cram.planner.throughput import TimedShape, spread_shapes, time_shapes
from cram.planner.workload import Workload

ABOUT = """Time updates of many shapes on this device, and write the cost model that a plan starts from.

    python -m bench.costs data=shards/SHARDFOLDER threads=1

An encoder is timed with masked and with causal batches, a decoder with its own, each with the recipe of the demo.
The file is cram/planner/costs/DEVICE_PRECISION.json. A run of `model.size=auto` times a few shapes and adapts it.
The speed of a CPU without bf16, on one that has it:

    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python -m bench.costs data=... precision=fp32"""

# The words of each workload, by model kind. With a causal share above one half, updates are timed in the causal phase.
WORKLOADS = {
    "encoder": (["recipe=bert_demo"], ["recipe=bert_demo", "objective.causal_share=0.9"]),
    "decoder": (["recipe=gpt_demo"],),
}


@dataclass
class CostsBenchConfig:
    """What `bench.costs` takes."""

    data: str = key("", "shard folder", path=True)
    device: str = key("auto", "device: auto, cpu or cuda")
    precision: str = key("auto", "number format of the matrix products: auto, bf16, fp16 or fp32")
    threads: int | None = key(None, "CPU threads (null: all cores)", "threads", least=1, most=1024)
    shapes: int = key(30, "shapes that are timed for each workload", "shapes", least=1, most=1000)
    rounds: int = key(3, "times that each shape is timed at most", "rounds", least=1, most=1000)
    update: float = key(1.0, "longest update, as it is expected before", "seconds", above=0)
    seconds: float = key(600.0, "longest time for each workload", "seconds", least=0)
    out: str | None = key(None, "folder of the file (null: cram/planner/costs)", path=True)


def time_workload(config: CostsBenchConfig, words: list[str], shards: ShardSet) -> tuple[Workload, list[TimedShape]]:
    """Time shapes that are spread over the ladder, the quick ones first, and print each."""
    common = [f"device={config.device}", f"precision={config.precision}", f"data.seq_len={shards.seq_len}"]
    recipe = read_config([*words, *common])
    work = Workload.of(recipe, shards.vocab_size, pick_device(config.device))
    expected = assumed_cost(work).predict
    ladder = [
        shape
        for shape in shape_ladder(recipe.model.kind, work.device_type, shards.seq_len)
        if work.fits(shape) and expected(shape) <= config.update
    ]
    shapes = sorted(spread_shapes(ladder, config.shapes), key=expected)
    measure = make_measure(recipe, shards)

    def measure_and_print(shape: Shape) -> float:
        seconds = measure(shape)
        print(f"{' '.join(words)}: {shape}: {seconds:.4f} s, {shape.batch_tokens / seconds:,.0f} tokens/s", flush=True)
        return seconds

    return work, time_shapes(shapes, measure_and_print, config.seconds, work.share(), config.rounds)


def fit_kind(config: CostsBenchConfig, kind: str, shards: ShardSet) -> CostModel:
    """Fit one cost model to all workloads of a model kind."""
    timed: list[TimedShape] = []
    for words in reversed(WORKLOADS[kind]):
        work, more = time_workload(config, words, shards)
        timed += more
    return assumed_cost(work).adapted(timed, "fitted")


def main(words: list[str]) -> None:
    """Time, fit, and print where the file is.

    Raises:
        CramError: no shard folder is given.
    """
    config = read_words(CostsBenchConfig, words)
    if not config.data:
        raise CramError("data= is missing. Give a shard folder.")
    shards, device = ShardSet.open(config.data), pick_device(config.device)
    precision = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(pick_precision(config.precision, device), "fp32")
    instructions = f" with {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else ""
    result: dict[str, Any] = {
        "device": device_name(device) + instructions,
        "precision": precision,
        "threads": set_threads(config.threads),
        "torch": torch.__version__,
        "models": {kind: fit_kind(config, kind, shards).to_json() for kind in WORKLOADS},
    }
    path = (Path(config.out) if config.out else COSTS) / f"{device.type}_{precision}.json"
    write_atomic(path, (to_json(result, indent=1) + "\n").encode())
    print(path)


if __name__ == "__main__":
    run_door(main, CostsBenchConfig, ABOUT)
