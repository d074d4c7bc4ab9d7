"""`python -m bench.tune_kernels`: find the launch settings that are faster on this GPU than those of the rules."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench.kernel_cases import FULL, OPS, KernelCase
from bench.kernel_timing import Timing, time_call
from bench.kernels import summarise_error
from bench.options import choose
from bench.timing import describe_machine
from bench.tune_calls import CaseCalls, Timer, list_companions, list_distinct
from bench.tune_search import Found, search
from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.errors import CramError
from cram.files.atomic import read_json, write_json
from cram.machine.device import device_name, pick_device
from cram_kernels._settings import LaunchSettings, choose_by, find_target
from cram_kernels._tuned import FORMAT, Choice

ABOUT = """Find launch settings of the kernels that are faster on this GPU than those of the rules. Needs a GPU.

    python -m bench.tune_kernels
    python -m bench.tune_kernels ops=layer_norm,softmax out=h100.json
    CRAM_KERNELS_SETTINGS=kernel_settings.json python -m cram.train recipe=bert_24h

For each kernel, width and dtype of the kernel benchmark, the neighbours of the rule's settings are tried: twice and
half as many rows, elements or warps, rows and warps together, and one stage more and fewer. The search goes on from the
fastest. Each candidate is first compared with float64, forward and backward. What is found in the end is timed beside
the rule in turns, and is kept if the two differ by more than their spread.

