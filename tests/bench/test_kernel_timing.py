"""The timing of a call on a stand-in for a GPU: what is captured, replayed and counted."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import kernel_timing
from bench.kernel_timing import (
    Timing,
    count_input_sets,
    measure_copy_speed,
    measure_peak_bytes,
    plan_launches,
    rotate,
    time_call,
    waits_for_gpu,
)


def test_plan_fills_a_graph_and_keeps_to_its_time() -> None:
    assert plan_launches(1e-5, sets=8, seconds=0.12) == (20, 30)
    assert plan_launches(1e-5, sets=32, seconds=0.12) == (32, 30)
    assert plan_launches(2e-3, sets=1, seconds=0.12) == (10, 10)
    assert plan_launches(4e-2, sets=1, seconds=0.12) == (1, 10)


def test_results_are_kept_until_their_set_comes_round() -> None:
    calls: list[int] = []

    def call(number: int) -> int:
        calls.append(number)
        return len(calls)

    assert rotate(call, 3, 7) == {0: 7, 1: 5, 2: 6}
    assert calls == [0, 1, 2, 0, 1, 2, 0]


class FakeCuda:
    """A stand-in for the GPU. It records what runs while a graph is captured; time passes at a replay or a call."""

    def __init__(self) -> None:
        self.captured: list[str] = []
        self.now, self.replays, self.mode = 0.0, 0, "default"

    @contextmanager
    def graph(self, graph: Any, stream: Any) -> Iterator[None]:
        assert stream == "side stream"
        self.captured.append("begin")
        yield
        self.captured.append("end")

    def event(self, enable_timing: bool) -> Any:
        assert enable_timing
        event = SimpleNamespace(time=0.0)
        event.record = lambda: setattr(event, "time", self.now)
        event.elapsed_time = lambda other: (other.time - event.time) * 1e3
        return event

    def replay(self) -> None:
        self.replays += 1
        self.now += 1.0


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    stand_ins = {
        "graph": fake.graph,
        "Event": fake.event,
        "synchronize": lambda device=None: None,
        "CUDAGraph": lambda: SimpleNamespace(replay=fake.replay),
        "current_stream": lambda: "side stream",
        "set_sync_debug_mode": lambda mode: setattr(fake, "mode", mode),
        "get_device_properties": lambda device: SimpleNamespace(L2_cache_size=50 << 20),
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(kernel_timing, "plan_launches", lambda one_call, sets, seconds: (20, 4))
    return fake


def test_a_gpu_is_timed_by_graphs_of_many_launches(cuda: FakeCuda) -> None:
    numbers: list[int] = []
    timing = time_call(numbers.append, 8, torch.device("cuda"), 0.1)
    assert timing == Timing(1 / 20, 1 / 20, 1 / 20, "graph")
    assert (cuda.captured, cuda.replays, cuda.mode) == (["begin", "end"], 3 + 4, "default")
    assert numbers[-20:] == [number % 8 for number in range(20)]


def test_a_call_that_waits_for_the_gpu_is_timed_by_events(cuda: FakeCuda) -> None:
    def call(number: int) -> None:
        if cuda.mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        cuda.now += 0.5

    assert waits_for_gpu(call)
    assert time_call(call, 2, torch.device("cuda"), 0.1) == Timing(0.5, 0.5, 0.5, "events")
    assert (cuda.captured, cuda.mode) == ([], "default")


def test_events_may_be_asked_for_and_other_errors_are_not_hidden(cuda: FakeCuda) -> None:
    assert time_call(lambda number: None, 2, torch.device("cuda"), 0.1, captured=False).how == "events"

    def broken(number: int) -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        waits_for_gpu(broken)


def test_input_sets_are_four_times_the_cache(cuda: FakeCuda) -> None:
    assert count_input_sets(50 << 20, torch.device("cuda")) == 4
    assert count_input_sets(1 << 30, torch.device("cuda")) == 1
    assert measure_peak_bytes(lambda number: None, torch.device("cpu")) is None


def test_a_call_that_cannot_be_captured_is_timed_by_events(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(kernel_timing, "capture", refuse)
    assert time_call(lambda number: None, 2, torch.device("cuda"), 0.1).how == "events"


def test_a_cpu_is_timed_by_the_clock() -> None:
    calls: list[int] = []
    timing = time_call(calls.append, 2, torch.device("cpu"), 0.001)
    assert timing.how == "clock" and timing.p20 <= timing.median <= timing.p80
    assert set(calls) == {0, 1}
    assert 1e7 < measure_copy_speed(1 << 20, torch.device("cpu"), 0.01) < 1e13
