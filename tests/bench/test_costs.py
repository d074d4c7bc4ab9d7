"""The benchmark of costs writes a model that a plan can start from."""

import json
from pathlib import Path

import pytest

from bench import costs
from bench.loader_passes import make_shards
from cram.config.recipe import read_config
from cram.errors import CramError
from cram.planner import cost_model
from cram.planner.ladder import shape_ladder
from cram.planner.workload import Workload


def test_a_kept_model_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_model, "COSTS", tmp_path)
    ladder = [shape for shape in shape_ladder("decoder", "cpu", 64) if shape.layers == 2]
    monkeypatch.setattr(costs, "shape_ladder", lambda *_: ladder)
    monkeypatch.setattr(costs, "set_threads", lambda threads: threads)
    monkeypatch.setattr(costs, "make_measure", lambda *_: lambda shape: 1e-4 * shape.layers * shape.width)
    make_shards(tmp_path / "set", 64, 50_000)
    costs.main([f"data={tmp_path / 'set'}", "device=cpu", "precision=fp32", "threads=1", "shapes=9", f"out={tmp_path}"])
    kept = json.loads((tmp_path / "cpu_fp32.json").read_text())
    assert set(kept["models"]) == {"encoder", "decoder"}
    assert kept["threads"] == 1
    work = Workload(read_config(["recipe=gpt_demo"]), 4096, "cpu")
    model = cost_model.kept_cost(work, "fp32")
    assert model.costs == kept["models"]["decoder"]["costs"]
    assert model.origin.startswith("kept: ") and model.error is not None
    crammed = Workload(read_config(["recipe=crammed_bert"]), 4096, "cpu")
    assert cost_model.kept_cost(crammed, "fp32").costs == kept["models"]["encoder"]["costs"]


def test_the_data_must_be_given() -> None:
    with pytest.raises(CramError, match=r"^data= is missing\."):
        costs.main([])
