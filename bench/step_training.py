"""cram's own training step, as the loop does it, on random rows: ways to compile and optimizers beside each other.

The micro-batch is the largest that fits. The probe of a real run finds it once for each setting.
"""

import gc
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.step_profile import KINDS, profile_update
from bench.timing import percentiles
from cram.budget import Budget
from cram.build import assemble, build_optimizer
from cram.clock import Clock
from cram.config.config import Config
from cram.config.training import CompileConfig
from cram.data.shards.loader import TrainingRows
from cram.machine.device import peak_flops, pick_precision, synchronize
from cram.model.count import flops_per_position
from cram.model.kinds import build_model
from cram.objectives.masked import MaskedObjective
from cram.objectives.objective import Setting
from cram.run.checkpoint import Checkpoints
from cram.run.metrics import Metrics
from cram.run.receipt import compute_mfu
from cram.training.compilation import compile_session
from cram.training.loop import settle, update
from cram.training.probe import find_micro_rows
from cram.training.session import Session
from cram.training.start import loop_config

Words = tuple[str, ...]
Result = dict[str, Any]

# The words of each training run. An update of 262,144 tokens has several of the micro-batches that fit 80 GB.
_LARGE = ("batch.tokens=262144", "batch.start_tokens=null")
SETTINGS: dict[str, dict[str, Words]] = {
    "cuda": {
        "encoder 12x768": ("recipe=bert_1h", *_LARGE),
        "crammed 16x768": ("recipe=crammed_bert", *_LARGE),
    },
    "cpu": {
        "encoder 4x256": (
            "recipe=bert_demo",
            "model.layers=4",
            "model.width=256",
            "model.heads=4",
            "model.mlp_width=512",
            "wordpiece.vocab_size=8192",
            "batch.tokens=4096",
            "batch.micro_rows=16",
            "objective.mask_rate=0.3",
        ),
    },
}
# Only where it is asked for: it shows that the benchmark works, and measures nothing.
TINY = "tiny 2x32"
TINY_WORDS: Words = (
    "recipe=bert_demo",
    "model.layers=2",
    "model.width=32",
    "model.heads=2",
    "model.mlp_width=48",
    "wordpiece.vocab_size=64",
    "data.seq_len=16",
    "batch.tokens=128",
    "batch.start_tokens=null",
    "batch.micro_rows=4",
)
SETTING_NAMES = [name for settings in SETTINGS.values() for name in settings] + [TINY]
COMPILE = {
    "eager": CompileConfig(kind="eager"),
    "blocks": CompileConfig(kind="blocks"),
    "model": CompileConfig(kind="model"),
    "blocks+graphs": CompileConfig(kind="blocks", cuda_graphs=True),
    "model+graphs": CompileConfig(kind="model", cuda_graphs=True),
}
OPTIMIZERS = ("adamw", "muon")
POOL = 8192  # random rows, which are repeated
DOCUMENT = 400  # mean length of a document, in tokens
SPECIAL, MASK = list(range(5)), 4
WARMING_UPDATES = 2


def setting_words(device: torch.device) -> dict[str, Words]:
    """Return the words of each training run that can be measured on a device, by name."""
    return SETTINGS[device.type] | {TINY: TINY_WORDS}


class RandomRows:
    """An endless loader of random rows: tokens as skewed as words, in documents of about DOCUMENT tokens."""

    rows_total = rows_left = 10**9

    def __init__(self, vocab_size: int, seq_len: int) -> None:
        source = np.random.default_rng(0)
        tokens = source.zipf(1.3, (POOL, seq_len)) % (vocab_size - len(SPECIAL)) + len(SPECIAL)
        self._tokens = tokens.astype(np.int32)
        self._documents = np.cumsum(source.random((POOL, seq_len)) < 1 / DOCUMENT, axis=1, dtype=np.int32)
        self.rows_taken = 0

    def peek(self, n: int) -> TrainingRows:
        index = np.arange(self.rows_taken, self.rows_taken + n)
        place = index % POOL
        return TrainingRows(self._tokens[place], self._documents[place], index, np.zeros(n, np.int32))

    def next(self, n: int, progress: float = 0.0) -> TrainingRows:
        rows = self.peek(n)
        self.rows_taken += n
        return rows


@contextmanager
def new_session(config: Config, device: torch.device) -> Iterator[Session]:
    """Open a run of the config on random rows, in a temporary folder."""
    vocab, seq_len = config.wordpiece.vocab_size, config.data.seq_len
    model = build_model(config.model, vocab, config.seed, device)
    setting = Setting(SPECIAL, 0, MASK, vocab, seq_len, config.seed, static_shapes=device.type == "cuda")
    loader: Any = RandomRows(vocab, seq_len)
    no_rows: Any = None
    objective = MaskedObjective(config.objective, setting)
    parts = assemble(config, model, objective, loader, no_rows, pick_precision(config.precision, device))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        metrics = Metrics(run)
        clock = Clock(Budget.parse("1000000steps"))
        try:
            yield Session(
                parts=parts,
                config=loop_config(config),
                clock=clock,
                metrics=metrics,
                checkpoints=Checkpoints(run),
                show=lambda *_: None,
                stop_requested=lambda: False,
                threads=torch.get_num_threads(),
            )
        finally:
            metrics.close()


