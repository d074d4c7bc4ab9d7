"""`python -m proofs.cluster`: prepare on a cluster of this machine, kill its parts, and compare with a local call."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from cram.command import run_door
from cram.config.recipe import read_words
from cram.config.schema import key
from cram.data.cluster.connection import import_ray
from cram.data.preparation.prepare import HELD_OUT_INDEX, JOURNAL
from cram.data.preparation.vocabulary import NAME as VOCABULARY
from cram.errors import CramError

ABOUT = """Prepare text on a Ray cluster of three nodes that run on this machine, and kill its parts.

    python -m proofs.cluster source='texts/*.jsonl.zst'

One node is killed in the first pass and one in the second; the command is killed in both and called again; it is
interrupted; the head of the cluster is killed. Every shard folder must hold the bytes of a local preparation. Exit
status 1 when a file differs or a status is another one. Takes three minutes for 11 MB of text."""
STORE = 200_000_000  # bytes of each node's object store
SCAN, PACK = VOCABULARY, HELD_OUT_INDEX  # files in the journal with which the passes begin
PATIENCE = 300.0  # seconds for one call


@dataclass
class ClusterConfig:
    """The keys of this proof."""

    source: str = key("pydocs", "text to prepare, as data.source= of a recipe", path=True)
    words: list[str] = key(
        ["recipe=bert_24h", "data.tokens=null", "wordpiece.sample_bytes=4000000", "wordpiece.vocab_size=8192"],
        "further words of the command",
    )


@dataclass
class Trial:
    """Calls of `cram.prepare` in one folder until it ends.

    Attributes:
        words: of the command, without those that name the engine and the folder.
        folder: of the shard folders.
        seconds: of all calls so far.
    """

    words: list[str]
    folder: Path
    seconds: float = 0.0
    log: list[str] = field(default_factory=list)

    def call(self, *engine: str, disturb: Callable[["subprocess.Popen[str]"], None] | None = None) -> int:
        """Call the command, do something meanwhile, and return its status."""
        start = time.monotonic()
        command = [sys.executable, "-m", "cram.prepare", *self.words, f"data.dir={self.folder}", *engine]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if disturb:
            disturb(process)
        output, _ = process.communicate(timeout=PATIENCE)
        self.log.append(output)
        self.seconds += time.monotonic() - start
        return process.returncode

    def wait_for(self, name: str, process: "subprocess.Popen[str]") -> None:
        """Wait until the journal holds a file, and half a second more."""
        while process.poll() is None and not list(self.folder.glob(f".*/{JOURNAL}/{name}*")):
            time.sleep(0.01)
        time.sleep(0.5)

    def hashes(self) -> dict[str, str]:
        """The sha256 of each file of the shard folder that must not differ, by name."""
        return {
            str(path.relative_to(self.folder)): sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name != "timing.json" and path.suffix != ".lock"
        }


def start_cluster(nodes: int) -> Any:
    """Start a head that runs no tasks, and nodes with one core each, whose death is noticed within two seconds."""
    import_ray()
    from ray.cluster_utils import Cluster

    config = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    common = {"object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": config, **common})
    for _ in range(nodes):
        cluster.add_node(num_cpus=1, wait=False, **common)
    cluster.wait_for_nodes()
    return cluster


def kill_node(cluster: Any) -> None:
    """Kill one node with its processes."""
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)


def run_trials(config: ClusterConfig, folder: Path) -> bool:
    """Run all trials and print a table; whether all were as they must be.

    Raises:
        CramError: the local preparation fails already.
    """
    words, passed = [f"data.source={config.source}", *config.words], True
    local = Trial(words, folder / "local")
    if local.call("data.processes=3"):
        raise CramError(f"source={config.source}: the local preparation failed\n{local.log[-1].splitlines()[-1]}")
    expected = local.hashes()
    print(f"| trial | seconds | status | different files |\n|---|---|---|---|\n| local | {local.seconds:.0f} | 0 | 0 |")

    def report(name: str, trial: Trial, statuses: list[int], wanted: list[int]) -> None:
        nonlocal passed
        found = trial.hashes()
        different = sum(expected.get(file) != found.get(file) for file in expected.keys() | found.keys())
        passed &= statuses == wanted and not different
        print(f"| {name} | {trial.seconds:.0f} | {statuses} | {different} |", flush=True)
        if statuses != wanted:
            print(trial.log[-1], file=sys.stderr)
        shutil.rmtree(trial.folder)

    start = time.monotonic()
    cluster = start_cluster(3)
    print(f"| start of three nodes | {time.monotonic() - start:.0f} | | |", flush=True)
    engine = ["data.engine=ray", f"data.address={cluster.address}"]
    try:
        trial = Trial(words, folder / "undisturbed")
        report("undisturbed", trial, [trial.call(*engine)], [0])

        trial = Trial(words, folder / "command")
        statuses = [trial.call(*engine, disturb=_sending(trial, name, signal.SIGKILL)) for name in (SCAN, PACK)]
        report("command killed in both passes", trial, [*statuses, trial.call(*engine)], [-9, -9, 0])

        trial = Trial(words, folder / "interrupted")
        statuses = [trial.call(*engine, disturb=_sending(trial, SCAN, signal.SIGINT)), trial.call(*engine)]
        report("interrupted in the first pass", trial, statuses, [130, 0])

        trial = Trial(words, folder / "nodes")

        def kill_nodes(process: "subprocess.Popen[str]") -> None:
            for name in (SCAN, PACK):
                trial.wait_for(name, process)
                kill_node(cluster)

        report("a node killed in each pass", trial, [trial.call(*engine, disturb=kill_nodes)], [0])

        trial = Trial(words, folder / "head")

        def kill_head(process: "subprocess.Popen[str]") -> None:
            trial.wait_for(SCAN, process)
            cluster.head_node.kill_gcs_server(check_alive=False)

        statuses = [trial.call(*engine, disturb=kill_head), trial.call("data.processes=3")]
        report("head killed, then local", trial, statuses, [2, 0])
    finally:
        cluster.shutdown()
    return passed


def _sending(trial: Trial, name: str, number: signal.Signals) -> Callable[["subprocess.Popen[str]"], None]:
    def send(process: "subprocess.Popen[str]") -> None:
        trial.wait_for(name, process)
        process.send_signal(number)

    return send


def main(words: list[str]) -> int:
    """Run all trials in a temporary folder."""
    config = read_words(ClusterConfig, words)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        return 0 if run_trials(config, Path(folder)) else 1


if __name__ == "__main__":
    run_door(main, ClusterConfig, ABOUT)
