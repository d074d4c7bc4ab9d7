"""The steps of `bench.first_light`: what each one runs, and how long it may take.

The limits of all steps together are 25 minutes, and each one's is below eight, so that a machine that is lent in pieces
of ten minutes can finish the step that it begins. The benchmarks stop by themselves before their limit.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

Command = list[str]

ROOT = Path(__file__).resolve().parent.parent
PYTHON = [sys.executable, "-u"]
# No step needs a network, and what a step prints is seen at once.
VARIABLES = ("HF_HUB_OFFLINE=1", "HF_DATASETS_OFFLINE=1", "TRANSFORMERS_OFFLINE=1", "PYTHONUNBUFFERED=1")
TEST_PROCESSES = 8  # most of the time of a test on a GPU is compilation, on one core
SETTINGS = "tune/settings.json"


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        question: what it answers.
        limit: seconds after which it is stopped.
        build: builds its command for the folder of the results, which may begin with variables as NAME=VALUE.
        build_tiny: the same with tiny sizes, which a CPU finishes in seconds.
    """

    question: str
    limit: float
    build: Callable[[Path], Command]
    build_tiny: Callable[[Path], Command]

    def command(self, out: Path, tiny: bool) -> Command:
        """Return the command, with the variables of its environment in front."""
        return ["env", *VARIABLES, *(self.build_tiny if tiny else self.build)(out)]


def _module(name: str, *words: str) -> Callable[[Path], Command]:
    """Return a function that builds the command of a door. OUT in a word stands for the folder of the results."""
    return lambda out: [*PYTHON, "-m", name, *(word.replace("=OUT", f"={out}") for word in words)]


def _pytest(path: str, processes: int) -> Callable[[Path], Command]:
    """Return a function that builds a command of pytest, with several processes where pytest-xdist is installed."""
    spread = ["-n", str(processes), "--dist", "loadfile"] if processes and find_spec("xdist") else []
    return lambda _: [*PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / path), *spread]


def _cram(out: Path) -> Command:
    """Train with the launch settings that the step before has found."""
    tuned = out / SETTINGS
    variables = [f"CRAM_KERNELS_SETTINGS={tuned}"] if tuned.exists() else []
    return [*variables, *_module("cram.train", *_RUN, "recipe=bert_10m", "budget=5m", *_LITTLE_TEXT)(out)]


def _tune_tiny(out: Path) -> Command:
    return ["TRITON_INTERPRET=1", "CRAM_KERNELS=triton", *_module("bench.tune_kernels", "dry_run=true", _TUNED)(out)]


_TUNED = f"out=OUT/{SETTINGS}"
_RUN = ("data.source=pydocs", "data.dir=OUT/cram/shards", "run=OUT/cram/run")
# There is little text in the documentation of a Python installation, so it is read many times, with a small vocabulary.
# A run for a result takes more text, and reads it once.
_LITTLE_TEXT = (
    "data.tokens=20000000",
    "data.epochs=1000",
    "data.held_out=0.02",
    "data.filters.compressibility=0.4",
    "wordpiece.vocab_size=8192",
)
_ENCODER = ("parts=training", "settings=encoder 12x768")
_TINY_STEP = ("parts=training", "settings=tiny 2x32", "compile=eager", "optimizers=adamw", "rounds=2")
_TINY_RUN = (
    "data.tokens=50000",
    "data.seq_len=32",
    "data.held_out=0.05",
    "data.filters.compressibility=0.7",
    "data.processes=1",
    "wordpiece.vocab_size=512",
    "wordpiece.sample_bytes=100000",
    "model.layers=2",
    "model.width=32",
    "model.heads=2",
    "model.mlp_width=64",
    "batch.tokens=256",
    "batch.micro_rows=4",
    "batch.start_tokens=null",
    "evaluation.tokens=2048",
    "threads=1",
)

STEPS = {
    "tests": Step(
        "Are the kernels right on this GPU, by their tests?",
        240.0,
        _pytest("tests/kernels", TEST_PROCESSES),
        _pytest("tests/kernels/test_dispatch.py", 0),
    ),
    "check": Step(
        "Are they right at the sizes of a training run, beside float64?",
        90.0,
        _module("bench.kernels", "check_only=true", "providers=ours", "limit=60", "out=OUT/check"),
        _module("bench.kernels", "check_only=true", "providers=ours", "ops=swiglu", "out=OUT/check"),
    ),
    "kernels": Step(
        "How fast are they, beside a copy, torch and the peers that are installed?",
        210.0,
        _module("bench.kernels", "limit=170", "out=OUT/kernels"),
        _module("bench.kernels", "ops=swiglu", "providers=ours,eager", "seconds=0.01", "out=OUT/kernels"),
    ),
    "step": Step(
        "How much faster is a compiled training step than an eager one?",
        170.0,
        _module("bench.step", *_ENCODER, "compile=eager,blocks", "optimizers=adamw", "limit=100", "out=OUT/step"),
        _module("bench.step", *_TINY_STEP, "out=OUT/step"),
    ),
    "speed": Step(
        "How many tokens a second are trained on, at what MFU, and where does the time go?",
        140.0,
        _module("bench.step", *_ENCODER, "compile=blocks+graphs", "optimizers=muon", "limit=80", "out=OUT/speed"),
        _module("bench.step", *_TINY_STEP, "out=OUT/speed"),
    ),
    "tune": Step(
        "Which launch settings are faster on this GPU than those of the rules?",
        190.0,
        _module("bench.tune_kernels", "limit=150", _TUNED),
        _tune_tiny,
    ),
    "cram": Step(
        "What comes of a five-minute run on the documentation of this Python?",
        460.0,
        _cram,
        _module("cram.train", *_RUN, "recipe=bert_demo", "budget=5steps", *_TINY_RUN),
    ),
}
