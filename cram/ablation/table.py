"""The table of an ablation: its arms, as a yaml file holds them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cram.config.recipe import (
    OUTPUT_KEYS,
    RECIPES,
    YAML_ENDINGS,
    check_inside_working_folder,
    read_mapping,
    suggest_nearest,
)
from cram.config.schema import key
from cram.config.yaml_texts import read_yaml
from cram.errors import CramError

TABLES = RECIPES / "ablations"
# Words that would be the same for all runs of a table, and what to use instead.
RUN_WORDS = {
    "seed": "seeds: N",
    "run": "dir= of cram.ablate",
    "budget": "budget: at the top, or budget_share: of an arm",
}
ARM_NAME = re.compile(r"\w[\w.+-]{0,99}", re.ASCII)  # it names a folder on every system


@dataclass
class Arm:
    """One line of a table: the words that make it, and its share of the table's budget."""

    words: list[str] = key([], "words of this arm alone")
    budget_share: float = key(1.0, "its part of the table's budget", "share", above=0, most=1)


@dataclass
class AblationTable:
    """The content of a file in recipes/ablations/. `arms` holds the arms by name."""

    about: str = key("", "what the table compares")
    budget: str = key("10m", "of an arm, as in a recipe")
    seeds: int = key(1, "seeds of each arm", "seeds", least=1, most=1000)
    baseline: str = key("", "the arm that the others are compared with")
    words: list[str] = key([], "words of every arm")
    arms: dict[str, Arm] = field(default_factory=dict)


def table_names() -> list[str]:
    """Names of the tables that come with cram."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


def load_table(name: str) -> tuple[str, AblationTable]:
    """Load a table.

    Args:
        name: of a table that comes with cram, or the path of a yaml file.

    Returns:
        The table's name and content.

    Raises:
        CramError: for a table that is unknown or cannot be read, for a baseline that is not one of its arms, and for
            words and shares that are not allowed.
    """
    path = Path(name) if name.endswith(YAML_ENDINGS) else TABLES / f"{name}.yaml"
    if not path.is_file():
        raise CramError(
            f"table={name} is unknown.{suggest_nearest(name, table_names())} Tables: {', '.join(table_names())}, "
            "or a path to a yaml file."
        )
    mapping = read_yaml(path)
    arms = mapping.pop("arms", None)
    table = read_mapping(AblationTable, mapping, path)
    if not isinstance(arms, dict) or not all(isinstance(content, dict) for content in arms.values()):
        raise CramError(f"{path}: arms: must be a mapping of names to mappings with words and budget_share.")
    for arm, content in arms.items():
        if not ARM_NAME.fullmatch(arm):
            raise CramError(
                f"{path}: arms: {arm[:60]!r} cannot name a folder. Use up to 100 letters, digits, _, - and ."
            )
        table.arms[arm] = read_mapping(Arm, content, path)
        _check_words(path, f"arms.{arm}.words", table.arms[arm].words)
    _check_words(path, "words", table.words)
    if table.baseline not in table.arms:
        raise CramError(f"{path}: baseline: {table.baseline} is not one of the arms {', '.join(table.arms)}.")
    return path.stem, table


def _check_words(path: Path, key: str, words: Sequence[str]) -> None:
    """Refuse words of a file that belong to single runs, or that would write outside the working folder."""
    for word in words:
        name, _, value = word.partition("=")
        if name in RUN_WORDS:
            raise CramError(f"{path}: {key}: {word}: each run of a table has its own {name}. Use {RUN_WORDS[name]}.")
        if name in OUTPUT_KEYS:
            check_inside_working_folder(str(Path(value).expanduser()), f"{path}: {key}: {name}=", name)
