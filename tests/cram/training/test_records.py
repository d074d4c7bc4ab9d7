"""What the loop writes to the metrics, and figures that come back late."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cram.config.training import FaultsConfig
from cram.run.metrics import read_metrics
from cram.training import loop
from cram.training.loop import settle, train
from cram.training.records import record_resume
from tests.cram.training.fake_session import SEQ_LEN, FakeBatch, FakeObjective, make_session


def test_lines_of_metrics_sum_up_their_window(tmp_path: Path) -> None:
    session = make_session(tmp_path)
    train(session)
    session.metrics.close()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [3, 6, 9, 10]
    assert lines[-1]["progress"] == 1.0
    rows = np.arange(24, dtype=np.float32)
    weight = float(session.parts.model.weight.detach())  # type: ignore[arg-type]
    assert lines[0]["loss"] == pytest.approx(weight * (rows * (rows % 3)).sum() / (rows % 3).sum(), rel=1e-5)
    assert lines[0]["batch_tokens"] == 8 * SEQ_LEN


def test_evaluation_comes_at_each_share_and_is_not_charged(tmp_path: Path) -> None:
    session = make_session(tmp_path, evaluation_interval=0.25)
    train(session)
    session.metrics.close()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "held_out"] == [3, 5, 8]
    assert session.clock.seconds("evaluation") > 0
    assert session.clock.charged() == pytest.approx(
        session.clock.seconds("updates") + session.clock.seconds("waiting"), abs=1e-3
    )


@pytest.mark.parametrize("log_interval", [1, 7, 1000])
def test_a_spike_is_found_in_ten_updates_whatever_the_log_interval(tmp_path: Path, log_interval: int) -> None:
    session = make_session(tmp_path, "25steps", log_interval=log_interval, faults=FaultsConfig(spike=1.0))
    with torch.no_grad():
        session.parts.model.weight.fill_(1.0)  # type: ignore[union-attr, operator]
    train(session)  # the loss of row n is n
    session.metrics.close()
    faults = [line for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "fault"]
    assert [(line["event"], line["step"], line["positions"]) for line in faults] == [
        ("spike", step, step * 8 * SEQ_LEN) for step in (20, 25)
    ], "the first ten have nothing to be compared with, and the last five are not left out"
    rows = [np.arange(8 * first, 8 * last) for first, last in ((0, 10), (10, 20))]
    loss, recent = (float((part * (part % 3)).sum() / (part % 3).sum()) for part in reversed(rows))
    assert (faults[0]["loss"], faults[0]["recent"]) == pytest.approx((loss, recent), rel=1e-5)
    assert [spike.step for spike in session.state.faults.spikes] == [20, 25]


def test_a_training_record_says_what_was_set_and_what_was_measured(tmp_path: Path) -> None:
    session = make_session(tmp_path, peak_flops=1e6, clip=1.0)
    train(session)
    session.metrics.close()
    first, *_, last = read_metrics(tmp_path / "metrics.jsonl")
    assert list(first) == [
        *("kind", "step", "time", "loss", "gradient_norm", "lr", "weight_decay", "mask_rate", "tokens_per_second"),
        *("mfu", "gpu_memory_bytes", "batch_tokens", "noise_scale", "progress", "positions", "flops"),
        "charged_seconds",
    ]
    assert first["lr"] == {"matrices": pytest.approx(0.75)} and first["mask_rate"] == 0.5
    assert first["weight_decay"] == pytest.approx(0.5 * 0.25)  # as the rate, at the middle of the update
    # The gradient of an update is the mean over its predicted tokens of their row's number, before it is clipped to 1.
    rows = np.arange(24).reshape(3, 8)
    norms = (rows * (rows % 3)).sum(1) / (rows % 3).sum(1)
    assert first["gradient_norm"] == pytest.approx(norms.mean(), rel=1e-5)
    positions, predicted = 24 * SEQ_LEN, (np.arange(24) % 3).sum()
    assert first["flops"] == positions + predicted
    seconds = positions / first["tokens_per_second"]
    assert first["mfu"] == pytest.approx((positions + predicted) / seconds / 1e6)
    assert first["gpu_memory_bytes"] is None
    assert last["flops"] == session.parts.flops.training(session.parts.work, session.state.predicted)


def test_without_a_finite_update_there_is_no_loss_and_no_norm(tmp_path: Path) -> None:
    class Sick(FakeObjective):
        def loss(self, model: torch.nn.Linear, batch: FakeBatch) -> torch.Tensor:
            return super().loss(model, batch) * torch.nan

    session = make_session(tmp_path, "3steps", objective=Sick())
    train(session)
    session.metrics.close()
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert (line["loss"], line["gradient_norm"], line["mfu"]) == (None, None, None)
    assert line["positions"] == 24 * SEQ_LEN and line["flops"] == line["positions"]


def test_every_record_has_its_place_on_each_axis(tmp_path: Path) -> None:
    session = make_session(tmp_path, evaluation_interval=0.5, faults=FaultsConfig(spike=1e-9))
    with torch.no_grad():
        session.parts.model.weight.fill_(1.0)  # type: ignore[union-attr, operator]
    session.state.faults.recent = 0.0
    train(session)
    record_resume(session, 1.5)
    session.metrics.close()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert {line["kind"] for line in lines} == {"train", "fault", "held_out", "resume"}
    for line in lines:
        assert line["positions"] == 8 * SEQ_LEN * line["step"]
        assert line["progress"] == pytest.approx(line["step"] / 10)
        predicted = (np.arange(8 * line["step"]) % 3).sum()
        assert line["flops"] == line["positions"] + predicted
        assert line["charged_seconds"] > 0.0
    assert (lines[-1]["lost_seconds"], lines[-1]["budget"]) == (1.5, "10steps")


def test_a_phase_begins_a_window_of_its_own_and_its_jump_is_no_spike(tmp_path: Path) -> None:
    class Phased(FakeObjective):
        phases = (0.0, 0.6)

        def loss(self, model: torch.nn.Linear, batch: FakeBatch) -> torch.Tensor:
            harder = 100.0 if self.progress[-1] >= 0.6 else 1.0
            return harder * (model.weight * (batch.values % 3)).sum()

    session = make_session(tmp_path, objective=Phased(), log_interval=4, faults=FaultsConfig(spike=50.0))
    with torch.no_grad():
        session.parts.model.weight.fill_(1.0)  # type: ignore[union-attr, operator]
    train(session)
    session.metrics.close()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["kind"] for line in lines] == ["train", "train", "phase", "train", "train"]
    assert [line["step"] for line in lines] == [4, 5, 5, 8, 10]
    assert [line["loss"] for line in lines if line["kind"] == "train"] == pytest.approx([1.0, 1.0, 100.0, 100.0])
    assert session.state.faults.spikes == []


def test_figures_in_flight_are_counted_once_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, lagging = make_session(tmp_path / "a"), make_session(tmp_path / "b")
    lagging.parts.model.load_state_dict(straight.parts.model.state_dict())
    train(straight)
    # As on a GPU: the newest update stays in flight, but for the last one.
    monkeypatch.setattr(
        loop,
        "settle",
        lambda session, keep=0: settle(session, 1 if keep == 0 and session.state.last_progress < 1 else keep),
    )
    seen = []
    lagging.show = lambda progress, figures: seen.append(len(lagging.in_flight))
    train(lagging)
    assert seen == [1, 1, 1, 0]
    for session in (straight, lagging):
        session.metrics.close()
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("a", "b"))
    assert [line["step"] for line in theirs] == [2, 5, 8, 10]
    assert [line["positions"] for line in theirs] == [8 * SEQ_LEN * line["step"] for line in theirs]
    assert [line["flops"] - line["positions"] for line in theirs] == [
        sum(row % 3 for row in range(8 * line["step"])) for line in theirs
    ]
    predicted = [
        sum(row % 3 for row in range(8 * first, 8 * last)) for first, last in ((0, 2), (2, 5), (5, 8), (8, 10))
    ]
    whole = [sum(row % 3 for row in range(8 * first, 8 * last)) for first, last in ((0, 3), (3, 6), (6, 9), (9, 10))]
    sums = [
        sum(line["loss"] * count for line, count in zip(lines, counts, strict=True))
        for lines, counts in ((ours, whole), (theirs, predicted))
    ]
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)
    assert (lagging.state.predicted, lagging.clock.positions) == (straight.state.predicted, straight.clock.positions)
