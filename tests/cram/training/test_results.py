"""What a receipt says of what happened, where other tests do not reach."""

from types import SimpleNamespace
from typing import Any

import torch

from cram.config.config import Config
from cram.training.results import _decontaminated, _devices


def session(devices: list[str], model: torch.nn.Module) -> Any:
    return SimpleNamespace(state=SimpleNamespace(devices=devices), parts=SimpleNamespace(model=model))


def test_devices_are_those_of_all_resumes_and_parameters() -> None:
    here = torch.nn.Linear(2, 2)
    assert _devices(session(["cpu A"], here)) == ["cpu A"]
    assert _devices(session(["cpu A", "cpu B"], here)) == ["cpu A", "cpu B"]
    split = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, device="meta"))
    assert _devices(session(["cpu A"], split)) == ["cpu A", "meta"]


def test_what_was_dropped_for_task_files_is_counted_where_it_was_looked_for() -> None:
    config = Config()
    shards: Any = SimpleNamespace(manifest={"dropped": {"decontaminate": {"documents": 3, "bytes": 10}}})
    assert _decontaminated(config, shards) is None
    config.data.dedupe.decontaminate = "glue/*/dev.tsv"
    assert _decontaminated(config, shards) == 3
    assert _decontaminated(config, SimpleNamespace(manifest={"dropped": {}})) == 0  # type: ignore[arg-type]