The file is written after each kernel, and the same command goes on where it was. `CRAM_KERNELS_SETTINGS=FILE` lets the
kernels take it on GPUs of the same compute capability. kernels/README.md describes it.
Exit status 1 if a kernel computes something else with other settings."""

LIMIT = 440.0  # seconds
INTERPRETER = "Triton's interpreter"  # stands in the file in place of a GPU, with a capability that no GPU has
DRY_CASES = [KernelCase("softmax", 9, 24, "fp32")]

Content = dict[str, Any]


@dataclass
class TuneConfig:
    """What `bench.tune_kernels` takes."""

    ops: list[str] = key([], f"of {', '.join(OPS)} (empty: all)")
    seconds: float = key(0.03, "length of one measurement, about", "s", above=0, most=60)
    limit: float = key(LIMIT, "time after which no kernel begins", "s", above=0, most=1e6)
    out: str = key("kernel_settings.json", "the file; what it has already is not tuned again", path=True)
    dry_run: bool = key(
        False,
        "try the tuner on a CPU, in Triton's interpreter (TRITON_INTERPRET=1 CRAM_KERNELS=triton), on small cases",
    )


# --- the file


def describe_file(device: torch.device) -> Content:
    """Return a file without entries: what they are measured with."""
    machine = describe_machine(device, ("torch", "triton"))
    on_gpu = device.type == "cuda"
    return {
        "format": FORMAT,
        "device": device_name(device) if on_gpu else INTERPRETER,
        "capability": find_target(device).capability if on_gpu else 0,
        "versions": machine["versions"],
        "driver": machine["gpu"] and machine["gpu"]["driver"],
        "commit": machine["commit"],
        "date": machine["date"],
        "entries": [],  # better than the rule
        "unchanged": [],  # where nothing was
    }


def open_file(path: Path, device: torch.device) -> Content:
    """Return the content of the file, or that of a new one.

    Raises:
        CramError: the file was made on another GPU, or with other versions.
    """
    new = describe_file(device)
    if not path.exists():
        return new
    old: Any = read_json(path)
    for name in ("format", "device", "capability", "versions"):
        found = old.get(name) if isinstance(old, dict) else None
        if found != new[name]:
            raise CramError(f"{path}: its {name} is {found}, and here it is {new[name]}. Choose another file: out=")
    try:
        find_done(old)
    except (KeyError, TypeError) as error:
        raise CramError(f"{path}: its lists are not complete ({error!r}). Choose another file: out=") from None
    return dict(old)


def find_done(content: Content) -> set[Choice]:
    """Return what the file has been tuned for."""
    return {Choice(one["kernel"], one["width"], one["dtype"]) for one in content["entries"] + content["unchanged"]}


def add_found(content: Content, choice: Choice, rule: LaunchSettings, found: Found) -> None:
    """Add what came of a search."""
    figures = {"rule": asdict(rule), "rule_microseconds": round(1e6 * found.rule_seconds, 3)}
    if found.better:
        tuned = asdict(found.settings) | {"microseconds": round(1e6 * found.seconds, 3)}
        content["entries"].append(choice._asdict() | tuned | figures)
    else:
        content["unchanged"].append(choice._asdict() | figures)


# --- one kernel


class Tuning:
    """The search for the settings of one choice, over all calls that reach it.

    Attributes:
        wrong: a line for each candidate with which a kernel computed something else.
    """

    def __init__(self, choice: Choice, calls: list[tuple[CaseCalls, str]], timer: Timer, seconds: float) -> None:
        self.choice, self.wrong = choice, list[str]()
        self._calls, self._timer, self._seconds = calls, timer, seconds
        self._checked: set[LaunchSettings] = set()

    def measure(self, settings: LaunchSettings) -> Timing | None:
        """Check and time all calls with some settings, and print the sum of their times."""
        with choose_by(lambda choice, rule: settings if choice == self.choice else rule):
            try:
                if not self._is_right(settings):
                    self.wrong.append(f"{self.choice} {format_settings(settings)}")
                    print(f"    {format_settings(settings):16} WRONG", flush=True)
                    return None
                timings = [calls.time(direction, self._timer, self._seconds) for calls, direction in self._calls]
            except Exception as error:  # whatever Triton raises, such as for too much shared memory
                print(f"    {format_settings(settings):16} {summarise_error(error)}", flush=True)
                return None
        timing = add_timings(timings)
        span = f"{1e6 * timing.median:9.2f} us ({1e6 * timing.p20:.2f}-{1e6 * timing.p80:.2f})"
        print(f"    {format_settings(settings):16} {span}", flush=True)
        return timing

    def _is_right(self, settings: LaunchSettings) -> bool:
        if settings not in self._checked:
            if not all(calls.is_right() for calls, _ in self._calls):
                return False
            self._checked.add(settings)
        return True


def add_timings(timings: list[Timing]) -> Timing:
    """Return the sum of timings that were made in the same way."""
    median, p20, p80 = (sum(getattr(timing, name) for timing in timings) for name in ("median", "p20", "p80"))
    return Timing(median, p20, p80, timings[0].how)


def format_settings(settings: LaunchSettings) -> str:
    """Return rows x block, warps and stages, as in `4x1024 8w 2s`."""
    return f"{settings.rows}x{settings.block} {settings.warps}w {settings.stages}s"


# --- all kernels


def list_choices(
    cases: list[KernelCase], device: torch.device, done: set[Choice]
) -> Iterator[tuple[Choice, LaunchSettings, list[tuple[CaseCalls, str]]]]:
    """Yield each choice that is not done, the settings of its rule, and the calls that reach it, with a direction."""
    for case in cases:
        opened = list(open_cases([case], device))
        rules = opened[0].rules() if opened else {}
        if rules.keys() <= done:
            continue
        opened += open_cases(list_companions(case, cases), device)
        directions = [(calls, direction) for calls in opened for direction in calls.choices]
        for choice in [choice for choice in rules if choice not in done]:
            done.add(choice)
            yield choice, rules[choice], [(calls, way) for calls, way in directions if choice in calls.choices[way]]


def open_cases(cases: Iterable[KernelCase], device: torch.device) -> Iterator[CaseCalls]:
    """Yield the calls of each case. One that cannot be launched with the settings of its rules is reported."""
    for case in cases:
        try:
            yield CaseCalls(case, device)
        except Exception as error:  # whatever Triton raises
            print(f"{case.name}: {summarise_error(error)}", flush=True)


def tune(cases: list[KernelCase], device: torch.device, config: TuneConfig, timer: Timer = time_call) -> list[str]:
    """Tune all kernels that the cases launch, and write the file after each.

    Args:
        cases: one of each op, width and dtype.
        device: of the tensors.
        config: with the file and the limit.
        timer: times a call.

    Returns:
        A line for each candidate with which a kernel computed something else.

    Raises:
        CramError: no kernel was launched.
    """
    began, path = time.monotonic(), Path(config.out)
    content, wrong = open_file(path, device), list[str]()
    done = find_done(content)
    if done:
        print(f"{path}: goes on, {len(done)} are done")
    for choice, rule, calls in list_choices(cases, device, done):
        if time.monotonic() - began > config.limit:
            print(f"{config.limit:.0f} s are over; the same command goes on with {choice}")
            break
        print(f"{choice}, in {', '.join(f'{one.case.name} {direction}' for one, direction in calls)}", flush=True)
        tuning = Tuning(choice, calls, timer, config.seconds)
        found = search(choice, rule, tuning.measure)
        wrong += tuning.wrong
        if found is None:
            print("  cannot be measured with the settings of its rule", flush=True)
            continue
        add_found(content, choice, rule, found)
        write_json(path, content)
        gain = f"{format_settings(found.settings)} takes {found.seconds / found.rule_seconds:.2f} of the rule's time"
        print(f"  {gain}" if found.better else "  the rule stays", flush=True)
    if not done:
        raise CramError("no kernel was launched, so none can be tuned: is Triton installed, and CRAM_KERNELS not set?")
    print(f"{path}: {len(content['entries'])} settings, {len(content['unchanged'])} rules stay")
    return wrong


def main(words: list[str], timer: Timer = time_call) -> int:
    """Tune what the words ask for. Returns 1 if a kernel computes something else with other settings.

    Raises:
        CramError: there is no GPU, or the kernels do not run where they are tried.
    """
    config = read_words(TuneConfig, words)
    ops = choose("ops", config.ops, OPS)
    device = pick_device("auto")
    if device.type != "cuda" and not config.dry_run:
        raise CramError("torch finds no CUDA device here, and launch settings can be tuned on a GPU only.")
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise CramError("dry_run=true needs Triton's interpreter: set TRITON_INTERPRET=1 and CRAM_KERNELS=triton.")
    cases = [case for case in list_distinct(DRY_CASES if config.dry_run else FULL) if case.op in ops]
    # A stream of its own, because the default stream cannot be captured in a graph.
    with torch.cuda.stream(torch.cuda.Stream()) if device.type == "cuda" else nullcontext():
        wrong = tune(cases, device, config, timer)
    print("\n".join(f"WRONG: {line}" for line in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    run_door(main, TuneConfig, ABOUT)
