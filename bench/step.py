"""`python -m bench.step`: tokens a second, MFU and the profile of cram's training step."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench import step_stock, step_training, step_turns
from bench.checkouts import ROOT, check_checkout
from bench.options import OUT_HELP, choose, results_folder
from bench.timing import describe_machine, write_results
from cram.command import run_door
from cram.config.recipe import read_config, read_words
from cram.config.schema import key
from cram.machine.device import pick_device, set_threads

ABOUT = """Measure cram's training step: tokens a second, MFU, and where the time goes.

    python -m bench.step
    python -m bench.step quick=true
    python -m bench.step parts=stock sizes=12x768 dtypes=bf16 rates=0.30,0.15 rounds=5
    python -m bench.step against=../before threads=1 dtypes=fp32,bf16 optimizers=muon rounds=7

The part `stock` times the step beside stock `transformers` models. The part `training` times the update of training
runs as the loop does it, eager and compiled in each way, with AdamW and Muon, and profiles it. `against` times the
update in this checkout and in another one, in turns, by CPU and wall time.

No contender begins after `limit` seconds, so that a run takes about 8 minutes on an H100. Those left out are named, and
can be asked for by `settings` and `compile`. `quick=true` takes one case beside stock models, and both models eager, by
blocks and by blocks with CUDA graphs, with AdamW. On a CPU the sizes are small. The results are written after each
contender."""

Result = dict[str, Any]
LIMIT, QUICK_LIMIT = 400.0, 200.0  # seconds; the contender that is then running ends within a minute or two
ROUNDS, QUICK_ROUNDS = 5, 3
PARTS = ("stock", "training")
DTYPES = ("fp32", "bf16")


@dataclass
class StepBenchConfig:
    """What `bench.step` takes. An empty list stands for what the device and `quick` choose."""

    quick: bool = key(False, "fewer contenders, within 4 minutes on an H100")
    parts: list[str] = key([], f"of {', '.join(PARTS)} (empty: both)")
    sizes: list[str] = key([], f"beside stock models: of {', '.join(step_stock.SIZES)}")
    dtypes: list[str] = key([], f"beside stock models: of {', '.join(DTYPES)}")
    rates: list[float] = key([], "beside stock models: shares of the tokens that are predicted", above=0, most=1)
    settings: list[str] = key([], "training runs, by name: " + "; ".join(step_training.SETTING_NAMES))
    compile: list[str] = key([], f"of {', '.join(step_training.COMPILE)}")
    optimizers: list[str] = key([], f"of {', '.join(step_training.OPTIMIZERS)}")
    rounds: int | None = key(
        None, f"times that each contender is timed (null: {ROUNDS}, quick {QUICK_ROUNDS})", "rounds", least=2, most=1000
    )
    limit: float | None = key(
        None,
        f"time after which no contender begins (null: {LIMIT:.0f}, quick {QUICK_LIMIT:.0f})",
        "s",
        above=0,
        most=1e6,
    )
    against: str | None = key(
        None, "folder of another checkout of this project: only the updates of both are timed, in turns", path=True
    )
    words: list[str] = key([], "more words of the training runs that are timed against another checkout")
    threads: int | None = key(None, "CPU threads (null: one per core)", "threads", least=1, most=1024)
    out: str | None = key(None, OUT_HELP, path=True)


@dataclass(frozen=True)
class StepChoice:
    """What is measured: the config's lists, with the choice of the device in the place of the empty ones."""

    sizes: list[str]
    dtypes: list[str]
    rates: list[float]
    compile: list[str]
    optimizers: list[str] = field(default_factory=lambda: list(step_training.OPTIMIZERS))


DEFAULTS = {
    ("cuda", False): StepChoice(["12x768"], ["bf16"], [0.30, 0.15], ["eager", "blocks", "blocks+graphs", "model"]),
    ("cuda", True): StepChoice(["12x768"], ["bf16"], [0.30], ["eager", "blocks", "blocks+graphs"], ["adamw"]),
    ("cpu", False): StepChoice(["4x256", "4x256v32k", "12x768"], ["fp32", "bf16"], [0.30, 0.15], ["eager", "blocks"]),
    ("cpu", True): StepChoice(["4x256"], ["bf16"], [0.30], ["eager", "blocks"], ["adamw"]),
}


def choose_contenders(config: StepBenchConfig, device: torch.device) -> StepChoice:
    """Return what the config asks for on a device.

    Raises:
        CramError: for a size, dtype, way to compile or optimizer that does not exist.
    """
    default = DEFAULTS[device.type, config.quick]
    return StepChoice(
        sizes=choose("sizes", config.sizes, step_stock.SIZES, default.sizes),
        dtypes=choose("dtypes", config.dtypes, DTYPES, default.dtypes),
        rates=config.rates or default.rates,
        compile=choose("compile", config.compile, step_training.COMPILE, default.compile),
        optimizers=choose("optimizers", config.optimizers, step_training.OPTIMIZERS, default.optimizers),
    )