def free_memory(device: torch.device) -> None:
    """Drop compiled code and free memory, for the next contender."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def time_updates(session: Session, rounds: int, each: int) -> list[float]:
    """Seconds of an update in `rounds` runs of `each` updates, the device waited for only around a run."""
    for _ in range(WARMING_UPDATES):
        update(session)
    seconds = []
    for _ in range(rounds):
        settle(session)
        synchronize(session.parts.device)
        begin = time.perf_counter()
        for _ in range(each):
            update(session)
        synchronize(session.parts.device)
        seconds.append((time.perf_counter() - begin) / each)
    settle(session)
    return seconds


def measure(session: Session, config: Config, rounds: int, each: int) -> Result:
    """Tokens a second, MFU, memory and profile of a session's update."""
    device, clock = session.parts.device, session.clock
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = time_updates(session, rounds, each)
    tokens = clock.positions / clock.updates
    speeds = percentiles([tokens / value for value in seconds])
    share = session.state.predicted / clock.positions
    flops = flops_per_position(config.model, config.wordpiece.vocab_size, config.data.seq_len, share)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {
        "tokens_per_second": speeds,
        "mfu": compute_mfu(flops * tokens, tokens / speeds["median"], peak_flops(device)),
        "update_seconds": tokens / speeds["median"],
        "tokens_per_update": tokens,
        "micro_rows": session.state.micro_rows,
        "peak_memory_bytes": memory,
        "profile": profile_update(session, update),
    }


def measure_kind(
    config: Config, kind: str, optimizers: list[str], rounds: int, device: torch.device
) -> Iterator[tuple[str, Result]]:
    """Measure one way to compile, with each optimizer.

    Yields:
        The name and the result of each contender, as soon as it has been measured. The result of one that failed, for
        lack of memory or in the compiler, is its error.
    """
    remaining = [f"{kind} {optimizer}" for optimizer in optimizers]
    failure = ""
    try:
        for name, result in _measure_optimizers(config, kind, optimizers, rounds, device):
            remaining.remove(name)
            yield name, result
    except Exception as error:  # whatever a compiler or a device raises; the other contenders go on
        failure = summarise_error(error)
    for name in remaining:
        yield name, {"error": failure}
    free_memory(device)


def _measure_optimizers(
    config: Config, kind: str, optimizers: list[str], rounds: int, device: torch.device
) -> Iterator[tuple[str, Result]]:
    """Compile a session once, and measure it with one optimizer after the other.

    The micro-batch that the first kind found stays in the config, so that all kinds have the same.
    """
    with new_session(config, device) as session:
        find_micro_rows(session, config.batch.micro_rows)
        config.batch.micro_rows = session.state.micro_rows
        compilation = compile_session(session, COMPILE[kind])
        if compilation["kind"] != COMPILE[kind].kind:
            raise RuntimeError(compilation["failed"][COMPILE[kind].kind])
        for optimizer in optimizers:
            config.optimizer.kind = optimizer
            built = build_optimizer(session.parts.model, config.optimizer)
            session.parts = replace(session.parts, optimizer=built)
            result = measure(session, config, rounds, each=2 if device.type == "cuda" else 1)
            yield f"{kind} {optimizer}", {**result, "compilation": compilation}


def summarise_error(error: Exception) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def format_line(name: str, result: Result) -> str:
    """Return one contender as a line: thousand tokens a second, MFU, memory, and the shares of its profile."""
    if "error" in result:
        return f"{name}: {result['error'][:120]}"
    speed = result["tokens_per_second"]
    figures = [f"{speed['median'] / 1e3:.1f}k tokens/s ({speed['p20'] / 1e3:.1f}-{speed['p80'] / 1e3:.1f})"]
    if result["mfu"] is not None:
        figures.append(f"MFU {result['mfu']:.1%}")
    if result["peak_memory_bytes"] is not None:
        figures.append(f"{result['peak_memory_bytes'] / 2**30:.0f} GiB")
    if result["compilation"]["kind"] != "eager":
        figures.append(f"compiled in {result['compilation']['seconds']:.0f} s")
    shares = result["profile"]["shares"]
    figures.append(", ".join(f"{kind} {shares[kind]:.0%}" for kind in KINDS))
    return f"{name}, micro-batch {result['micro_rows']}: " + " | ".join(figures)
