"""Runs Python commands one after the other, each in a fork of a process that has imported the large libraries.

Importing torch, transformers and their like takes seconds, which a test of many short commands would pay for each. No
module of cram is imported ahead: a fork imports what the command imports, as a fresh interpreter does.

Protocol: one JSON object a line on standard input, one exit status a line on standard output.
    words    what would follow `python`: ["-m", MODULE, WORD ...] or [SCRIPT, WORD ...]
    folder   the working folder of the command
    output   file that gets its standard output and standard error
"""

import gc
import json
import os
import runpy
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

LONGEST = 200  # seconds that a command may take


def wait_for_command() -> dict[str, Any] | None:
    """Fork for each command that is sent. Returns the command in the fork, and None in the parent at the end."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            command: dict[str, Any] = json.loads(line)
            return command
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def run_command(words: list[str], folder: str, output: str) -> NoReturn:
    """Run a command and end with its exit status.

    The process ends at once: clearing the memory of all these modules would take longer than most commands.
    """
    signal.alarm(LONGEST)
    os.chdir(folder)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((0, nothing), (1, file), (2, file)):
        os.dup2(target, number)
    status = 0
    try:
        run_words(words, folder)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_words(words: list[str], folder: str) -> None:
    """Run a module or a script as `python` does."""
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], folder
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    import datasets  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import tensorboard.plugins.hparams.summary_v2  # noqa: F401
    from transformers import AutoModelForMaskedLM, AutoTokenizer, ModernBertForMaskedLM, pipeline  # noqa: F401

    gc.freeze()  # else the first collection in a fork would copy the memory of all these modules
    command = wait_for_command()
    if command:
        run_command(**command)
