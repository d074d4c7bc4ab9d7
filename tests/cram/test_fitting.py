"""The training of a config: a budget of reference system time gives one run on machines of any speed."""

import functools
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cram import fitting
from cram.clock import Clock
from cram.config.recipe import keep_last_words, read_config
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.run.metrics import read_metrics

TABLE: dict[str, Any] = {
    "machine": "made up",
    "model": {"width": 32},
    "seq_len": 32,
    "micro_rows": 4,
    "seconds": {
        "training": {"1": 0.02, "2": 0.03},
        "forward": {"1": 0.007, "2": 0.01},
        "optimizer": {"adamw/2": 0.002, "sophia/1": 0.002, "sophia/2": 0.003},
    },
}
# An update of 8 rows: two passes and a step.
UPDATE_SECONDS = 2 * 0.03 + 0.002


@pytest.fixture
def fit(tiny_run: Callable[[Path], list[str]], tmp_path: Path) -> Callable[..., Path]:
    """A function that trains the tiny model for a second of reference time, and returns the run folder."""
    table = tmp_path / "table.json"
    table.write_text(json.dumps(TABLE))

    def run(name: str, *words: str) -> Path:
        common = ["model.size=given", "optimizer.kind=adamw", "batch.start_tokens=null", "batch.micro_rows=null"]
        folder = tmp_path / name
        own = [f"run={folder}", "budget=rst:1s", f"rst.table={table}", "seed=1", *words]
        fitting.fit_config(read_config(keep_last_words([*tiny_run(tmp_path), *common, *own])))
        return folder

    return run


class OtherMachine:
    """A clock that runs 20 times faster, and jumps as if other programs took the core."""

    def __init__(self) -> None:
        self.random, self.jumped = random.Random(0), 0.0

    def __call__(self) -> float:
        self.jumped += self.random.choice([0.0, 0.0, 0.0, 30.0])
        return 20 * time.monotonic() + self.jumped


def test_machines_of_different_speed_make_the_same_weights(
    fit: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["optimizer.kind=sophia", "selective.beta=1", "stacking.layers=1", "stacking.at=[0.5]"]
    here = fit("here", *words)
    monkeypatch.setattr(fitting, "Clock", functools.partial(Clock, now=OtherMachine()))
    monkeypatch.setattr(fitting, "boot_clock", lambda: None)
    there = fit("there", *words)
    for name in ("model.safetensors", "held_out.safetensors"):
        assert (here / name).read_bytes() == (there / name).read_bytes()
    ours, theirs = read_json(here / "receipt.json"), read_json(there / "receipt.json")
    assert theirs["time"]["charged"]["updates"] > 3 * ours["time"]["charged"]["updates"]
    for field in ("updates", "positions", "rows_read", "executed", "budget"):
        assert ours[field] == theirs[field]
    rates = [
        [record["lr"] for record in read_metrics(run / "metrics.jsonl") if "lr" in record] for run in (here, there)
    ]
    assert rates[0] == rates[1] and 0.0 < max(rates[0][-1].values()) < 1e-4


def test_free_overheads_leave_more_updates(fit: Callable[..., Path]) -> None:
    charged, free = (
        read_json(fit(name, "selective.beta=1", *words) / "receipt.json")
        for name, words in (("charged", []), ("free", ["rst.overheads=false"]))
    )
    assert free["updates"] == round(1 / UPDATE_SECONDS)
    assert free["executed"]["overhead"]["forward"]["2"] == free["rows_read"]
    assert charged["updates"] < free["updates"]
    executed = charged["executed"]
    seconds = UPDATE_SECONDS * charged["updates"] + 0.01 / 4 * executed["overhead"]["forward"]["2"]
    assert charged["budget"]["spent"] == pytest.approx(seconds, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.layers=3", "model.mlp_width=64"], r"no entry training for 3 blocks; it has: 1, 2"),
        (["model.width=64"], r"the table of made up is for model\.width=32, not 64"),
        (["optimizer.kind=lion"], r"no entry optimizer for lion with 2 blocks"),
        (["stacking.layers=1", "stacking.at=[0.5]"], r"no entry optimizer for adamw with 1 blocks"),
        (["rst.table=nothing"], r"rst\.table=nothing is unknown"),
    ],
)
def test_a_table_that_does_not_suffice_is_refused_before_any_work(
    fit: Callable[..., Path], tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(CramError, match=message):
        fit("refused", *words)
    assert not (tmp_path / "refused").exists()
