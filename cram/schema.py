"""How a key of a config is declared, with all that `--help` says of it."""

from dataclasses import field
from typing import Any


def key(default: Any, help: str, unit: str = "") -> Any:
    """A dataclass field with its line of help and, where it has one, its unit."""
    return field(default=default, metadata={"help": help, "unit": unit})


def key_list(help: str) -> Any:
    """A dataclass field that is a list of words, empty by default."""
    return field(default_factory=list, metadata={"help": help, "unit": ""})


def group(kind: type) -> Any:
    """A nested dataclass, made with its defaults."""
    return field(default_factory=kind)
