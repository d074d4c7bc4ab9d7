"""Connects to a Ray cluster, or says within seconds why it cannot be used."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cram
from cram.errors import CramError
from cram.machine.host import cores

PROBE_SECONDS = 3.0  # for a connection to the address
CONNECT_SECONDS = 20.0  # for a child process that joins the cluster; it takes two
CURRENT_CLUSTER = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")  # `ray start` writes it
# Nothing is reported to the makers of Ray, and the terminal shows what cram prints: Ray's logs are in /tmp/ray.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DEDUP_LOGS": "0"}
WORKER_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
REHEARSAL = """import sys, ray
try:
    ray.init(address=sys.argv[1], logging_level="CRITICAL", log_to_driver=False)
except Exception as error:
    print("CRAM", " ".join(str(error).split()))
else:
    print("CRAM")"""


def import_ray() -> Any:
    """Import Ray, with its reports and logs switched off.

    Raises:
        CramError: it is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        from ray._private import worker
    except ImportError as error:
        raise CramError(
            f"data.engine=ray: the package ray cannot be imported ({error})\n"
            "install it with: pip install -e '.[ray]', on every node, or use data.engine=local."
        ) from None
    # Ray prints the last lines of a lost node's log on the driver's terminal, and has no setting against that.
    worker.print_to_stdstream = _print_nothing
    return ray


def _print_nothing(*_: Any, **__: Any) -> None:
    pass


def connect(address: str, processes: int | None) -> str | None:
    """Join a cluster, or start Ray on this machine.

    Args:
        address: `local` starts Ray here, `auto` is the cluster that this machine belongs to, else HOST:PORT.
        processes: tasks that run at once if Ray is started here; None means one a core.

    Returns:
        HOST:PORT of the cluster's head; None if Ray was started here.

    Raises:
        CramError: Ray is missing, the address cannot be reached, or the cluster has other versions.
    """
    ray = import_ray()
    head = None if address == "local" else find_head(address)
    options = {"address": head} if head else {"address": "local", "num_cpus": processes or cores()}
    package = Path(cram.__file__).parent
    if head:
        _probe(address, head)
        _rehearse(address, head)
    with _own_signal_handlers():
        ray.init(
            **options,
            include_dashboard=None if head else False,
            logging_level="CRITICAL",
            log_to_driver=False,
            runtime_env={
                "py_modules": [str(package)],  # so that all nodes run this version of cram
                "excludes": ["__pycache__"],
                "env_vars": WORKER_ENVIRONMENT,
            },
        )
    return head


def find_head(address: str) -> str:
    """Return HOST:PORT of a cluster's head.

    Args:
        address: HOST:PORT, or `auto` for the cluster that this machine belongs to.

    Raises:
        CramError: this machine belongs to no cluster, or the address has another form.
    """
    if address != "auto":
        if not re.fullmatch(r"[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", address):
            raise CramError(
                f"data.address={address!r}: this is not the address of a Ray cluster\n"
                "give HOST:PORT of its head, auto for the cluster of this machine, or local."
            )
        return address
    if found := os.environ.get("RAY_ADDRESS", "").strip():
        return found
    with suppress(OSError):
        return CURRENT_CLUSTER.read_text().strip()
    raise CramError(
        "data.address=auto: this machine does not belong to a Ray cluster\n"
        "start one with: ray start --head, join one with: ray start --address=HOST:PORT, or use data.address=local."
    )


def is_reachable(head: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether a connection to HOST:PORT can be opened within some seconds."""
    host, _, port = head.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _probe(address: str, head: str) -> None:
    if not is_reachable(head):
        raise CramError(
            f"data.address={address}: no Ray cluster answers at {head}\n"
            "start it there with: ray start --head --port=6379, or give the address that it prints."
        )


def _rehearse(address: str, head: str) -> None:
    """Join the cluster in a child process first: where it is at fault, Ray tries for minutes or ends the process."""
    command = [sys.executable, "-c", REHEARSAL, head]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=CONNECT_SECONDS, check=False)
        reports = [line for line in child.stdout.splitlines() if line.startswith("CRAM")]
        fault = reports[-1][5:] if reports else f"the process ended with status {child.returncode}"
    except subprocess.TimeoutExpired:
        fault = f"no answer in {CONNECT_SECONDS:.0f} seconds"
    if not fault:
        return
    if versions := re.search(r"Ray: (\S+) Python: (\S+).*Ray: (\S+) Python: (\S+)", fault):
        cluster_ray, cluster_python, ray, python = versions.groups()
        raise CramError(
            f"data.address={address}: the cluster has Ray {cluster_ray} and Python {cluster_python}, this process "
            f"Ray {ray} and Python {python}\ninstall the same versions on every node and start the cluster again."
        )
    raise CramError(
        f"data.address={address}: cannot join the Ray cluster at {head} ({fault})\n"
        f"this machine must be one of its nodes: ray start --address={head}."
    )


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Set the handlers of signals again after the `with` body, in which Ray sets its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(ValueError):  # only the main thread may set them
                signal.signal(number, handler)
