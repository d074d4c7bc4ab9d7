"""The table of an ablation: its arms, as a yaml file holds them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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
    """One line of a table: the words that make it, its share of the table's budget, and what is known about it."""

    words: list[str] = key([], "words of this arm alone")
    budget_share: float = key(1.0, "its part of the table's budget", "share", above=0, most=1)
    rate_key: str | None = key(None, "key of its learning rate (null: that of the table)")
    published: str = key("", "what was published about it")
    expected: Literal["", "better", "same", "worse"] = key(
        "", "how it compares with the baseline, as published (empty: nothing was)"
    )


@dataclass
class Column:
    """Another way to run all arms."""

    words: list[str] = key([], "words of this column, which override those of the arms")
    clock: Literal["wall", "rst", "tokens"] = key(
        "wall", "whether the budget is that of the table (wall), as reference system time (rst), or its tokens"
    )


@dataclass
class AblationTable:
    """The content of a file in recipes/ablations/. `arms` holds the arms by name, and `columns` the columns."""

    about: str = key("", "what the table compares")
    budget: str = key("10m", "of an arm, as in a recipe")
    tokens: float | None = key(None, "budget of an arm in columns with clock=tokens", "tokens", least=1, most=1e15)
    seeds: int = key(1, "seeds of each arm", "seeds", least=1, most=1000)
    baseline: str = key("", "the arm that the others are compared with")
    words: list[str] = key([], "words of every arm")
    shares: list[float] = key([1.0], "budgets that each arm is trained with", "times the budget", above=0, most=1e3)
    jobs: int = key(1, "runs at the same time; more than one needs threads=1", "runs", least=1, most=1000)
    rate_key: str | None = key(None, "key of the learning rate, which is chosen for each arm (null: as in the words)")
    rates: list[float] = key(
        [],
        "rates that are tried with half of the budget and one seed",
        "times the rate of the words",
        above=0,
        most=1e6,
    )
    rate_column: str = key("", "column in which the rates are tried (empty: the first)")
    columns: dict[str, Column] = field(default_factory=dict)
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
    arms, columns = mapping.pop("arms", None), mapping.pop("columns", {})
    table = read_mapping(AblationTable, mapping, path)
    for column, content in _named(columns, path, "columns").items():
        table.columns[column] = read_mapping(Column, content, path)
        _check_words(path, f"columns.{column}.words", table.columns[column].words)
    for arm, content in _named(arms, path, "arms").items():
        table.arms[arm] = read_mapping(Arm, content, path)
        _check_words(path, f"arms.{arm}.words", table.arms[arm].words)
    _check_words(path, "words", table.words)
    if table.baseline not in table.arms:
        raise CramError(f"{path}: baseline: {table.baseline} is not one of the arms {', '.join(table.arms)}.")
    if table.rate_column and table.rate_column not in table.columns:
        raise CramError(f"{path}: rate_column: {table.rate_column} is not one of the columns.")
    if table.rates and not all(table.rate_key or arm.rate_key for arm in table.arms.values()):
        raise CramError(f"{path}: rates: each arm needs a rate_key, its own or that of the table.")
    return path.stem, table


def _named(mapping: Any, path: Path, what: str) -> dict[str, Any]:
    """Check that a mapping has names that can name folders, and mappings under them."""
    if not isinstance(mapping, dict) or not all(isinstance(content, dict) for content in mapping.values()):
        fields = "words and budget_share" if what == "arms" else "words and clock"
        raise CramError(f"{path}: {what}: must be a mapping of names to mappings with {fields}.")
    for name in mapping:
        if not ARM_NAME.fullmatch(name):
            raise CramError(
                f"{path}: {what}: {name[:60]!r} cannot name a folder. Use up to 100 letters, digits, _, - and ."
            )
    return mapping


def _check_words(path: Path, key: str, words: Sequence[str]) -> None:
    """Refuse words of a file that belong to single runs, or that would write outside the working folder."""
    for word in words:
        name, _, value = word.partition("=")
        if name in RUN_WORDS:
            raise CramError(f"{path}: {key}: {word}: each run of a table has its own {name}. Use {RUN_WORDS[name]}.")
        if name in OUTPUT_KEYS:
            check_inside_working_folder(str(Path(value).expanduser()), f"{path}: {key}: {name}=", name)
