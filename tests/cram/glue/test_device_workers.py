"""Fine-tunings on several devices: how jobs are shared out, equal scores, resuming, and workers that end."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cram.config.commands import GlueConfig
from cram.config.recipe import read_words
from cram.errors import CramError
from cram.glue import device_workers
from cram.glue.__main__ import main
from cram.glue.data import load_task
from cram.glue.device_workers import DeviceWorkers, Refused, WorkerEndedError
from cram.glue.finetune import Hyperparameters
from cram.glue.job_runner import FineTuning
from cram.glue.pretrained import open_pretrained
from cram.glue.results_file import Job, plan_jobs
from cram.glue.run import choose_devices
from cram.glue.splits import TaskData
from cram.glue.tasks import TASKS


def words(checkpoint: Path, data: Path, to: Path, *more: str) -> list[str]:
    """Words for the command on the small GLUE folder."""
    shared = ["check_counts=false", "epochs=2", "learning_rate=3e-3", "threads=1", "batch=4", "tasks=[cola,stsb]"]
    return [f"run={checkpoint}", f"data={data}", f"to={to}", *shared, *more]


def read_results(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "glue.json").read_text())
    for entry in content["jobs"]:
        del entry["outcome"]["seconds"]
    return content


def test_two_workers_resume_one_device_and_give_the_same_results(
    checkpoint: Path, glue_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(words(checkpoint, glue_folder, one, "seeds=2", "device=cpu")) == 0
    assert main(words(checkpoint, glue_folder, two, "seeds=1", "devices=[cpu]")) == 0
    capsys.readouterr()
    assert main(words(checkpoint, glue_folder, two, "seeds=2", "devices=[cpu,cpu]")) == 0
    out = capsys.readouterr().out
    assert "1 of 2: " in out and "2 of 2: " in out and "-seed1, cpu: " in out and "-seed0, cpu: " not in out
    assert "fine-tuning on 2 devices: 64 updates (100%)" in out
    ours, expected = read_results(two), read_results(one)
    assert ours["results"] == expected["results"]
    assert ours["jobs"] == expected["jobs"]
    names = [{path.name for path in (to / "glue").iterdir()} for to in (one, two)]
    assert names[0] == names[1]  # the models of the median seeds alone
    for name in (name for name in names[0] if "-seed" in name):
        weights = [(to / "glue" / name / "model.safetensors").read_bytes() for to in (one, two)]
        assert weights[0] == weights[1]


@pytest.fixture
def shared(checkpoint: Path, tmp_path: Path) -> FineTuning:
    """Fine-tunings of the small checkpoint that last about a minute."""
    (tmp_path / "glue").mkdir()
    pretrained = open_pretrained(str(checkpoint), 32, "first")
    config = GlueConfig(threads=1, pooling="first")
    return FineTuning(config, tmp_path, pretrained, Hyperparameters(3e-3, 1, 2), torch.float32)


def test_a_worker_ignores_ctrl_c_and_one_that_is_killed_ends_all(shared: FineTuning, glue_folder: Path) -> None:
    data = load_task(str(glue_folder), TASKS["rte"], check_counts=False)
    for split in (data.train, *data.dev.values()):
        shared.tokenize(split)
    shown: list[int] = []
    finished: list[Job] = []
    with DeviceWorkers(shared, ["cpu", "cpu"]) as workers:
        pids = [worker.process.pid for worker in workers._workers]
        message = (
            r"^device cpu: its process was ended by SIGKILL during rte-.* \(out of memory\?\)\.\nThe results so far"
        )
        with pytest.raises(WorkerEndedError, match=message):
            for job, device, outcome in workers.run(plan_jobs(["rte"], [3e-3], 99), lambda _: data, shown.append):
                assert device == "cpu" and outcome["updates"] == 128
                finished.append(job)
                # Ctrl-C reaches all processes of a terminal, and this one decides what to do.
                os.kill(pids[0], signal.SIGINT if len(finished) < 3 else signal.SIGKILL)
    assert len(finished) >= 3 and sum(shown) >= 3 * 128
    assert all((shared.models / job.name / "config.json").is_file() for job in finished)
    assert not list(shared.models.glob(f".{finished[0].name}.partial"))
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


class FakeProcess:
    """A worker that is a thread."""

    exitcode = 3

    def terminate(self) -> None:
        """The thread ends with its connection."""

    def join(self, _: float = 0.0) -> None:
        """There is nothing to wait for."""

    kill = terminate


@pytest.fixture
def fake_workers(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Connection, str], None]], None]:
    """Has threads run a function in place of worker processes."""

    def use(work: Callable[[Connection, str], None]) -> None:
        def start(device: str) -> Any:
            ours, theirs = Pipe()
            threading.Thread(target=work, args=(theirs, device), daemon=True).start()
            return device_workers._Worker(device, FakeProcess(), ours)

        monkeypatch.setattr(device_workers, "_start", start)
        monkeypatch.setattr(device_workers, "GRACE", 0.0)

    return use


def empty_task(name: str) -> TaskData:
    return TaskData(TASKS[name], None, {}, {"test": None}, [])  # type: ignore[arg-type,dict-item]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.sampled_from(["cola", "rte", "stsb"]), max_size=12), st.integers(1, 4), st.integers(0, 3))
def test_each_job_runs_once_with_the_examples_of_its_task(
    shared: FineTuning, fake_workers: Any, tasks: list[str], count: int, slow: int
) -> None:
    jobs = [Job(task, 1e-3, seed) for seed, task in enumerate(tasks)]
    sent: list[tuple[str, str]] = []

    def work(connection: Connection, device: str) -> None:
        _, name = connection.recv()
        assert name == device
        task = ""
        while True:
            try:
                job, data = connection.recv()
            except EOFError:
                return
            if data is not None:
                task = data.task.name
                assert data.test == {}
                sent.append((device, task))
            time.sleep(0.002 * (device == str(slow)))
            connection.send(job.seed)  # updates
            connection.send({"job": job, "task": task})

    fake_workers(work)
    updates: list[int] = []
    with DeviceWorkers(shared, [str(number) for number in range(count)]) as workers:
        outcomes = list(workers.run(jobs, empty_task, updates.append))
    assert sorted(job.seed for job, _, _ in outcomes) == list(range(len(jobs)))
    assert all(outcome == {"job": job, "task": job.task} for job, _, outcome in outcomes)
    assert sum(updates) == sum(range(len(jobs)))
    by_device = {device: [task for other, task in sent if other == device] for device, _ in sent}
    for device, loaded in by_device.items():  # the examples go to a worker only where its task changes
        ran = [job.task for job, other, _ in outcomes if other == device]
        assert loaded == [task for number, task in enumerate(ran) if number == 0 or task != ran[number - 1]]


def test_an_error_of_the_user_comes_from_the_worker_as_one(shared: FineTuning, fake_workers: Any) -> None:
    def work(connection: Connection, _: str) -> None:
        connection.recv()
        connection.recv()
        connection.send(Refused("run=x: its weights are missing."))
        connection.poll(None)

    fake_workers(work)
    with (
        DeviceWorkers(shared, ["cuda:1"]) as workers,
        pytest.raises(CramError, match=r"^cuda:1: run=x: its weights are missing\.$"),
    ):
        list(workers.run([Job("rte", 1e-3, 0)], empty_task, lambda _: None))


def test_a_worker_that_ends_at_once_is_named(shared: FineTuning, fake_workers: Any) -> None:
    fake_workers(lambda connection, _: connection.close())
    with (
        DeviceWorkers(shared, ["cuda:0"]) as workers,
        pytest.raises(WorkerEndedError, match=r"^device cuda:0: its process ended with status 3 "),
    ):
        list(workers.run([Job("rte", 1e-3, 0)], empty_task, lambda _: None))


def test_memory_that_does_not_suffice_is_an_error_of_the_user(shared: FineTuning) -> None:
    class Runner:
        def run(self, *_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    ours, _ = Pipe()
    with pytest.raises(CramError, match="out of memory"):
        device_workers._run(shared, Runner(), Job("rte", 1e-3, 0), None, ours)  # type: ignore[arg-type]


def test_a_worker_that_ended_is_a_failure_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(_: GlueConfig) -> None:
        raise WorkerEndedError("device cuda:1: its process ended.")

    monkeypatch.setattr("cram.glue.run.run_glue", end)
    assert main(["run=x"]) == 1
    assert capsys.readouterr().err == "cram: device cuda:1: its process ended.\n"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["devices=[]"], r"devices=\[\] names no device\."),
        (["devices=[9]"], r"devices=\[9\]: device=cuda:9, but torch finds "),
        (["devices=[cpu,cpu]"], r"devices=\[cpu,cpu\] has threads=null, .* Add threads=1, or name the CPU once\."),
        (
            ["devices=[cpu]", "device=cpu"],
            r"device=cpu: devices= names the devices already\. Leave one of the two out\.",
        ),
        (["devices=[cpu]", "frozen=true"], r"devices= has no effect with frozen=true"),
    ],
)
def test_devices_that_cannot_be_used_are_refused(more: list[str], message: str) -> None:
    with pytest.raises(CramError, match=message) as caught:
        main(["run=/nowhere", *more])
    assert len(str(caught.value).splitlines()) == 1


def test_devices_are_chosen_by_their_words() -> None:
    config = read_words(GlueConfig, ["devices=[cpu,cpu]", "threads=1"])
    assert choose_devices(config) == ["cpu", "cpu"]
    assert choose_devices(replace(config, devices=["cpu"], threads=None)) == ["cpu"]
    assert choose_devices(GlueConfig()) is None
