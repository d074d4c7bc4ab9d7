"""Two ranks as processes: they form groups, exchange a tensor, and one of them is killed."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from cram.distributed.launch import VARIABLES

ROOT = Path(__file__).resolve().parents[3]
CODE = """
import os, signal
import torch
from cram.command import run_door
from cram.config.commands import ExportConfig
from cram.distributed.launch import read_launch
from cram.distributed.meeting import meet

def main(words):
    launch = read_launch()
    with meet(launch) as meeting:
        ranks = meeting.form_groups(torch.device("cpu"))
        with ranks.doing("updating"):
            print(ranks.backend, ranks.sum(torch.full((2,), ranks.rank + 1.0)).tolist(), flush=True)
            if not ranks.leads:
                os.kill(os.getpid(), signal.SIGKILL)
            ranks.sum(torch.zeros(1))

run_door(main, ExportConfig, "", on_ranks=True)
"""


def start(rank: int, port: int) -> "subprocess.Popen[str]":
    values = (str(rank), "2", str(rank), "2", "localhost", str(port))
    environment = os.environ | dict(zip(VARIABLES, values, strict=True)) | {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"}
    environment.pop("TORCHELASTIC_USE_AGENT_STORE", None)
    return subprocess.Popen(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_ranks_exchange_and_end_when_one_of_them_is_killed() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with start(0, port) as first, start(1, port) as second:
        try:
            outputs = [process.communicate(timeout=150) for process in (second, first)]
        finally:
            first.kill()
            second.kill()
    assert outputs[0] == ("", "")
    assert second.returncode == -signal.SIGKILL
    out, err = outputs[1]
    assert out == "gloo [3.0, 3.0]\n"
    assert re.fullmatch(
        r"cram: rank 1 has died( while \w+)?; all ranks end. "
        r"The last checkpoint is kept: the same command goes on from there.\n",
        err,
    )
    assert first.returncode == 1
