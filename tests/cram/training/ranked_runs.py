"""Runs for `test_ranks` by one, two and three ranks, which are forked from one process that has imported torch."""

import importlib
import json
import os
import shutil
import socket
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import cram.fitting
from cram.config.recipe import keep_last_words, read_config
from cram.files.atomic import write_json
from cram.machine.processes import end_with_parent
from cram.training import gradients
from tests.cram.distributed.forked_ranks import fork_ranks
from tests.cram.training.short_runs import stop_at

IMPORTED_LATE = ("torch._dynamo", "torch.utils.tensorboard")  # by a run, so that not every rank imports them itself
STEP_ROWS = 12  # of all ranks together
UPDATES = 6
STOP = 4  # updates of a run that another number of ranks goes on with
WORDS = [
    "model.size=given",
    "batch.tokens=1536",
    "batch.start_tokens=768",
    "log_interval=1",
    "evaluation.interval=0.6",
    "precision=fp32",
    "optimizer.muon.products=fp32",
    "data.epochs=4",
    f"budget={UPDATES}steps",
]


@dataclass(frozen=True)
class Configuration:
    """A run.

    Attributes:
        words: beside those of all runs.
        sizes: numbers of ranks that do it.
        short_of_memory: whether the last one of several ranks runs out of memory once.
    """

    words: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (1, 2)
    short_of_memory: bool = False


MUON, ADAMW = "optimizer.kind=muon", "optimizer.kind=adamw"
CONFIGURATIONS = {
    "encoder_muon": Configuration((MUON,)),
    "encoder_adamw": Configuration((ADAMW, "optimizer.clip=0.1")),
    "decoder": Configuration((MUON, "recipe=gpt_demo"), (1, 3)),
    "stacking_averaging": Configuration(
        (ADAMW, "stacking.layers=1", "stacking.at=[0.3]", "stacking.keep_state=true", "averaging.start=0.5")
    ),
    "selective": Configuration((ADAMW, "selective.beta=1.0")),
    "rho": Configuration((ADAMW, "rho.keep=0.5", "rho.reference_layers=1")),
    "short_of_memory": Configuration((ADAMW, "batch.start_tokens=null"), short_of_memory=True),
}


def words_of(name: str, size: int, base: list[str], folder: Path) -> list[str]:
    """The words of a run on a number of ranks."""
    words = [*base, *WORDS, *CONFIGURATIONS[name].words, f"batch.micro_rows={STEP_ROWS // size}"]
    return keep_last_words([*words, f"run={folder / str(size) / name}"])


def write_end(config: Any, folder: Path, session: Any, *_: Any) -> dict[str, Any]:
    """Write what a run ends with, instead of a receipt, an export and a page."""
    save_file({name: tensor.contiguous() for name, tensor in session.parts.model.state_dict().items()}, folder / "end")
    write_json(folder / "state.json", {"out_of_memory": session.state.out_of_memory, "micro": session.state.micro_rows})
    return {}


def run_short_of_memory(patch: pytest.MonkeyPatch, is_last: bool) -> None:
    """Let the last rank run out of memory once, in the second micro-batch of its third update."""
    backward, passes = gradients.backward, iter(range(10**6))

    def fail_once(session: Any, batch: Any, scale: float) -> torch.Tensor:
        if is_last and session.clock.updates >= 2 and next(passes) == 1:
            raise torch.OutOfMemoryError("simulated")
        return backward(session, batch, scale)

    patch.setattr(gradients, "backward", fail_once)


def fit(words: list[str], is_last: bool, short_of_memory: bool = False, stop: int | None = None) -> None:
    """Do a run on this rank, without what comes behind its training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cram.fitting, "finish_run", write_end)
        patch.setattr(cram.fitting, "summarize", lambda receipt: receipt)
        patch.setattr("cram.training.run_page.RunPage.write_last", lambda page: None)
        if short_of_memory:
            run_short_of_memory(patch, is_last)
        if stop:
            stop_at(patch, stop)
        cram.fitting.fit_config(read_config(words))


def do_series(rank: int, size: int, port: int, folder: Path, base: list[str], resume: bool) -> None:
    """Do all runs of a number of ranks on one of them; afterwards, or instead, those that a stop has left."""
    end_with_parent()
    torch.set_num_threads(1)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    values = (rank, size, rank, size, "127.0.0.1", port)
    if size > 1:
        os.environ.update({name: str(value) for name, value in zip(names, values, strict=True)})
    is_last = rank == size - 1 and size > 1
    try:
        for name, run in CONFIGURATIONS.items():
            if size in run.sizes and not resume:
                fit(words_of(name, size, base, folder), is_last, run.short_of_memory)
        stopped = words_of("encoder_muon", 2, base, folder)
        if size == 2:
            fit([*stopped[:-1], f"run={folder / 'stopped'}"], is_last, stop=STOP)
        else:
            path = folder / f"resumed-{size}"
            if path.exists():
                fit([*stopped[:-1], f"run={path}"], is_last)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def main(folder: Path) -> int:
    """Do all runs, with the words in `words.json`."""
    end_with_parent()
    for module in IMPORTED_LATE:
        importlib.import_module(module)
    base = json.loads((folder / "words.json").read_text())
    for size, resume in ((1, False), (2, False), (3, False), (1, True)):
        port = _free_port()
        if fork_ranks(do_series, [(rank, size, port, folder, base, resume) for rank in range(size)]):
            return 1
        if size == 2:
            for other in (1, 3):
                shutil.copytree(folder / "stopped", folder / f"resumed-{other}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
