"""How a key is declared, and how the text of a word or of a yaml scalar becomes a value of its type and range.

Each key is made by `key(default, help, ...)`, so that its meaning, unit and range stand once: `--help` prints them and
`parse` holds them. No torch here: `--help` must be quick.
"""

import os
import re
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from cram.config.choices import Choice
from cram.errors import CramError

_INTEGER = re.compile(r"[+-]?\d+(_\d+)*", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(_\d+)*(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_WRITTEN = {"int": "a whole number such as 12, 131_072 or 2e9", "float": "a number such as 0.1 or 2e-3"}
_BOOLEANS = {"true": True, "false": False}
LARGEST = sys.float_info.max
LONGEST_SHOWN = 60  # characters of a value in a message
LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes of a file name, characters of a path: what file systems take


@dataclass(frozen=True)
class Range:
    """The numbers that a key takes: `least` and `most` are among them, `above` and `below` are not."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether the value is a finite number within the range; NaN is not."""
        return (
            abs(value) <= LARGEST
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __bool__(self) -> bool:
        """Whether there is any bound."""
        return bool(str(self))

    def __str__(self) -> str:
        """`above 0, at most 1`, for help and messages."""
        words = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return ", ".join(f"{word} {_short(bound)}" for word, bound in words.items() if bound is not None)


def key(
    default: Any,
    help: str,
    unit: str = "",
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    path: bool = False,
    identifies: bool = True,
    choices: Mapping[str, Choice] | None = None,
) -> Any:
    """A dataclass field with its line of help, its unit and, if it is a number, its range.

    Args:
        choices: the table that a text key takes its words from; `--help` prints the phrase of each choice.
        path: whether the text is a path or a glob, in which a leading `~` is the home folder.
        identifies: whether the key changes what a run computes, so that another value makes another run.
    """
    about = {"range": Range(least, above, most, below), "path": path, "identifies": identifies, "choices": choices}
    metadata = {"help": help, "unit": unit, **about}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def group(kind: type) -> Any:
    """A nested dataclass, made with its defaults."""
    return field(default_factory=kind)


def collect_keys(schema: type, prefix: str = "") -> dict[str, Field[Any]]:
    """Every settable key of a schema, nested ones dotted, with its dataclass field."""
    found: dict[str, Field[Any]] = {}
    for item in fields(schema):
        if is_dataclass(item.type):
            found |= collect_keys(typing.cast(type, item.type), f"{prefix}{item.name}.")
        else:
            found[prefix + item.name] = item
    return found


def get_value(config: Any, name: str) -> Any:
    """The value of a dotted key in a config."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def build_config(schema: type, values: dict[str, Any], prefix: str = "") -> Any:
    """An instance of the schema: its defaults, and `values` by dotted name in their place."""
    chosen = {}
    for item in fields(schema):
        if is_dataclass(item.type):
            chosen[item.name] = build_config(typing.cast(type, item.type), values, f"{prefix}{item.name}.")
        elif prefix + item.name in values:
            chosen[item.name] = values[prefix + item.name]
    return schema(**chosen)


def get_default(item: Field[Any]) -> Any:
    """The default of a key."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def get_type(item: Field[Any]) -> tuple[Any, bool]:
    """The type of a key without None, and whether None is allowed: `int | None` gives int and True.

    The type of a key with a table of choices is the `Literal` of the table's words.
    """
    if item.metadata["choices"]:
        literal: Any = Literal
        return literal[tuple(item.metadata["choices"])], False
    if get_origin(item.type) in (types.UnionType, typing.Union):
        (kind,) = [part for part in get_args(item.type) if part is not type(None)]
        return kind, True
    return item.type, False


def parse_value(name: str, item: Field[Any], text: str) -> Any:
    """The value that a text stands for: text keys take it as it is, numbers are read and held to their range.

    Errors: CramError naming the key, the text and what is allowed.
    """
    kind, _ = get_type(item)
    if get_origin(kind) is list:
        (element,) = get_args(kind)
        return [_one(name, item, element, part) for part in _elements(name, text)]
    return _one(name, item, kind, text)


def parse_list(name: str, item: Field[Any], texts: list[Any]) -> list[Any]:
    """The values of a yaml list. Errors: CramError for a key that takes no list, and as `parse`."""
    kind, _ = get_type(item)
    if get_origin(kind) is not list:
        raise CramError(f"{name}: a list is given, but the key takes {describe_type(item)}.")
    if not all(isinstance(text, str) for text in texts):
        raise CramError(f"{name}: the elements of the list must be plain values.")
    (element,) = get_args(kind)
    return [_one(name, item, element, text) for text in texts]


def describe_type(item: Field[Any]) -> str:
    """What a key takes, for help and messages: `int`, `text or null`, `a | b`, `list of float`."""
    kind, optional = get_type(item)
    if get_origin(kind) is Literal:
        name = " | ".join(get_args(kind))
    elif get_origin(kind) is list:
        name = f"list of {_NAMES[get_args(kind)[0]]}"
    else:
        name = _NAMES[kind]
    return f"{name} or null" if optional else name


_NAMES = {str: "text", int: "int", float: "float", bool: "true | false"}


def _one(name: str, item: Field[Any], kind: Any, text: str) -> Any:
    text = str(text)  # of the words of a file, which are a class of their own
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise CramError(f"{name}={_cut(text)} is not one of {', '.join(get_args(kind))}.")
        return text
    if item.metadata["path"] and not text and get_default(item) != "":
        raise CramError(f"{name}= is empty: give a path, or leave the word out.")
    if kind is str:
        return _path(name, text) if item.metadata["path"] else _text(name, text)
    if kind is bool:
        if text not in _BOOLEANS:
            raise CramError(f"{name}={_cut(text)} is neither true nor false.")
        return _BOOLEANS[text]
    return _number(name, item, kind, text)


def _path(name: str, text: str) -> str:
    """A path with the home folder in the place of a leading `~`; bytes that are not UTF-8 stay as they are."""
    try:
        longest = max(map(len, os.fsencode(text).split(b"/")))
        path = str(Path(text).expanduser()) if text == "~" or text.startswith("~/") else text
    except (UnicodeEncodeError, RuntimeError) as error:
        raise CramError(f"{name}={_cut(text)!r} is not a valid path ({error}).") from None
    if "\0" in text or longest > LONGEST_NAME or len(path) > LONGEST_PATH:
        raise CramError(f"{name}={_cut(text)!r} is not a valid path: it is too long, or has a zero byte.")
    return path


def _text(name: str, text: str) -> str:
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise CramError(f"{name}={_cut(text)} is not valid text: it has bytes that are not UTF-8.")
    return text


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _number(name: str, item: Field[Any], kind: type, text: str) -> int | float:
    said = f"{name}={_cut(text)}"
    _, optional = get_type(item)
    or_null = ", or null" if optional else ""
    if not _NUMBER.fullmatch(text):
        raise CramError(f"{said} cannot be read: give {_WRITTEN[kind.__name__]}{or_null}.")
    value = int(text) if _INTEGER.fullmatch(text) and len(text) < 300 else float(text)
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise CramError(f"{said} is not a whole number: give {_WRITTEN[kind.__name__]}{or_null}.")
    allowed: Range = item.metadata["range"]
    if not allowed.holds(value):
        raise CramError(f"{said} is out of range: give a number {allowed or 'that is finite'}{or_null}.")
    return kind(value)  # type: ignore[no-any-return]


def _elements(name: str, text: str) -> list[str]:
    """The elements of `[a,b]` or `a,b`."""
    if text.startswith("[") != text.endswith("]"):
        raise CramError(f"{name}={_cut(text)} has one bracket alone. Write a list as [a,b].")
    inside = text.removeprefix("[").removesuffix("]").strip()
    return [part.strip() for part in inside.split(",")] if inside else []


def _short(bound: float) -> str:
    return str(bound) if abs(bound) < 1e6 else f"{bound:.3g}".replace("e+", "e")
