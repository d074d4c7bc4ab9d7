"""The tuner's cases, words and file. What needs kernels is in tests/kernels/test_tuning.py."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.kernel_cases import FULL
from bench.tune_calls import list_companions, list_distinct
from bench.tune_kernels import main, open_file
from cram.errors import CramError

CPU = torch.device("cpu")


def test_cases_are_distinct_and_have_companions() -> None:
    cases = list_distinct(FULL)
    assert len({(case.op, case.width, case.dtype) for case in cases}) == len(cases)
    assert {case.name for case in cases} <= {case.name for case in FULL}
    norm = next(case for case in cases if case.op == "layer_norm+residual" and case.width == 768)
    assert [case.name for case in list_companions(norm, cases)] == ["layer_norm 32768x768 bf16"]
    gated = next(case for case in cases if case.op == "geglu" and case.width == 3072)
    assert [case.name for case in list_companions(gated, cases)] == ["swiglu 32768x3072 bf16"]
    loss = next(case for case in cases if case.op == "cross_entropy")
    assert list(list_companions(loss, cases)) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_settings_are_tuned_on_a_gpu_only(tmp_path: Path) -> None:
    with pytest.raises(CramError, match="no CUDA device here, and launch settings can be tuned on a GPU only"):
        main([f"out={tmp_path / 'file.json'}"])


def test_unknown_ops(tmp_path: Path) -> None:
    with pytest.raises(CramError, match="ops=layernorm is not one of"):
        main(["ops=layernorm", f"out={tmp_path / 'file.json'}"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "NVIDIA A100"}, "its device is NVIDIA A100, and here it is Triton's interpreter. Choose another"),
        ({"versions": {"torch": "1"}}, r"its versions is \{'torch': '1'\}, and here it is"),
        ({"entries": [{"kernel": "rope"}]}, r"its lists are not complete \(KeyError\('width'\)\)"),
        ({"unchanged": None}, r"its lists are not complete \(TypeError"),
    ],
)
def test_a_file_of_another_machine_or_of_others_is_not_continued(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "file.json"
    content = open_file(path, CPU)
    path.write_text(json.dumps(content))
    assert open_file(path, CPU) == content
    path.write_text(json.dumps(content | change))
    with pytest.raises(CramError, match=message):
        open_file(path, CPU)
    path.write_text("[]")
    with pytest.raises(CramError, match="its format is None, and here it is 1"):
        open_file(path, CPU)
