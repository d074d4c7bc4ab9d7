"""The devices of a table: what is refused, and how its runs share them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cram.ablation import runner
from cram.ablation.devices import choose_devices, describe_devices
from cram.ablation.plan import plan_runs
from cram.ablation.table import AblationTable, Arm
from cram.config.commands import AblateConfig
from cram.errors import CramError


class FakeChild:
    """A training that ends after it was looked at a few times."""

    def __init__(self, looks: int, status: int) -> None:
        self._looks, self._status = looks, status
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The status, once it has ended."""
        self._looks -= 1
        self.returncode = self._status if self._looks < 0 else None
        return self.returncode


@pytest.fixture
def train(table: AblationTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Trains the runs of a table by fake children; returns the `device=` of each run, and who shared a device."""
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(runner, "_is_finished", lambda _: False)

    def train(devices: list[str | None], looks: list[int], status: int = 0) -> tuple[list[str], list[str], list[Any]]:
        runs, given, crowded = plan_runs(table, tmp_path, ["threads=1"]), [], []
        children: list[tuple[FakeChild, str]] = []
        for run in runs:
            run.folder.mkdir(exist_ok=True)

        def start(words: list[str], _: Any) -> FakeChild:
            (device,) = [word for word in words if word.startswith("device=")] or [""]
            crowded.extend(device for child, other in children if child.returncode is None and other == device)
            assert sum(child.returncode is None for child, _ in children) < len(devices)
            children.append((FakeChild(looks[len(children)], status), device))
            given.append(device)
            return children[-1][0]

        monkeypatch.setattr(runner, "start_child", start)
        failed = runner._train_all(runs, devices, lambda: None)
        assert failed is not None and len(given) == len(runs)
        return given, crowded, failed

    return train


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 5), min_size=6, max_size=6), st.integers(1, 4), st.sampled_from([0, 1]))
def test_no_two_runs_share_a_gpu_and_a_failed_one_gives_it_back(
    train: Callable[..., Any], looks: list[int], count: int, status: int
) -> None:
    names = [f"cuda:{number}" for number in range(count)]
    given_devices, crowded, failed = train(names, looks, status)
    assert given_devices[:count] == [f"device={name}" for name in names]
    assert set(given_devices) == {f"device={name}" for name in names}
    assert crowded == []
    assert len(failed) == 6 * status


def test_a_device_that_is_free_again_gets_the_next_run(train: Callable[..., Any]) -> None:
    given_devices, _, _ = train(["cuda:0", "cuda:1"], [9, 0, 0, 0, 0, 0])
    assert given_devices == [f"device=cuda:{number}" for number in (0, 1, 1, 1, 1, 1)]


def test_without_devices_the_words_of_a_run_stay(train: Callable[..., Any]) -> None:
    given_devices, _, _ = train([None, None], [0] * 6)
    assert given_devices == [""] * 6


def test_a_table_that_chooses_devices_itself_is_refused(table: AblationTable) -> None:
    table.arms["here"] = Arm(["recipe=bert_demo", "device=cpu"])
    config = AblateConfig(devices=["cpu"])
    with pytest.raises(CramError, match=r"^arm here of the table has device=cpu, and devices= gives each"):
        choose_devices(config, table, [])
    assert choose_devices(AblateConfig(), table, ["device=cpu"]) is None
    del table.arms["here"]
    assert choose_devices(config, table, ["threads=1"]) == ["cpu"]


def test_devices_of_different_names_are_said_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cram.machine.device.find_device", lambda name: name)
    monkeypatch.setattr("cram.machine.device.device_name", {"cuda:0": "A", "cuda:1": "B", "cuda:2": "A"}.__getitem__)
    assert describe_devices(["cuda:0", "cuda:2"]) is None
    said = describe_devices(["cuda:0", "cuda:1", "cuda:2"])
    assert said is not None and said.startswith("The devices differ: cuda:0 is A, cuda:1 is B, cuda:2 is A. Arms with")
