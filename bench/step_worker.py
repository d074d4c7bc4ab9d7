"""Runs the updates of one training run when told to: `bench.step_turns` starts one such process for each checkout.

It is run by its path, with another checkout's modules on Python's path, and so uses only what earlier commits have too.
"""

import json
import sys
import time

import torch

from bench import step_training
from cram.config.recipe import read_config
from cram.machine.device import pick_device
from cram.training.loop import settle, update
from cram.training.probe import find_micro_rows


def main(threads: int, words: list[str]) -> None:
    """Answer each line of the standard input, a number of updates, with their CPU and wall seconds, each as JSON."""
    device = pick_device("auto")
    torch.set_num_threads(threads)
    config = read_config(words)
    with step_training.new_session(config, device) as session:
        find_micro_rows(session, config.batch.micro_rows)
        for line in sys.stdin:
            cpu_began, began = time.process_time(), time.perf_counter()
            for _ in range(int(line)):
                update(session)
            settle(session)
            print(json.dumps([time.process_time() - cpu_began, time.perf_counter() - began]), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
