"""How a key is declared, and how its text becomes a value of its type and range.

A schema is a dataclass whose fields are made by `key` or `group`:

    @dataclass
    class ScheduleConfig:
        warmup: float = key(0.02, "rise from zero", "share of the budget", least=0, below=1)

    @dataclass
    class Config:
        schedule: ScheduleConfig = group(ScheduleConfig)

The key is named `schedule.warmup` in words and in recipes. `--help` prints the arguments of `key`, and `parse_value`
checks values against them. A field may be `str`, `int`, `float`, `bool`, a `Literal` of texts, a `list` of one of the
first four, or any of these `| None`, which adds the value `null`.

This package imports no torch, so that `--help` is quick.
"""

import math
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from cram.config.choices import Choice
from cram.errors import CramError

_NUMBER = re.compile(r"[+-]?(\d+(_\d+)*(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_NUMBER_FORMS = {"int": "a whole number such as 12, 131_072 or 2e9", "float": "a number such as 0.1 or 2e-3"}
_BOOLEANS = {"true": True, "false": False}
_TYPE_NAMES = {str: "text", int: "int", float: "float", bool: "true | false"}
LARGEST = sys.float_info.max
LONGEST_SHOWN = 60  # characters of a value in a message
LONGEST_NAME, LONGEST_PATH = 255, 4000  # limits of file systems: bytes of a file name, characters of a path


@dataclass(frozen=True)
class Range:
    """The numbers that a key accepts. Infinity and NaN are always outside.

    Attributes:
        least: smallest number inside.
        above: largest number outside, at the lower end.
        most: largest number inside.
        below: smallest number outside, at the upper end.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def contains(self, value: float) -> bool:
        """Whether the value is a finite number within the bounds."""
        # A comparison with NaN is false.
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
        """The bounds as text for help and messages, such as `above 0, at most 1`."""
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return ", ".join(f"{words} {_format_bound(bound)}" for words, bound in bounds.items() if bound is not None)


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
    normalize: Callable[[Any], str] | None = None,
) -> Any:
    """Declare a key: make a dataclass field that carries the help, unit and range of the key.

    Args:
        default: value of the key where neither words nor recipe set it. It is not checked against the range.
        help: meaning of the key, one phrase for `--help`.
        unit: of a number, such as `tokens`. Empty for a number without a unit.
        least: smallest value that is accepted.
        above: the value must be larger than this.
        most: largest value that is accepted.
        below: the value must be smaller than this.
        path: whether the text is a path or a glob. A leading `~` then stands for the home folder.
        identifies: whether the key changes the weights that a run computes. A run folder refuses to resume with
            another value of such a key, and its checkpoints are bound to the value.
        choices: table of the words that a text key accepts; `--help` prints the phrase of each.
        normalize: for a text key that may also be a list or a mapping: makes the text of the key of a text, list or
            mapping, and raises CramError for one that does not suit.
    """
    metadata = {
        "help": help,
        "unit": unit,
        "range": Range(least, above, most, below),
        "path": path,
        "identifies": identifies,
        "choices": choices,
        "normalize": normalize,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def group(schema: type) -> Any:
    """Declare a group of keys: make a dataclass field that holds another schema with its defaults."""
    return field(default_factory=schema)


def collect_keys(schema: type, prefix: str = "") -> dict[str, Field[Any]]:
    """Return the dataclass field of every key of a schema, by the full name of the key, such as `model.layers`.

    Args:
        schema: a dataclass made of `key` and `group`.
        prefix: is put before every name; ends with a dot.
    """
    specs: dict[str, Field[Any]] = {}
    for spec in fields(schema):
        if is_dataclass(spec.type):
            specs |= collect_keys(typing.cast(type, spec.type), f"{prefix}{spec.name}.")
        else:
            specs[prefix + spec.name] = spec
    return specs


def get_value(config: Any, name: str) -> Any:
    """Return the value of a key in a config, by the full name of the key."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def build_config(schema: type, values: dict[str, Any], prefix: str = "") -> Any:
    """Make an instance of a schema.

    Args:
        schema: a dataclass made of `key` and `group`.
        values: by full name of key. Keys that are missing get their default.
        prefix: of the full names of the schema's keys; ends with a dot.
    """
    arguments = {}
    for spec in fields(schema):
        if is_dataclass(spec.type):
            arguments[spec.name] = build_config(typing.cast(type, spec.type), values, f"{prefix}{spec.name}.")
        elif prefix + spec.name in values:
            arguments[spec.name] = values[prefix + spec.name]
    return schema(**arguments)


def get_default(spec: Field[Any]) -> Any:
    """Return the default of a key."""
    return spec.default if spec.default_factory is MISSING else spec.default_factory()


def get_type(spec: Field[Any]) -> tuple[Any, bool]:
    """Return the type of a key without None, and whether the key accepts null: `int | None` gives int and True.

    The type of a key with a table of choices is the `Literal` of the words in the table.
    """
    optional = get_origin(spec.type) in (types.UnionType, typing.Union)
    if spec.metadata["choices"]:
        literal: Any = Literal
        return literal[tuple(spec.metadata["choices"])], optional
    if optional:
        (value_type,) = [part for part in get_args(spec.type) if part is not type(None)]
        return value_type, True
    return spec.type, False


def describe_type(spec: Field[Any]) -> str:
    """Return the type of a key as help and messages name it: `int`, `text or null`, `a | b`, `list of float`."""
    value_type, optional = get_type(spec)
    if get_origin(value_type) is Literal:
        name = " | ".join(get_args(value_type))
    elif get_origin(value_type) is list:
        name = f"list of {_TYPE_NAMES[get_args(value_type)[0]]}"
    else:
        name = _TYPE_NAMES[value_type]
    return f"{name} or null" if optional else name


def parse_value(name: str, spec: Field[Any], text: str) -> Any:
    """Return the value that a text gives to a key. Null is handled by the caller.

    Args:
        name: full name of the key, for messages.
        spec: dataclass field of the key.
        text: what follows `=` in a word, or stands in a recipe. A key of text takes it unchanged.

    Raises:
        CramError: the text does not fit the type or the range. The message names the key and what is accepted.
    """
    value_type, _ = get_type(spec)
    if get_origin(value_type) is list:
        (element_type,) = get_args(value_type)
        return [_parse_scalar(name, spec, element_type, part) for part in _split_list(name, text)]
    return _parse_scalar(name, spec, value_type, text)


def parse_list(name: str, spec: Field[Any], texts: list[Any]) -> Any:
    """Return the values of a yaml list, given as texts. A key with `normalize` takes any list, and gets a text.

    Raises:
        CramError: the key takes no list, an element is not a text, or as in `parse_value`.
    """
    if normalize := spec.metadata["normalize"]:
        return normalize(texts)
    value_type, _ = get_type(spec)
    if get_origin(value_type) is not list:
        raise CramError(f"{name}: the file gives a list, but the key takes {describe_type(spec)}.")
    if not all(isinstance(text, str) for text in texts):
        raise CramError(f"{name}: the elements of the list must be plain values.")
    (element_type,) = get_args(value_type)
    return [_parse_scalar(name, spec, element_type, text) for text in texts]


def _parse_scalar(name: str, spec: Field[Any], value_type: Any, text: str) -> Any:
    text = str(text)  # texts from a yaml file are of a subclass, which the config must not hold
    if get_origin(value_type) is Literal:
        if text not in get_args(value_type):
            raise CramError(f"{name}={_shorten(text)} is not one of {', '.join(get_args(value_type))}.")
        return text
    if spec.metadata["path"] and not text and get_default(spec) != "":
        raise CramError(f"{name}= is empty: give a path, or leave the word out.")
    if value_type is str:
        if normalize := spec.metadata["normalize"]:
            text = normalize(text)
        return parse_path(name, text) if spec.metadata["path"] else _check_text(name, text)
    if value_type is bool:
        if text not in _BOOLEANS:
            raise CramError(f"{name}={_shorten(text)} is neither true nor false.")
        return _BOOLEANS[text]
    return _parse_number(name, spec, value_type, text)


def parse_path(name: str, text: str) -> str:
    """Replace a leading `~` by the home folder. Bytes that are not UTF-8 are kept, since they can be in a path.

    Raises:
        CramError: the text cannot be a path; the message names the key `name`.
    """
    try:
        longest_name = max(map(len, os.fsencode(text).split(b"/")))
        path = str(Path(text).expanduser()) if text == "~" or text.startswith("~/") else text
    except (UnicodeEncodeError, RuntimeError) as error:
        raise CramError(f"{name}={_shorten(text)!r} is not a valid path ({error}).") from None
    if "\0" in text or longest_name > LONGEST_NAME or len(path) > LONGEST_PATH:
        raise CramError(f"{name}={_shorten(text)!r} is not a valid path: it is too long, or has a zero byte.")
    return path


def _check_text(name: str, text: str) -> str:
    # Python hands over bytes of the command line that are not UTF-8 as surrogates.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise CramError(f"{name}={_shorten(text)} is not valid text: it has bytes that are not UTF-8.")
    return text


def _parse_number(name: str, spec: Field[Any], number_type: type, text: str) -> int | float:
    word = f"{name}={_shorten(text)}"
    form = _NUMBER_FORMS[number_type.__name__]
    or_null = ", or null" if get_type(spec)[1] else ""
    if not _NUMBER.fullmatch(text):
        raise CramError(f"{word} cannot be read: give {form}{or_null}.")
    value: float | int | None = float(text)
    if number_type is int and value not in (math.inf, -math.inf):  # infinity is out of range, which is said below
        value = _read_whole_number(text)
    if value is None:
        raise CramError(f"{word} is not a whole number: give {form}{or_null}.")
    allowed: Range = spec.metadata["range"]
    if not allowed.contains(value):
        raise CramError(f"{word} is out of range: give a number {allowed or 'that is finite'}{or_null}.")
    number: int | float = number_type(value)
    return number


def _read_whole_number(text: str) -> int | None:
    """Read a whole number exactly, or return None for another one. A float would round large seeds and 1e-400."""
    try:
        exact = Decimal(text)
    except InvalidOperation:  # the exponent is far below zero
        return None
    return int(exact) if exact == exact.to_integral_value() else None


def _split_list(name: str, text: str) -> list[str]:
    """Split `[a,b]` or `a,b` into its elements."""
    if text.startswith("[") != text.endswith("]"):
        raise CramError(f"{name}={_shorten(text)} has only one of its two brackets. Write a list as [a,b].")
    inside = text.removeprefix("[").removesuffix("]").strip()
    return [part.strip() for part in inside.split(",")] if inside else []


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _format_bound(bound: float) -> str:
    return str(bound) if abs(bound) < 1e6 else f"{bound:.3g}".replace("e+0", "e").replace("e+", "e")
