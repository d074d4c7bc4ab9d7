"""Runs Python commands one after the other, each in a fork of a process that has imported the large libraries.

Importing torch, transformers and their like takes seconds, which a test of many short commands would pay for each. No
module of cram is imported ahead: a fork imports what the command imports, as a fresh interpreter does.

Protocol: one JSON object a line on standard input, one exit status a line on standard output.
    words    what would follow `python`: ["-m", MODULE, WORD ...] or [SCRIPT, WORD ...]
    folder   the working folder of the command
    output   file that gets its standard output and standard error
"""

import json
import os
import runpy
import signal
import sys

LONGEST = 200  # seconds that a command may take


def wait_for_command() -> dict[str, object] | None:
    """Fork for each command that is sent. Returns the command in the fork, and None in the parent at the end."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            return json.loads(line)  # type: ignore[no-any-return]
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def run_command(words: list[str], folder: str, output: str) -> None:
    """Become the command: this process ends as it does."""
    signal.alarm(LONGEST)
    os.chdir(folder)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((0, nothing), (1, file), (2, file)):
        os.dup2(target, number)
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], folder
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, os.path.dirname(words[0])  # noqa: PTH120
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    import datasets  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import tensorboard.compat.proto.event_pb2
    import torch.utils.tensorboard
    from transformers import AutoModelForMaskedLM, AutoTokenizer, ModernBertForMaskedLM, pipeline  # noqa: F401

    command = wait_for_command()
    if command:
        run_command(**command)  # type: ignore[arg-type]
