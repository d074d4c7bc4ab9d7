"""The file of a plan holds all that its page needs, and a damaged one is refused."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cram.errors import CramError
from cram.planner.plan_file import WrittenPlan, read_plan_file, write_plan_file
from tests.cram.planner.test_plan_report import plan


def written() -> WrittenPlan:
    """A plan among nine shapes, of which one did not fit into memory when it was timed."""
    made = plan()
    others = tuple(
        replace(candidate, seconds=math.inf) if candidate.shape.width == 128 else candidate
        for candidate in made.candidates
    )
    return WrittenPlan(replace(made, candidates=others), "10s", "Some CPU", "timed in this run", 0.05, 6.5, 5_000_000)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = write_plan_file(tmp_path / "mine.yaml", written())
    assert path == tmp_path / "mine.json"
    assert read_plan_file(path) == written()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.update(format=2),
        lambda content: content.update(chosen=99),
        lambda content: content.update(chosen=-1),
        lambda content: content.pop("candidates"),
        lambda content: content["candidates"][0].update(tokens="many"),
        lambda content: content["candidates"][0]["shape"].update(layers=-1),
        lambda content: content["candidates"][0]["shape"].pop("width"),
        lambda content: content["candidates"][0]["size"].update(parameters=0),
        lambda content: content["candidates"][0].update(seconds=0.0),
        lambda content: content["candidates"][content["chosen"]].update(tokens=0),
        lambda content: content.update(by_law=True),
        lambda content: content.update(unigram=10**400),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: Callable[[dict[str, Any]], None]) -> None:
    path = write_plan_file(tmp_path / "mine.yaml", written())
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(CramError, match=r"mine\.json: not the file of a plan of this version\. Remove it, or make it"):
        read_plan_file(path)


@pytest.mark.parametrize("content", ["[]", "3", "null"])
def test_other_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(CramError, match="not the file of a plan"):
        read_plan_file(tmp_path / "mine.json")
