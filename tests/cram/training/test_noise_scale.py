"""The gradient noise scale against noise that is known, and against its definition in double precision."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cram.methods.method import Method, Methods, RowSource
from cram.run.metrics import Metrics, read_metrics
from cram.training import gradients, noise_scale
from cram.training.gradients import accumulate, begin_probe, clip
from cram.training.loop import settle, train, update
from cram.training.loss_scale import LossScale
from cram.training.noise_scale import EVERY, EVERY_EAGERLY, NoiseProbe, NoiseScale
from cram.training.records import begin_phase
from cram.training.restoring import resume
from cram.training.session import Session
from tests.cram.training.fake_session import SEQ_LEN, FakeBatch, FakeModel, FakeObjective, FakeRows, make_session
from tests.cram.training.test_rollbacks import Sick

WIDTH = 16
MEAN, DEVIATIONS = np.full(WIDTH, 0.5), np.linspace(0.5, 1.5, WIDTH)


class Quadratic(FakeObjective):
    """The loss of a row is half its squared distance from the weights, so that its gradient is their difference."""

    def prepare(self, rows: FakeRows, progress: float) -> FakeBatch:
        return FakeBatch(torch.from_numpy(rows.tokens).float(), len(rows.tokens))

    def loss(self, model: torch.nn.Linear, batch: FakeBatch) -> torch.Tensor:
        return 0.5 * (model.weight - batch.values).square().sum()


def quadratic(run: Path, **changes: Any) -> Session:
    model = FakeModel(WIDTH)
    torch.nn.init.zeros_(model.weight)
    return make_session(run, model=model, objective=Quadratic(), **changes)


def measure(session: Session, rows: np.ndarray, micro_rows: int) -> tuple[float, float]:
    """The estimates of one update."""
    probe = NoiseProbe(len(rows) * SEQ_LEN, micro_rows)
    _, nats = accumulate(session, FakeRows(rows), 0.5, probe)
    clip(session, nats, probe)
    session.parts.model.zero_grad()
    estimates = probe.estimate(*(float(norm) for norm in probe.norms))
    assert estimates is not None
    return estimates


@pytest.mark.parametrize(("rows", "micro_rows"), [(8, 4), (8, 1), (8, 3), (5, 4), (24, 2)])
def test_noise_that_is_known_is_found_whatever_the_micro_batches(tmp_path: Path, rows: int, micro_rows: int) -> None:
    session, random = quadratic(tmp_path, micro_rows=micro_rows), np.random.default_rng(0)
    draws = MEAN + DEVIATIONS * random.standard_normal((600, rows, WIDTH))
    estimates = np.array([measure(session, values, micro_rows) for values in draws])
    # At weights of zero the gradient is minus the mean of the rows. Each row predicts one token and has four positions.
    known = np.array([np.square(MEAN).sum(), SEQ_LEN * np.square(DEVIATIONS).sum()])
    errors = estimates.std(0) / np.sqrt(len(estimates))
    assert (abs(estimates.mean(0) - known) < 3.0 * errors).all()
    assert (errors < 0.05 * known).all()


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(0, 6), min_size=2, max_size=6), seed=st.integers(0, 99))
def test_estimates_are_the_products_of_different_micro_batches(sizes: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    sums = [random.normal(1.0, 1.0, (size, WIDTH)).sum(0) for size in sizes]
    whole, probe = max(sum(sizes), 1), NoiseProbe(10, 1, sizes)
    parts_norm, whole_norm = np.sqrt(sum((s @ s) for s in sums)) / whole, np.linalg.norm(sum(sums)) / whole
    estimates = probe.estimate(float(parts_norm), float(whole_norm))
    pairs = [(i, j) for i in range(len(sizes)) for j in range(len(sizes)) if i != j]
    weight = sum(sizes[i] * sizes[j] for i, j in pairs)
    if not weight:
        assert estimates is None
        return
    gradient_square = sum(sums[i] @ sums[j] for i, j in pairs) / weight
    assert estimates is not None
    assert estimates[0] == pytest.approx(gradient_square, rel=1e-6, abs=1e-9)
    noise = whole_norm**2 - gradient_square
    assert estimates[1] == pytest.approx(10 * noise, rel=1e-6, abs=1e-9)


def test_the_loss_scale_and_clipping_change_no_estimate(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(1.0, 1.0, (8, WIDTH))
    plain, scaled = quadratic(tmp_path / "a"), quadratic(tmp_path / "b", clip=0.01)
    scale = LossScale(scaled.parts.model.parameters(), torch.device("cpu"))
    object.__setattr__(scaled.parts, "loss_scale", scale)
    assert measure(scaled, rows, 2) == pytest.approx(measure(plain, rows, 2))


def test_the_means_forget_and_begin_without_a_bias() -> None:
    scale, values = NoiseScale(), [4.0, 1.0, 3.0, 2.0, 9.0]
    for number, value in enumerate(values, 1):
        # Two parts of one token each: the estimates are 2 * update - 2 * parts, and 2 * parts - update, times 6.
        scale.add(NoiseProbe(6, 1, [1, 1]), (value / 2) ** 0.5, value**0.5)
        weights = noise_scale._KEPT ** np.arange(number)[::-1]
        assert scale.gradient_square == pytest.approx((weights * values[:number]).sum() / weights.sum())
        assert scale.trace == pytest.approx(0.0, abs=1e-9)
    assert (scale.measured, scale.positions) == (5, 6)


class Half(Method):
    """Trains on half of the rows."""

    name = "half"

    def select(self, source: RowSource, rows: int, progress: float) -> Any:
        return source.take(rows)[: rows // 2]


@pytest.mark.parametrize("micro_rows", [1, 2, 16])
def test_one_update_in_sixteen_is_measured_by_the_rows_it_trains_on(tmp_path: Path, micro_rows: int) -> None:
    session = make_session(tmp_path, "40steps", micro_rows=micro_rows, methods=Methods([Half()]))
    prepared = []
    prepare = session.parts.objective.prepare

    def noted(rows: Any, progress: float) -> Any:
        prepared.append(len(rows.tokens))
        return prepare(rows, progress)

    session.parts.objective.prepare = noted  # type: ignore[method-assign]
    train(session)
    session.metrics.close()
    scale = session.state.noise_scale
    rows = {1: 4, 2: 4, 16: 8}[micro_rows]  # an update of 8, or one micro-batch of 16, halved by the method
    assert (scale.measured, scale.positions) == (40 // EVERY, rows * SEQ_LEN)
    assert prepared.count(rows // 2) == (2 * 2 if micro_rows == 16 else 2 * 40 if micro_rows == 2 else 0)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["noise_scale"] is None for line in lines] == [
        scale.tokens() is None or line["step"] < EVERY for line in lines
    ]


def test_a_stopped_run_goes_on_with_the_same_state(tmp_path: Path) -> None:
    weight = {"weight": torch.ones(1, 1)}
    straight = make_session(tmp_path / "a", "80steps")
    straight.parts.model.load_state_dict(weight)
    train(straight)
    asked = iter([False] * 40 + [True])
    first = make_session(tmp_path / "b", "80steps", stop_requested=lambda: next(asked))
    first.parts.model.load_state_dict(weight)
    assert not train(first)
    first.metrics.close()
    checkpoint = first.checkpoints.read_newest()
    assert checkpoint is not None and checkpoint.state["noise_scale"]["measured"] == 2
    second = make_session(tmp_path / "b", "80steps", metrics=Metrics(tmp_path / "b", checkpoint.state["metrics"]))
    resume(second, checkpoint)
    assert train(second)
    assert second.state.noise_scale == straight.state.noise_scale
    assert second.state.noise_scale.measured == 5
    del checkpoint.state["noise_scale"]
    resume(second, checkpoint)
    assert second.state.noise_scale == NoiseScale()


def test_an_update_that_is_not_finite_does_not_count(tmp_path: Path) -> None:
    session = make_session(tmp_path, "40steps", objective=Sick({8 * EVERY - 1}))
    train(session)
    assert (session.state.noise_scale.measured, session.state.faults.skipped) == (1, 1)


def test_a_phase_begins_the_measurement_anew(tmp_path: Path) -> None:
    session = make_session(tmp_path, "100steps")
    for _ in range(EVERY):
        update(session)
    settle(session)
    assert session.state.noise_scale.measured == 1
    begin_phase(session)
    assert session.state.noise_scale == NoiseScale()


@pytest.mark.parametrize(("micro_rows", "kind", "eager"), [(8, "blocks", 1), (8, "eager", 0), (4, "blocks", 0)])
def test_halves_of_a_compiled_micro_batch_run_eagerly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro_rows: int, kind: str, eager: int
) -> None:
    entered = []

    @contextmanager
    def noted() -> Iterator[None]:
        entered.append(True)
        yield

    monkeypatch.setattr(gradients, "eagerly", noted)
    session = make_session(tmp_path, "100steps", micro_rows=micro_rows)
    session.state.compiled = {"kind": kind}
    for _ in range(EVERY_EAGERLY):
        update(session)
    assert len(entered) == eager
    assert session.state.noise_scale.measured == (1 if eager else EVERY_EAGERLY // EVERY)


def known(gradient_square: float, trace: float) -> NoiseScale:
    return NoiseScale(gradient_square, trace, measured=7, positions=2048)


@pytest.mark.parametrize(
    ("scale", "note"),
    [
        (
            NoiseScale(),
            "not measured: the last phase is too short, for one update in 16 is measured, and one in 64 where it is "
            "one compiled micro-batch",
        ),
        (NoiseScale(obstacle="an update is one row"), "not measured: an update is one row"),
        (known(-0.1, 5.0), "not known: the noise hides the gradient, so that its mean square is not above zero"),
        (known(0.1, -5.0), "not known: the noise is too small to be seen beside the gradient"),
    ],
)
def test_a_noise_scale_that_is_not_known_says_why(scale: NoiseScale, note: str) -> None:
    report = scale.report()
    assert (report["tokens"], report["critical_batch_tokens"], report["update_share"]) == (None, None, None)
    assert report["note"] == note


def test_the_receipt_has_the_critical_batch_and_the_share_of_an_update() -> None:
    assert known(0.5, 4096.0).report() == {
        "tokens": 8192.0,
        "critical_batch_tokens": 8192.0,
        "update_tokens": 2048,
        "update_share": 0.25,
        "gradient_square": 0.5,
        "trace": 4096.0,
        "measured_updates": 7,
        "note": "the critical batch is estimated by the noise scale",
    }


@pytest.mark.parametrize(
    ("rows", "micro_rows", "cuda_graphs", "obstacle"),
    [
        (1, 1, False, "an update is one row, which cannot be split"),
        (8, 8, True, "an update is one micro-batch, which CUDA graphs do not let be split"),
    ],
)
def test_an_update_that_cannot_be_split_is_not_measured(
    tmp_path: Path, rows: int, micro_rows: int, cuda_graphs: bool, obstacle: str
) -> None:
    session = make_session(tmp_path, f"{EVERY}steps", batch=rows, micro_rows=micro_rows)
    session.state.compiled = {"kind": "eager", "cuda_graphs": cuda_graphs}
    train(session)
    assert asdict(session.state.noise_scale) == {**asdict(NoiseScale()), "obstacle": obstacle}
    session.state.micro_rows = 4
    session.state.compiled = {}
    session.clock.updates = EVERY - 1
    assert begin_probe(session, 8) == NoiseProbe(8 * SEQ_LEN, 4)
    assert session.state.noise_scale.obstacle == ""


def test_an_update_that_predicts_nothing_in_all_micro_batches_but_one_is_told() -> None:
    scale = NoiseScale()
    scale.add(NoiseProbe(32, 4, [0, 5, 0]), 1.0, 1.0)
    assert scale.note() == "not measured: only one micro-batch has tokens to predict"
