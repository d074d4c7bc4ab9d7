"""A cluster of three nodes on this machine, besides its head; they are killed one after the other."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cram.config.data import DataConfig
from cram.data.cluster import nodes
from cram.data.cluster.ray_engine import RayEngine
from cram.data.cluster.worker import describe_versions
from cram.data.preparation.prepare import prepare_shards
from cram.data.preparation.vocabulary import TokenizerSource
from cram.errors import CramError
from tests.cram.data.preparation.small_corpus import WORDPIECE, Quiet, hashes, make, texts, write

STORE = 100_000_000  # bytes
SLOW = "(__import__('time').sleep(0.3), {})[1]"
DEADLY = "__import__('os').kill(__import__('os').getpid(), 9)"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that runs no tasks, and three nodes with one core each."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"}
    from ray.cluster_utils import Cluster

    common = {"object_store_memory": STORE, "include_dashboard": False}
    config = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": config, **common})
    for _ in range(3):
        cluster.add_node(num_cpus=1, wait=False, **common)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def kill_node(cluster: Any) -> None:
    """Kill the last node with all its processes."""
    cluster.remove_node(list(cluster.worker_nodes)[-1], allow_graceful=False)


class KillingReport(Quiet):
    """A progress report that does something once in each stage, when the first pieces are done."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self.act = act
        self.acted: set[str] = set()

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator[Any]:
        with super().stage(name, total, unit) as counted:

            def advance(amount: int) -> None:
                if name in {"scanning", "tokenizing and packing"} - self.acted:
                    self.acted.add(name)
                    self.act()
                counted.advance(amount)

            yield SimpleNamespace(advance=advance)


def test_an_unshared_folder_is_refused(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the nodes work in another folder, so the same path is another folder there
    data = replace(write(tmp_path / "text", texts(30)), engine="ray", address=cluster.address, dir="/proc/self/cwd/x")
    with pytest.raises(CramError, match=r"\Adata\.dir: node .* does not share the folder /proc/self/cwd/x .*\nset "):
        make(data)
    assert [path.name for path in (tmp_path / "x").iterdir() if "lock" not in path.name] == []


def test_another_version_is_refused_with_both(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "describe_versions", lambda: describe_versions() | {"tokenizers": "0.1"})
    version = describe_versions()["tokenizers"]
    message = rf"\Adata\.address=\S+: node .* has tokenizers {version}, this process 0\.1\n"
    with pytest.raises(CramError, match=message), RayEngine(cluster.address, None, tmp_path / "shards"):
        pass
    assert not list(tmp_path.iterdir())


def test_nodes_without_memory_are_refused(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "TASK_MEMORY", 10**15)
    with (
        pytest.raises(CramError, match=r"no node of the cluster has a core and .* of memory for a task\n"),
        RayEngine(cluster.address, None, tmp_path / "shards"),
    ):
        pass


def test_errors_and_deadly_pieces_end_with_a_message(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RayEngine(cluster.address, None, tmp_path / "shards") as engine:
        assert engine.processes == 3
        with engine.start(eval) as workers:
            assert list(workers.map((str(number), -number) for number in range(20))) == [(-n, n) for n in range(20)]
            with pytest.raises(ZeroDivisionError, match=r"\Adivision by zero\Z"):
                list(workers.map([("1/0", None)]))
        with engine.start(eval) as workers, pytest.raises(CramError, match=r"4 workers .* \(WorkerCrashedError\)\n"):
            list(workers.map([(DEADLY, None)]))
        assert engine.call(pow, 2, 5) == 32
        assert engine.tasks_lost == 3  # the fourth is not done again
    assert "3 task(s) of workers or nodes that ended were done again" in capsys.readouterr().out


@pytest.mark.usefixtures("small_pieces")
def test_the_shards_are_the_same_when_nodes_die(cluster: Any, tmp_path: Path) -> None:
    """One node is killed in the first pass and one in the second."""
    data = write(tmp_path, texts())
    expected = hashes(make(data).folder)
    report: Any = KillingReport(lambda: kill_node(cluster))
    on_cluster = replace(data, engine="ray", address=cluster.address, dir=str(tmp_path / "cluster"))
    made = prepare_shards(on_cluster, TokenizerSource(wordpiece=WORDPIECE), report)
    assert len(cluster.worker_nodes) == 1
    assert hashes(made.folder) == expected
    made.verify()


def test_a_node_that_joins_takes_over_and_an_empty_cluster_is_not_waited_for(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cram.data.cluster.cluster.EMPTY_SECONDS", 60.0)
    with RayEngine(cluster.address, None, tmp_path / "shards") as engine, engine.start(eval) as workers:
        results = workers.map((SLOW.format(number), number) for number in range(20))
        found = [next(results)]
        kill_node(cluster)
        cluster.add_node(num_cpus=1, object_store_memory=STORE, include_dashboard=False)
        found += [next(results) for _ in range(5)]
        assert found == [(number, number) for number in range(6)]
        monkeypatch.setattr("cram.data.cluster.cluster.EMPTY_SECONDS", 3.0)
        kill_node(cluster)
        with pytest.raises(CramError, match=r"has had no node that can run a task for 3 seconds\n.*ray start"):
            list(results)


def test_engines_do_not_change_the_folder(tmp_path: Path) -> None:
    data: DataConfig = write(tmp_path, texts(30))
    made = make(data)
    assert make(replace(data, engine="ray", address="127.0.0.1:1")).folder == made.folder
