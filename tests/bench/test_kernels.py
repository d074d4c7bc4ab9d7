"""The kernel benchmark: all providers agree, wrong results are found, and the time of a GPU is counted correctly."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from bench import kernel_cases, kernel_providers, plot_kernels
from bench import kernels as bench_kernels
from bench.kernel_cases import FULL, OPS, QUICK, SMALL, KernelCase
from bench.kernel_check import check_provider, make_call, make_inputs, poisoned_memory
from bench.kernel_providers import PACKAGES, Provider, build_provider
from bench.kernel_table import mean_seconds, ratio_to_ours
from bench.kernel_timing import Timing
from bench.kernels import run_case
from cram.errors import CramError

CPU = torch.device("cpu")
CASES = {
    "layer_norm": KernelCase("layer_norm", 9, 64),
    "layer_norm+residual": KernelCase("layer_norm+residual", 9, 64),
    "softmax": KernelCase("softmax", 9, 33),
    "softmax+mask": KernelCase("softmax+mask", 12 * 128, 128),
    "cross_entropy": KernelCase("cross_entropy", 17, 100),
    "linear_cross_entropy": KernelCase("linear_cross_entropy", 17, 100, hidden=32),
    "geglu": KernelCase("geglu", 9, 32),
    "swiglu": KernelCase("swiglu", 9, 32),
    "rope": KernelCase("rope", 128, 12 * 8),
}


# --- cases and providers


def test_every_op_has_cases_and_providers() -> None:
    assert set(OPS) == set(CASES) == set(kernel_providers.OURS)
    for table in (QUICK, SMALL):
        assert {case.op for case in table} >= set(OPS) - {"swiglu"}
    assert FULL[: len(QUICK)] == QUICK
    assert len({case.name for case in FULL}) == len(FULL)


def test_bytes_count_every_tensor_once() -> None:
    for op, result in (("layer_norm+residual", (8, 8)), ("cross_entropy", (2, 4)), ("geglu", (6, 10))):
        case = KernelCase(op, 10, 16)
        assert [OPS[op].bytes(case, way) for way in ("forward", "backward")] == [160 * n for n in result]
        assert OPS[op].bytes(case, "both") == 160 * sum(result)
    case = CASES["softmax+mask"]
    inputs = OPS[case.op].make(case, CPU)
    assert OPS[case.op].bytes(case, "forward") == 2 * case.tensor_bytes + inputs["mask"].numel()
    assert kernel_cases.count_flops(KernelCase("linear_cross_entropy", 2, 3, hidden=5)) == 6 * 2 * 3 * 5


def test_a_check_has_few_enough_rows_and_an_odd_number_of_them() -> None:
    assert KernelCase("cross_entropy", 8192, 50_257).shrink(2**28).rows == 2**28 // 50_257
    assert KernelCase("cross_entropy", 8192, 32_768).shrink(2**28 - 1).rows == 8191
    for case in FULL:
        shrunk = case.shrink(2**18)
        assert shrunk.rows * case.width <= 2**18 and shrunk.rows < case.rows
        OPS[case.op].function(*OPS[case.op].make(shrunk, torch.device("meta")).values())


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["ours", "eager", "torch_chunked"])
@pytest.mark.parametrize("op", OPS)
def test_providers_are_right(op: str, name: str, dtype: str) -> None:
    provider = build_provider(name, replace(CASES[op], dtype=dtype), CPU)
    if provider is None:
        assert name == "torch_chunked"
        return
    result = check_provider(replace(CASES[op], dtype=dtype), provider, CPU)
    assert result["passed"], result


def test_peers_are_not_asked_on_a_cpu() -> None:
    for name in set(PACKAGES) - {"ours", "eager", "torch_chunked"}:
        assert build_provider(name, CASES["softmax"], CPU) is None


def wide_rope(q: Any, k: Any, cos: Any, sin: Any) -> Any:
    """A stand-in for Liger's: heads before tokens, angles of full width, and more results than the pair."""
    half = q.shape[-1] // 2
    assert cos.shape[-1] == 2 * half
    rotated = (
        part.transpose(1, 2)
        for part in kernel_cases.rope(q.transpose(1, 2), k.transpose(1, 2), cos[..., :half], sin[..., :half])
    )
    return *rotated, cos, sin


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the modules of the peers, with their names and signatures, computed by torch."""
    modules: dict[str, dict[str, Callable[..., Any]]] = {
        "liger_kernel.transformers.functional": {
            "liger_layer_norm": lambda x, w, b, eps: F.layer_norm(x, w.shape, w.to(x.dtype), b.to(x.dtype), eps),
            "liger_softmax": lambda x: torch.softmax(x, -1),
            "liger_cross_entropy": F.cross_entropy,
            "liger_fused_linear_cross_entropy": lambda x, w, t: F.cross_entropy(x @ w.t(), t),
            "liger_geglu": lambda a, b: F.gelu(a, approximate="tanh") * b,
            "liger_swiglu": lambda a, b: F.silu(a) * b,
            "liger_rope": wide_rope,
        },
        "quack.rmsnorm": {"layernorm_fwd": lambda x, w, eps: F.layer_norm(x, w.shape, w.to(x.dtype), None, eps)},
        "quack.softmax": {"softmax": lambda x: torch.softmax(x, -1)},
        "quack.cross_entropy": {"cross_entropy": lambda x, t, reduction: F.cross_entropy(x, t, reduction=reduction)},
        "cut_cross_entropy": {"linear_cross_entropy": lambda e, c, t, impl: F.cross_entropy(e @ c.t(), t)},
    }
    for name, functions in modules.items():
        module = ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("peers")
@pytest.mark.parametrize("op", OPS)
def test_peers_get_the_layout_that_they_need(op: str) -> None:
    cuda = torch.device("cuda")
    result = {name: build_provider(name, CASES[op], cuda) for name in ("liger", "quack", "cce", "cce_kahan_full_c")}
    names = {name for name, provider in result.items() if provider is not None}
    assert names == {
        "layer_norm": {"liger", "quack"},
        "softmax": {"liger", "quack"},
        "cross_entropy": {"liger", "quack"},
        "linear_cross_entropy": {"liger", "cce", "cce_kahan_full_c"},
        "geglu": {"liger"},
        "swiglu": {"liger"},
        "rope": {"liger"},
    }.get(op, set())
    for name in names:
        assert check_provider(CASES[op], result[name], CPU)["passed"], name  # type: ignore[arg-type]


# --- the check


def test_values_that_are_not_written_are_found() -> None:
    class Careless(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            y = torch.empty_like(x)
            y[:-1] = torch.softmax(x[:-1], -1)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
            return torch.ops.aten._softmax_backward_data(grads[0], ctx.saved_tensors[0], -1, grads[0].dtype)

    result = check_provider(CASES["softmax"], Provider(Careless.apply), CPU)
    assert not result["passed"]
    assert result["relative"] == float("inf")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: torch.softmax(x, -1) * 1.1,
        lambda x: torch.softmax(x.detach(), -1) + 0 * x,
        lambda x: torch.softmax(x, 0),
    ],
)
def test_wrong_values_and_gradients_are_found(wrong: Callable[..., Any]) -> None:
    assert not check_provider(CASES["softmax"], Provider(wrong), CPU)["passed"]


def test_poison_is_gone_afterwards() -> None:
    with poisoned_memory(CPU, 1024):
        assert torch.empty(64).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_provider_that_raises_or_is_wrong_is_reported_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no such width\nand more")

    inputs = {"eager": Provider(broken), "torch_chunked": Provider(lambda x: torch.softmax(x, -1) * 2)}
    monkeypatch.setattr(
        bench_kernels,
        "build_provider",
        lambda name, case, device: inputs.get(name) or build_provider(name, case, device),
    )
    providers = run_case(CASES["softmax"], CPU, ["ours", "eager", "torch_chunked"], 0.01)["providers"]
    assert providers["eager"] == {"error": "ValueError: no such width", "timings": {}}
    assert providers["torch_chunked"]["error"].startswith("wrong: ")
    assert not providers["torch_chunked"]["timings"]
    assert set(providers["ours"]["timings"]) == {"forward", "backward", "both"}


# --- calls


@pytest.mark.parametrize("op", OPS)
def test_calls_of_all_directions_fit_together(op: str) -> None:
    provider = build_provider("ours", CASES[op], CPU)
    assert provider is not None
    inputs = [make_inputs(CASES[op], provider, CPU) for _ in range(2)]
    backward, both = (make_call(provider, inputs, direction) for direction in ("backward", "both"))
    make_call(provider, inputs, "forward")(1)
    first = backward(1)
    for left, right, again in zip(first, both(1), backward(1), strict=True):  # type: ignore[call-overload]
        assert torch.equal(left, right) and torch.equal(left, again)
    assert not torch.equal(first[0], backward(0)[0])  # type: ignore[index]


def test_ours_is_timed_as_the_peer_that_cannot_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    def time_fake(call: Any, sets: int, device: Any, seconds: float, captured: bool = True) -> Timing:
        result = call(0)
        waits = isinstance(result, torch.Tensor) and result.dtype == torch.float64
        how = "events" if waits or not captured else "graph"
        value = {"graph": 1.0, "events": 3.0}[how] * (4 if waits else 1)
        return Timing(value, value, value, how)

    monkeypatch.setattr(bench_kernels, "time_call", time_fake)
    monkeypatch.setattr(bench_kernels, "measure_copy_speed", lambda nbytes, device, seconds: 1.0)
    eager = Provider(lambda x: torch.softmax(x.double(), -1))
    monkeypatch.setattr(
        bench_kernels,
        "build_provider",
        lambda name, case, device: eager if name == "eager" else build_provider(name, case, device),
    )
    result = run_case(replace(CASES["softmax"], dtype="fp32"), CPU, ["ours", "eager"], 0.01)
    ours = result["providers"]["ours"]["timings"]
    assert [turn["how"] for turn in ours["forward"]] == ["graph"] * 2
    assert [turn["how"] for turn in ours["forward by events"]] == ["events"] * 2
    assert ratio_to_ours(result, "eager", "forward") == 4.0  # 12 over 3, not over 1
    assert ratio_to_ours(result, "eager", "backward") == 1.0


# --- the command and the plot


def test_the_command_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [replace(CASES[op], dtype="fp32") for op in ("layer_norm", "linear_cross_entropy")]
    monkeypatch.setattr(kernel_cases, "SMALL", cases)
    assert bench_kernels.main(["seconds=0.01", f"out={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("This is a CPU")
    assert "% " in printed and "TFLOP/s" in printed and "x" in printed
    results = json.loads((tmp_path / "kernels-cpu.json").read_text())
    assert results["machine"]["gpu"] is None
    assert results["machine"]["versions"]["torch"] == torch.__version__
    norm, head = results["cases"]
    assert all(len(turns) == 2 for turns in norm["providers"]["ours"]["timings"].values())
    assert set(norm["copy"]) == {"forward", "backward", "both"} and not head["copy"]
    assert mean_seconds(head["providers"]["eager"], "both")
    plot_kernels.main([f"results={tmp_path / 'kernels-cpu.json'}"])
    assert (tmp_path / "kernels-cpu.png").read_bytes().startswith(b"\x89PNG")


def test_cases_beyond_the_limit_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_kernels.main(["ops=geglu,rope", "limit=1e-9", f"out={tmp_path}"]) == 0
    assert "left out" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_checks_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(kernel_cases, "SMALL", [CASES["swiglu"]])
    assert bench_kernels.main(["check_only=true", f"out={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("swiglu 9x32 bf16 begins: ours") < printed.index("ours: right")
    (case,) = json.loads((tmp_path / "kernels-check-cpu.json").read_text())["cases"]
    assert case["providers"]["ours"]["check"]["passed"] and not case["providers"]["ours"]["timings"]


def test_ours_being_wrong_is_the_exit_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cases, "SMALL", [CASES["softmax"]])
    monkeypatch.setitem(kernel_providers.OURS, "softmax", lambda x: x)
    assert bench_kernels.main(["providers=ours", f"out={tmp_path}"]) == 1


def test_unknown_names() -> None:
    for word in ("ops=layernorm", "providers=triton"):
        with pytest.raises(CramError, match=f"{word} is not one of "):
            bench_kernels.main([word])


def test_the_plot_takes_the_case_with_the_most_bytes_of_a_width() -> None:
    def case(rows: int, width: int, seconds: float) -> dict[str, Any]:
        nbytes = {"forward": rows * width}
        ours = {"timings": {"forward": [{"median": seconds}] * 2}}
        return {
            "op": "softmax",
            "dtype": "bf16",
            "width": width,
            "bytes": nbytes,
            "copy": {"forward": 5e9},
            "providers": {"ours": ours, "quack": {"error": "absent", "timings": {}}},
        }

    points = plot_kernels.collect_points([case(8, 16, 1.0), case(32, 16, 2e-9), case(8, 8, 64e-9)], "forward")
    assert points["ours"] == [(8, pytest.approx(1.0)), (16, pytest.approx(256.0))]
    assert points["copy"] == [(8, 5.0), (16, 5.0)]
