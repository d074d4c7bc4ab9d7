"""Compilation: what is compiled how often, what the check finds, and what happens where it fails.

Only one test compiles with torch's own compiler; the others stop before code is generated, which is quick.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cram.budget import Budget
from cram.build import assemble
from cram.clock import Clock
from cram.config.config import Config
from cram.config.model import ModelConfig
from cram.config.objective import ObjectiveConfig
from cram.config.training import CompileConfig
from cram.data.shards.loader import TrainingRows
from cram.errors import CramError
from cram.model import attention
from cram.model.kinds import build_model
from cram.model.layers import GatedMLP
from cram.model.packing import document_bounds, document_starts
from cram.objectives.causal import CausalObjective
from cram.objectives.masked import MaskedObjective
from cram.objectives.objective import Setting
from cram.objectives.phased import PhasedObjective
from cram.run.checkpoint import Checkpoints
from cram.run.metrics import Metrics
from cram.training import compilation, compile_check
from cram.training.compilation import (
    check_compile,
    compile_model,
    compile_session,
    compiled_graphs,
    kinds_to_try,
)
from cram.training.gradients import accumulate, eagerly
from cram.training.session import RunState, Session
from cram.training.start import loop_config

CPU = torch.device("cpu")
LAYERS, SEQ_LEN, VOCAB = 5, 16, 64
SETTING = Setting(list(range(5)), 0, 4, VOCAB, SEQ_LEN, static_shapes=True)
Compiler = Callable[[str | Callable[..., Any]], None]


class FixedRows:
    """A loader whose rows are looked at and never run out."""

    rows_total = rows_left = 1000
    rows_taken = 0

    def peek(self, n: int) -> TrainingRows:
        source = np.random.default_rng(0)
        tokens = source.integers(5, VOCAB, (n, SEQ_LEN), np.int32)
        documents = np.cumsum(source.random((n, SEQ_LEN)) < 0.1, axis=1, dtype=np.int32)
        return TrainingRows(tokens, documents, np.arange(n), np.zeros(n, np.int32))


def make_session(run: Path, precision: torch.dtype = torch.float32, budget: str = "10steps") -> Session:
    """A run of a tiny encoder that has not begun."""
    config = Config(model=ModelConfig(layers=LAYERS, width=32, heads=2, mlp_width=48))
    config.data.seq_len = SEQ_LEN
    model = build_model(config.model, VOCAB, 0, CPU)
    objective = MaskedObjective(config.objective, SETTING)
    parts = assemble(config, model, objective, FixedRows(), None, precision)  # type: ignore[arg-type]
    clock = Clock(Budget.parse(budget))
    return Session(
        parts=parts,
        config=loop_config(config),
        clock=clock,
        metrics=Metrics(run),
        checkpoints=Checkpoints(run),
        show=lambda *_: None,
        stop_requested=lambda: False,
        threads=1,
        state=RunState(micro_rows=2),
    )


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Attention does not look at what the slots hold, so that a block is one graph as it is on a GPU."""

    def attend_at(q: Any, k: Any, v: Any, packing: Any, slots: Any) -> torch.Tensor:
        return attention.pick(attention.attend(q, k, v, packing).flatten(2), slots)

    monkeypatch.setattr(attention, "attend_at", attend_at)
    yield
    torch.compiler.reset()


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """Sets what compiles instead of torch's own compiler."""
    compile_module = nn.Module.compile

    def choose(backend: str | Callable[..., Any]) -> None:
        def compiled(module: nn.Module, *, mode: str | None = None, fullgraph: bool = True, **words: Any) -> None:
            compile_module(module, backend=backend, fullgraph=True, **words)

        monkeypatch.setattr(nn.Module, "compile", compiled)

    return choose


def weights(session: Session) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in session.parts.model.state_dict().items()}


