"""The file of a plan beside its recipe: FILE.json of FILE.yaml, with all candidates and what the choice rests on."""

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cram.errors import CramError
from cram.files.atomic import read_json, write_json
from cram.planner.plan import Candidate, Plan, Size
from cram.planner.shape import Shape

FORMAT = 1


@dataclass(frozen=True)
class WrittenPlan:
    """A plan with what it was made for and from.

    Attributes:
        plan: the choice among its candidates.
        budget: as in a recipe.
        device: name of the device.
        pace: where the seconds of the updates are from, in words.
        pace_error: relative error of the pace at shapes that were left out, as a root mean square; None if unknown.
        unigram: nats per token of the unigram baseline; None if unknown.
        available: tokens that the data has, all epochs together; None if unknown.
    """

    plan: Plan
    budget: str
    device: str
    pace: str
    pace_error: float | None
    unigram: float | None
    available: int | None


def plan_file_of(recipe: Path) -> Path:
    """The file of the plan that a recipe belongs to."""
    return recipe.with_suffix(".json")


def write_plan_file(recipe: Path, written: WrittenPlan) -> Path:
    """Write the file of a plan: the fields of `WrittenPlan`, with the candidates in a list and the place of the choice.

    Seconds of a shape that did not fit into memory are infinite, and null in the file.

    Args:
        recipe: the file of the planned recipe.

    Returns:
        The path of the file.
    """
    content = asdict(written)
    plan = content.pop("plan")
    chosen = written.plan.candidates.index(written.plan.chosen)
    candidates = {"by_law": plan["by_law"], "chosen": chosen, "candidates": plan["candidates"]}
    path = plan_file_of(recipe)
    write_json(path, {"format": FORMAT} | content | candidates)
    return path


def read_plan_file(path: Path) -> WrittenPlan:
    """Read the file of a plan.

    Raises:
        CramError: the file is damaged or of another format.
    """
    content = read_json(path)
    try:
        if content["format"] != FORMAT:
            raise ValueError(content["format"])
        candidates = tuple(_to_candidate(candidate) for candidate in content["candidates"])
        if not 0 <= content["chosen"] < len(candidates):
            raise ValueError(content["chosen"])
        chosen, by_law = candidates[content["chosen"]], bool(content["by_law"])
        if chosen.updates < 1 or (by_law and chosen.relative_loss is None):
            raise ValueError(chosen)
        return WrittenPlan(
            plan=Plan(chosen, candidates, by_law),
            budget=str(content["budget"]),
            device=str(content["device"]),
            pace=str(content["pace"]),
            pace_error=_or_none(content["pace_error"]),
            unigram=_or_none(content["unigram"]),
            available=_or_none(content["available"]),
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise CramError(
            f"{path}: not the file of a plan of this version. Remove it, or make it again with python -m cram.plan to=."
        ) from None


def _to_candidate(content: Mapping[str, Any]) -> Candidate:
    shape, size, seconds = content["shape"], content["size"], content["seconds"]
    return Candidate(
        shape=Shape(**{name: _positive(value) for name, value in shape.items()}),
        size=Size(**{name: _positive(value) for name, value in size.items()}),
        seconds=math.inf if seconds is None else _positive(seconds),
        measured=bool(content["measured"]),
        needed=_number(content["needed"]),
        tokens=_number(content["tokens"]),
        relative_loss=_or_none(content["relative_loss"]),
    )


def _number(value: Any) -> Any:
    """A number of JSON that is finite and not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise TypeError(value)
    return value


def _positive(value: Any) -> Any:
    if not _number(value):
        raise ValueError(value)
    return value


def _or_none(value: Any) -> Any:
    return None if value is None else _number(value)
