"""`python -m proofs.two_gpus`: what only a machine with several GPUs can show of runs by several ranks."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from bench.options import OUT_HELP, choose, results_folder
from bench.timing import describe_machine, write_results
from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.errors import CramError
from cram.machine.device import count_gpus
from cram.machine.kernels import name_kernels
from proofs.gpu_runs import EQUAL, Case, Place, compare, compare_orders, disturb, pace_of, run_case

ABOUT = """Train with NCCL on several GPUs of this machine, beside one GPU: equality in fp32, bf16, compiled blocks,
CUDA graphs, attention over packed rows, the death of a rank, and speed.

    python -m proofs.two_gpus
    python -m proofs.two_gpus ranks=8 parts=[speed]
    python -m proofs.two_gpus device=cpu out=/tmp/two

Needs no network. What was found is written after each part, into two_gpus-NAME.json. Exit status 1 if something is
wrong, 2 if there are too few GPUs. With device=cpu the parts are tiny and use gloo: that shows that this command works,
and measures nothing."""


@dataclass
class GpusConfig:
    """The keys of this proof."""

    ranks: int = key(2, "GPUs that share a run", least=2, most=64)
    device: Literal["cuda", "cpu"] = key("cuda", "kind of device")
    parts: list[str] = key([], "of equal, variants, kill, speed (empty: all)")
    source: str = key("pydocs", "text to train on, as data.source= of a recipe", path=True)
    folder: str | None = key(None, "folder of the runs, which are kept (null: a temporary one)", path=True)
    out: str | None = key(None, OUT_HELP, path=True)


Found = dict[str, Any]
SLACK = 5.0  # times the rounding of another order that several ranks may differ by in bf16
Part = Callable[[Place], list[Found]]


def equal(place: Place) -> list[Found]:
    """Compare runs in fp32 with those of one rank, update by update."""
    return [_beside_one(place, case) for case in EQUAL]


def variants(place: Place) -> list[Found]:
    """Compare what GPUs are used for: bf16, compiled code, CUDA graphs, attention over packed rows.

    In bf16 each order of the sums gives other weights. What one rank does to them by another order says how much
    several ranks may do.
    """
    rounding = compare_orders(place)
    cases = [
        replace(case, loss=SLACK * rounding["loss"], weights=SLACK * rounding["weights"]) for case in place.variants()
    ]
    return [rounding, *(_beside_one(place, case) for case in cases)]


def _beside_one(place: Place, case: Case) -> Found:
    one, several = (run_case(place, case, place.small, ranks) for ranks in (1, place.ranks))
    return {"case": case.name} | compare(case, one, several)


def kill(place: Place) -> list[Found]:
    """Kill the last rank in an update, and let the same command go on to the end."""
    return [{"case": "kill"} | disturb(place)]


def speed(place: Place) -> list[Found]:
    """Measure the pace of one rank and of all, with the same rows for each of them."""
    found: list[Found] = []
    for case in place.speed_cases():
        runs = (run_case(place, case, place.speed_words(ranks), ranks) for ranks in (1, place.ranks))
        alone, together = map(pace_of, runs)
        efficiency = together["tokens_per_second"] / (place.ranks * alone["tokens_per_second"])
        found.append({"case": case.name, "wrong": [], "one": alone, "several": together, "efficiency": efficiency})
    return found


PARTS: dict[str, Part] = {"equal": equal, "variants": variants, "kill": kill, "speed": speed}


def check_devices(config: GpusConfig) -> None:
    """Check that this machine has the devices.

    Raises:
        CramError: it has fewer GPUs than ranks, or its torch has no NCCL.
    """
    if config.device == "cpu":
        return
    if (gpus := count_gpus()) < config.ranks:
        raise CramError(
            f"ranks={config.ranks}: torch finds {gpus} GPU(s) here. This proof needs one for each rank.\n"
            "Use a machine that has them, or device=cpu to see that the proof itself works."
        )
    if not dist.is_nccl_available():
        raise CramError("this torch is built without NCCL, which exchanges tensors between GPUs.")


def describe(config: GpusConfig) -> Found:
    """Say what the results depend on."""
    device = torch.device("cuda:0" if config.device == "cuda" else "cpu")
    gpus = [torch.cuda.get_device_name(number) for number in range(config.ranks)] if device.type == "cuda" else []
    return {
        "machine": describe_machine(device),
        "gpus": gpus,
        "peer_access": [torch.cuda.can_device_access_peer(0, number) for number in range(1, len(gpus))],
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if gpus else None,
        "kernels": name_kernels(device),
        "ranks": config.ranks,
    }


def prove(config: GpusConfig, names: Sequence[str], folder: Path) -> int:
    """Do the parts, print what they find and write it down. Returns the number of faults."""
    results = describe(config)
    place = Place(folder, config.device, config.ranks, config.source)
    wrong = []
    if config.device == "cuda" and results["kernels"] != "triton":
        wrong.append(f"kernels: {results['kernels']}, not triton")
    for name in names:
        results[name] = PARTS[name](place)
        for found in results[name]:
            wrong += [f"{found['case']}: {fault}" for fault in found["wrong"]]
            print(f"{name}: {found}", flush=True)
        path = write_results(results | {"wrong": wrong}, results_folder(config.out), f"two_gpus-{config.device}")
    print("\n".join(["", *(f"WRONG: {fault}" for fault in wrong), f"{len(wrong)} wrong; {path}"]))
    return len(wrong)


def main(words: list[str]) -> int:
    """Do the parts.

    Raises:
        CramError: a part is unknown, or the machine has not the devices.
    """
    config = read_words(GpusConfig, words)
    names = choose("parts", config.parts, PARTS)
    check_devices(config)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(config.folder or temporary).absolute()
        return 1 if prove(config, names, folder) else 0


if __name__ == "__main__":
    run_door(main, GpusConfig, ABOUT)