def test_blocks_of_one_kind_share_one_compiled_function_and_evaluation_compiles_none(
    compiler: Compiler, tmp_path: Path
) -> None:
    graphs = []

    def count(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiler(count)
    session = make_session(tmp_path)
    names = list(session.parts.model.state_dict())
    compile_model(session.parts.model, "blocks", cuda_graphs=False)
    accumulate(session, session.parts.loader.peek(4), 0.0)
    assert len(graphs) == 3 < LAYERS  # the first has no norm, the last answers at slots only
    tokens = torch.randint(5, VOCAB, (3, SEQ_LEN + 1))
    with eagerly(), torch.no_grad():
        session.parts.model(tokens, torch.zeros_like(tokens))
    accumulate(session, session.parts.loader.peek(4), 0.5)
    assert len(graphs) == 3
    assert list(session.parts.model.state_dict()) == names


def test_compiled_blocks_pass_the_check_and_leave_no_trace(tmp_path: Path) -> None:
    session = make_session(tmp_path, torch.bfloat16)
    before = weights(session)
    graphs = compiled_graphs()
    receipt = compile_session(session, CompileConfig(kind="blocks", check_updates=2))
    assert compiled_graphs() == graphs + 3
    assert (receipt["kind"], receipt["failed"]) == ("blocks", {})
    assert receipt["check"]["passed"]
    assert receipt["check"]["loss"] < 1e-3
    assert receipt["seconds"] == pytest.approx(session.clock.seconds("compilation"), abs=0.1)
    assert all(torch.equal(value, before[name]) for name, value in session.parts.model.state_dict().items())
    assert all(parameter.grad is None for parameter in session.parts.model.parameters())
    assert session.parts.optimizer.state_tensors() == {}
    compiled = accumulate(session, session.parts.loader.peek(4), 0.0)[1]
    with eagerly():
        eager = accumulate(session, session.parts.loader.peek(4), 0.0)[1]
    torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=0.0)


