"""Tokens a second, MFU and the profile of cram's training step.

    python -m bench.step [--quick] [--out bench/results]
    python -m bench.step --sizes 12x768 --dtypes bf16 --rates 0.30,0.15 --settings "encoder 12x768" --rounds 5

First the step beside stock `transformers` models (`bench/step_stock.py`), then the update of training runs as the loop
does it (`bench/step_training.py`), eager and compiled in each way, with AdamW and Muon, and where its time goes
(`bench/step_profile.py`). `--sizes ""` or `--settings ""` leaves a part out. A word may also be said as `rounds=5`.

No contender begins after --limit seconds, so that a run is meant to fit 8 minutes on an H100; those that are left out
are named, and can be asked for by --settings and --compile. --quick has one case beside stock models, and both models
eager, by blocks and by blocks with CUDA graphs, with AdamW. On a CPU sizes are small. The results are written after
every contender.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bench import step_stock, step_training
from bench.timing import machine, write_results
from cram.machine.device import pick_device, set_threads

ROOT = Path(__file__).resolve().parent.parent

Result = dict[str, Any]
LIMIT, QUICK_LIMIT = 400.0, 200.0  # seconds; the contender that is then running ends within a minute or two
# What is measured unless it is said, on each device, and what less of it by --quick.
DEFAULTS: dict[str, dict[str, str]] = {
    "cuda": {
        "sizes": "12x768", "dtypes": "bf16", "rates": "0.30,0.15",
        "compile": "eager,blocks,blocks+graphs,model",
    },
    "cpu": {
        "sizes": "4x256,4x256v32k,12x768", "dtypes": "fp32,bf16", "rates": "0.30,0.15",
        "compile": "eager,blocks",
    },
}  # fmt: skip
QUICK: dict[str, dict[str, str]] = {
    "cuda": {"rates": "0.30", "compile": "eager,blocks,blocks+graphs", "optimizers": "adamw", "rounds": "3"},
    "cpu": {"sizes": "4x256", "dtypes": "bf16", "rates": "0.30", "optimizers": "adamw", "rounds": "3"},
}
COMMON = {"optimizers": ",".join(step_training.OPTIMIZERS), "rounds": "5"}


def parse(words: list[str], device: torch.device) -> argparse.Namespace:
    """The words of the command line; lists are split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer contenders, within 4 minutes of an H100")
    known = {
        "sizes": list(step_stock.SIZES),
        "dtypes": ["fp32", "bf16"],
        "settings": list(step_training.SETTINGS[device.type]),
        "compile": list(step_training.COMPILE),
        "optimizers": list(step_training.OPTIMIZERS),
    }
    for name, choices in known.items():
        parser.add_argument(f"--{name}", help=f"of {', '.join(choices)}, separated by commas")
    parser.add_argument("--rates", help="shares of the tokens that are predicted, separated by commas")
    parser.add_argument("--rounds", help="times that each contender is timed, at least 2")
    parser.add_argument("--limit", type=float, help="seconds after which no contender begins")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", help="folder of the results")
    asked = parser.parse_args([word if word.startswith("-") or "=" not in word else f"--{word}" for word in words])
    settings = {"settings": ",".join(known["settings"])}
    defaults = {**COMMON, **settings, **DEFAULTS[device.type], **(QUICK[device.type] if asked.quick else {})}
    for name, value in defaults.items():
        said = getattr(asked, name)
        setattr(asked, name, [part for part in (value if said is None else said).split(",") if part])
    for name, choices in known.items():
        unknown = set(getattr(asked, name)) - set(choices)
        if unknown:
            parser.error(f"--{name}: no {', '.join(sorted(unknown))}; there are {', '.join(choices)}")
    asked.rounds = int(asked.rounds[0])
    asked.limit = asked.limit or (QUICK_LIMIT if asked.quick else LIMIT)
    return asked


class Run:
    """What has been measured so far: printed and written as it comes, contender by contender."""

    def __init__(self, asked: argparse.Namespace, device: torch.device) -> None:
        self._out, self._device, self._limit = asked.out, device, asked.limit
        self._began = time.monotonic()
        self.results: Result = {"machine": machine(device), "cases": {}, "training": {}, "left_out": []}

    def in_time(self, name: str) -> bool:
        """Whether a contender may begin; if not, that is recorded."""
        if time.monotonic() - self._began < self._limit:
            return True
        self.results["left_out"].append(name)
        print(f"{name}: left out, {self._limit:.0f} s are over", flush=True)
        return False

    def keep(self, part: str, name: str, result: Result, line: str) -> None:
        """Record, print and write one result."""
        self.results[part][name] = result
        print(f"{time.monotonic() - self._began:4.0f} s  {line}", flush=True)
        self.write()

    def write(self) -> Path:
        """Write `OUT/step-DEVICE.json`."""
        return write_results(self.results, self._out, f"step-{self._device.type}")


def beside_stock(asked: argparse.Namespace, device: torch.device, run: Run) -> None:
    """All cases of the step beside stock models."""
    cases = [(size, dtype, rate) for size in asked.sizes for dtype in asked.dtypes for rate in asked.rates]
    for label, dtype, rate in cases:
        name = f"{label} {dtype} mask {rate}"
        if not run.in_time(name):
            continue
        size = step_stock.size_for(label, device)
        try:
            case = step_stock.run_case(size, dtype, float(rate), asked.rounds, device)
        except Exception as error:  # whatever a device or a stock class raises; the others go on
            case = {"error": step_training.said(error)}
        step_training.clean(device)
        run.keep("cases", name, case, step_stock.line(name, case))


def training(asked: argparse.Namespace, device: torch.device, run: Run) -> None:
    """All settings of training runs."""
    for setting in asked.settings:
        words = step_training.SETTINGS[device.type][setting]

        def keep(name: str, result: Result, setting: str = setting) -> None:
            full = f"{setting} {name}"
            run.keep("training", full, result, step_training.line(full, result))

        def in_time(kind: str, setting: str = setting) -> bool:
            return run.in_time(f"{setting} {kind}")

        step_training.run_setting(words, asked.compile, asked.optimizers, asked.rounds, device, keep, in_time)


def main(words: list[str]) -> None:
    """Measure what the words ask for and write `OUT/step-DEVICE.json`."""
    device = pick_device("auto")
    asked = parse(words, device)
    set_threads(None)
    run = Run(asked, device)
    beside_stock(asked, device, run)
    training(asked, device, run)
    print(run.write())


if __name__ == "__main__":
    main(sys.argv[1:])