class StepResults:
    """The results so far. Each is printed and written as soon as its contender has been measured."""

    def __init__(self, out: Path, device: torch.device, limit: float) -> None:
        self._out, self._device, self._limit = out, device, limit
        self._began = time.monotonic()
        self.results: Result = {
            "machine": describe_machine(device),
            "cases": {},
            "training": {},
            "against": {},
            "left_out": [],
        }

    def has_time(self, name: str) -> bool:
        """Return whether a contender may begin, and say so. If it may not, its name is recorded."""
        seconds = time.monotonic() - self._began
        if seconds < self._limit:
            print(f"{seconds:4.0f} s  {name} begins", flush=True)
            return True
        self.results["left_out"].append(name)
        print(f"{name}: left out, because {self._limit:.0f} s are over", flush=True)
        return False

    def add(self, part: str, name: str, result: Result, line: str) -> None:
        """Record, print and write one result."""
        self.results[part][name] = result
        print(f"{time.monotonic() - self._began:4.0f} s  {line}", flush=True)
        self.write()

    def write(self) -> Path:
        """Write `OUT/step-DEVICE.json`, and return its path."""
        return write_results(self.results, self._out, f"step-{self._device.type}")


def measure_beside_stock(choice: StepChoice, rounds: int, device: torch.device, results: StepResults) -> None:
    """Measure all cases of the step beside stock models."""
    cases = [(size, dtype, rate) for size in choice.sizes for dtype in choice.dtypes for rate in choice.rates]
    for label, dtype, rate in cases:
        name = f"{label} {dtype} mask {rate:.2f}"
        if not results.has_time(name):
            continue
        size = step_stock.size_for(label, device)
        try:
            case = step_stock.run_case(size, dtype, rate, rounds, device)
        except Exception as error:  # whatever a device or a stock class raises; the other cases go on
            case = {"error": step_training.summarise_error(error)}
        step_training.free_memory(device)
        results.add("cases", name, case, step_stock.format_line(name, case))


def measure_training(
    settings: list[str], choice: StepChoice, rounds: int, device: torch.device, results: StepResults
) -> None:
    """Measure the updates of training runs in all settings."""
    for setting in settings:
        config = read_config(list(step_training.setting_words(device)[setting]))
        for kind in choice.compile:
            if results.has_time(f"{setting} {kind}"):
                for name, result in step_training.measure_kind(config, kind, choice.optimizers, rounds, device):
                    label = f"{setting} {name}"
                    results.add("training", label, result, step_training.format_line(label, result))


def measure_against(
    other: Path, config: StepBenchConfig, choice: StepChoice, rounds: int, results: StepResults, device: torch.device
) -> None:
    """Time the eager updates of this checkout and of another one in turns, for each dtype and optimizer."""
    threads = torch.get_num_threads()
    usual = list(step_training.SETTINGS[device.type])
    for setting in choose("settings", config.settings, step_training.setting_words(device), usual):
        words = step_training.setting_words(device)[setting]
        for dtype in choice.dtypes:
            for optimizer in choice.optimizers:
                name = f"{setting} {dtype} {optimizer}"
                more = [f"precision={dtype}", f"optimizer.kind={optimizer}", *config.words]
                checkouts = {"ours": ROOT, "theirs": other}
                turns = step_turns.compare_updates(checkouts, threads, [*words, *more], rounds)
                results.add("against", name, turns, step_turns.format_line(name, turns))


def main(words: list[str]) -> None:
    """Measure what the words ask for and write `OUT/step-DEVICE.json`."""
    config = read_words(StepBenchConfig, words)
    device = pick_device("auto")
    choice = choose_contenders(config, device)
    parts = choose("parts", config.parts, PARTS)
    usual = list(step_training.SETTINGS[device.type])
    settings = choose("settings", config.settings, step_training.setting_words(device), usual)
    rounds = config.rounds or (QUICK_ROUNDS if config.quick else ROUNDS)
    limit = config.limit or (QUICK_LIMIT if config.quick else LIMIT)
    set_threads(config.threads)
    results = StepResults(results_folder(config.out), device, limit)
    if config.against is not None:
        measure_against(check_checkout(config.against), config, choice, rounds, results, device)
        print(results.write())
        return
    if "stock" in parts:
        measure_beside_stock(choice, rounds, device, results)
    if "training" in parts:
        measure_training(settings, choice, rounds, device, results)
    print(results.write())


if __name__ == "__main__":
    run_door(main, StepBenchConfig, ABOUT)