def test_wrong_code_is_found_said_and_left_out(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = GatedMLP.forward

    def wrong(mlp: GatedMLP, hidden: torch.Tensor) -> torch.Tensor:
        return right(mlp, hidden) * (0.5 if torch.compiler.is_compiling() else 1.0)

    monkeypatch.setattr(GatedMLP, "forward", wrong)
    compiler("aot_eager")
    session = make_session(tmp_path)
    before = weights(session)
    receipt = compile_session(session, CompileConfig(kind="blocks"))
    assert (receipt["kind"], receipt["check"]["passed"]) == ("eager", False)
    assert receipt["check"]["gradient"] == pytest.approx(0.5, abs=0.1)
    said = capsys.readouterr().out
    assert f"warning: compile.kind=blocks is not used: {receipt['failed']['blocks']}" in said
    assert f"gradient of {receipt['check']['parameter']} by" in said
    assert "training goes on eagerly" in said
    assert all(torch.equal(value, before[name]) for name, value in session.parts.model.state_dict().items())
    left = accumulate(session, session.parts.loader.peek(4), 0.0)[1]
    with eagerly():
        assert torch.equal(left, accumulate(session, session.parts.loader.peek(4), 0.0)[1])


def test_wrong_code_of_a_later_phase_is_found_before_that_phase_begins(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = attention.attend

    def wrong(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Any) -> torch.Tensor:
        broken = torch.compiler.is_compiling() and not packing.causal
        return right(q, k, v, packing) * (0.5 if broken else 1.0)

    monkeypatch.setattr(attention, "attend", wrong)
    compiler("aot_eager")
    session = make_session(tmp_path)
    config = CompileConfig(kind="blocks", check_updates=1)
    causal = CausalObjective(ObjectiveConfig(), SETTING)
    session.parts = replace(session.parts, objective=causal)
    assert compile_session(session, config)["kind"] == "blocks"
    both = PhasedObjective(ObjectiveConfig(causal_share=0.5), SETTING)
    session.parts = replace(session.parts, objective=both)
    assert compile_session(session, config)["kind"] == "eager"


def test_a_gradient_that_is_missing_or_no_number_is_no_small_difference() -> None:
    expected = {"a": torch.ones(3), "b": torch.ones(3)}
    assert compile_check._differences({"a": torch.ones(3)}, expected) == {"b": float("inf")}
    broken = {"a": torch.ones(3), "b": torch.full((3,), float("nan"))}
    assert compile_check._differences(broken, expected) == {"a": 0.0, "b": float("inf")}


def test_a_compiler_that_fails_gives_way_to_the_blocks_and_then_to_eager_code(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> Any:
        raise NotImplementedError("no such card")

    compiler(fail)
    monkeypatch.setattr(compilation, "kinds_to_try", lambda *_: ("model", "blocks"))
    session = make_session(tmp_path)
    receipt = compile_session(session, CompileConfig())
    assert receipt["kind"] == "eager"
    assert list(receipt["failed"]) == ["model", "blocks"]
    assert "no such card" in receipt["failed"]["blocks"]
    assert capsys.readouterr().out.count("warning") == 3
    accumulate(session, session.parts.loader.peek(2), 0.0)


def test_a_resumed_run_compiles_before_its_first_update_and_is_not_checked(compiler: Compiler, tmp_path: Path) -> None:
    compiler("aot_eager")
    session = make_session(tmp_path)
    session.clock.updates = 3
    session.state.compiled = {
        "kind": "blocks",
        "cuda_graphs": False,
        "seconds": 5.0,
        "check": {"passed": True},
        "failed": {},
    }
    torch._dynamo.utils.counters.clear()
    receipt = compile_session(session, CompileConfig(kind="blocks"))
    assert (receipt["kind"], receipt["check"]) == ("blocks", {"passed": True})
    assert receipt["seconds"] > 5.0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3
    accumulate(session, session.parts.loader.peek(2), 0.0)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3


def test_a_resumed_run_does_not_try_again_what_failed(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    session.clock.updates = 3
    failed = {"blocks": "against eager code the loss is off"}
    session.state.compiled = {"kind": "eager", "cuda_graphs": False, "seconds": 5.0, "check": None, "failed": failed}
    receipt = compile_session(session, CompileConfig(kind="blocks"))
    assert (receipt["kind"], receipt["failed"]) == ("eager", failed)
    assert all(block._compiled_call_impl is None for block in session.parts.model.get_submodule("blocks").children())


def test_nothing_is_compiled_for_a_run_at_its_end(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    session.state.last_progress = 1.0
    assert compile_session(session, CompileConfig(kind="blocks"))["kind"] == "eager"
    assert all(block._compiled_call_impl is None for block in session.parts.model.get_submodule("blocks").children())


def test_each_micro_batch_begins_a_step_and_leaves_its_gradients(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append(1))
    compiler("aot_eager")
    session, plain = make_session(tmp_path / "a"), make_session(tmp_path / "b")
    undo = compile_model(session.parts.model, "blocks", cuda_graphs=True)
    accumulate(session, session.parts.loader.peek(6), 0.0)
    assert len(steps) == 3  # one for each micro-batch
    accumulate(plain, plain.parts.loader.peek(6), 0.0)
    for ours, theirs in zip(session.parts.model.parameters(), plain.parts.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    undo()
    session.parts.model(*(torch.ones(1, SEQ_LEN, dtype=torch.int64),) * 2)
    assert len(steps) == 3


def test_only_the_gradient_that_would_be_kept_is_copied() -> None:
    weight, gradient = nn.Parameter(torch.zeros(3)), torch.ones(3)
    first = compilation._copy_first_gradient(weight)(gradient)
    assert torch.equal(first, gradient)
    assert first.data_ptr() != gradient.data_ptr()
    weight.grad = first
    assert compilation._copy_first_gradient(weight)(gradient) is gradient


@pytest.mark.parametrize(
    ("kind", "device", "budget", "expected"),
    [
        ("auto", "cpu", "24h", ()),
        ("auto", "cuda", "599s", ()),
        ("auto", "cuda", "10m", ("blocks",)),
        ("auto", "cuda", "24h", ("model", "blocks")),
        ("auto", "cuda", "5000steps", ("blocks",)),
        ("model", "cpu", "10m", ("model",)),
        ("blocks", "cuda", "90s", ("blocks",)),
        ("eager", "cuda", "24h", ()),
    ],
)
def test_what_is_tried(kind: Any, device: str, budget: str, expected: tuple[str, ...]) -> None:
    assert kinds_to_try(CompileConfig(kind=kind), torch.device(device), Budget.parse(budget)) == expected


@pytest.mark.parametrize(
    ("config", "device", "message"),
    [
        (CompileConfig(cuda_graphs=True), "cpu", "compile.cuda_graphs=true needs a GPU"),
    ],
)
def test_what_is_refused(config: CompileConfig, device: str, message: str) -> None:
    with pytest.raises(CramError, match=message):
        check_compile(config, torch.device(device))


@given(st.integers(1, 6), st.integers(3, 40), st.integers(0, 2**32 - 1))
def test_bounds_of_documents_have_a_length_that_follows_from_the_shape(rows: int, seq_len: int, seed: int) -> None:
    source = np.random.default_rng(seed)
    documents = torch.from_numpy(np.cumsum(source.random((rows, seq_len)) < source.random(), axis=1))
    alone = document_bounds(document_starts(torch.zeros_like(documents)))
    assert document_bounds(document_starts(documents)).shape == alone.shape
