from typing import Any

from cram.config.config import Config
from cram.run.history import describe_changes, newest_threads, record_process


def test_the_newest_number_of_threads_is_that_of_the_last_process_or_of_a_choice_in_it() -> None:
    processes = [{"update": 0, "threads": 2}]
    assert newest_threads(processes, []) == 2
    assert newest_threads(processes, [{"update": 0, "threads": 2}]) == 2
    choices = [{"update": 0, "threads": 2}, {"update": 40, "threads": 1}]
    assert newest_threads(processes, choices) == 1
    processes.append({"update": 50, "threads": 4})  # its user has fixed the number
    assert newest_threads(processes, choices) == 4


def test_other_launch_settings_change_the_bytes() -> None:
    def process(update: int, settings: dict[str, Any] | None) -> dict[str, Any]:
        environment = {"device_name": "a GPU", "packages": {"torch": "2"}}
        kernels = {"kernels": "triton", "kernel_settings": settings}
        return record_process(Config(), update, 1, "bf16", environment | kernels)

    tuned = {"file": "settings.json", "sha256": "0123456789abcdef", "entries": 3}
    processes = [process(0, None), process(5, tuned), process(9, tuned)]
    change = "kernel_settings by rule until update 5, then settings.json (0123456789ab)"
    assert describe_changes(processes) == [change]
    del processes[0]["kernel_settings"]  # of an older version
    assert describe_changes(processes) == [change]
    processes[2]["kernels"] = "reference"
    assert describe_changes(processes) == [change, "kernels triton until update 9, then reference"]
