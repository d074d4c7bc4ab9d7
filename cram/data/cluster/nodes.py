"""The nodes of a Ray cluster: how many tasks they can run, and whether they can do this work at all."""

import time
from pathlib import Path
from secrets import token_hex
from typing import Any

from cram.data.cluster.connection import import_ray
from cram.data.cluster.worker import describe_versions, inspect_node
from cram.errors import CramError

TASK_MEMORY = 800_000_000  # bytes of a process that tokenizes, with its tokenizer and tables
NODE_SECONDS = 60.0  # for the nodes to start a process each and answer


def living_nodes() -> list[dict[str, Any]]:
    """Return what Ray says about each node that is alive."""
    return [node for node in import_ray().nodes() if node["Alive"]]


def count_tasks(node: dict[str, Any]) -> int:
    """Return how many tasks a node can run at once: one for each core, if its memory suffices."""
    resources = node["Resources"]
    return int(min(resources.get("CPU", 0), resources.get("memory", 0) // TASK_MEMORY))


def check_nodes(address: str, folder: Path) -> None:
    """Compare the versions on all nodes with those of this process, and look whether they share a folder.

    Args:
        address: of the cluster, for messages.
        folder: absolute path.

    Raises:
        CramError: a node has another version, does not share the folder, or does not answer, or no node has enough
            memory.
    """
    nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in living_nodes() if count_tasks(node)}
    if not nodes:
        raise CramError(
            f"data.address={address}: no node of the cluster has a core and {TASK_MEMORY / 1e6:.0f} MB of memory for a "
            "task\nadd a node with: ray start --address=HOST:PORT, or use data.engine=local."
        )
    here, token = describe_versions(), f".ray-{token_hex(8)}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / token).touch()
    try:
        for node, (versions, sees_folder) in _ask(address, nodes, folder, token).items():
            for package in here:
                if versions[package] != here[package]:
                    raise CramError(
                        f"data.address={address}: node {nodes[node]} has {package} {versions[package]}, this process "
                        f"{here[package]}\ninstall the same versions on every node."
                    )
            if not (sees_folder and (folder / f"{token}.{node}").exists()):
                raise CramError(
                    f"data.dir: node {nodes[node]} does not share the folder {folder} with this machine\n"
                    "set data.dir to a folder that all nodes see under the same path and may write to."
                )
    finally:
        for path in folder.glob(f"{token}*"):
            path.unlink(missing_ok=True)


def _ask(address: str, nodes: dict[str, str], folder: Path, token: str) -> dict[str, tuple[dict[str, str], bool]]:
    """Run `inspect_node` on each node; the answers by node."""
    ray = import_ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=1)(inspect_node)
    questions = {
        node: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            str(folder), token
        )
        for node in nodes
    }
    answers, deadline = {}, time.monotonic() + NODE_SECONDS
    for node, question in questions.items():
        try:
            answers[node] = ray.get(question, timeout=max(0.1, deadline - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            fault = f"does not answer in {NODE_SECONDS:.0f} seconds"
        except ray.exceptions.RayError as error:
            fault = f"cannot run cram ({' '.join(str(error).split())})"
        else:
            continue
        raise CramError(
            f"data.address={address}: node {nodes[node]} {fault}\n"
            "install the packages that cram needs on every node, or remove the node with: ray stop."
        )
    return answers
