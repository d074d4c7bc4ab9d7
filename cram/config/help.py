"""The text of `--help`: every key with its type, default and meaning, in the order of the schema."""

import textwrap
from collections.abc import Iterator
from dataclasses import Field
from typing import Any, Literal, get_args, get_origin

from cram.config.schema import collect_keys, describe_type, get_default, get_type, get_value

COLUMNS = 120
WIDEST_CELL = 24  # characters; a wider default would push the meanings of its whole group to the right


def help_text(schema: type, config: Any = None) -> str:
    """Return the lines of `--help`, at most 120 characters wide.

    Args:
        schema: a dataclass made of `key` and `group`.
        config: instance of the schema. Its values are printed beside the defaults that they differ from.
    """
    specs = collect_keys(schema)
    groups: dict[str, list[str]] = {}
    for name in specs:
        groups.setdefault(name.rpartition(".")[0], []).append(name)
    lines: list[str] = []
    for title, names in groups.items():
        lines += ["", title] if title else []
        rows = [
            (name, _format_type(specs[name]), _format_value(name, specs[name], config), _format_meaning(specs[name]))
            for name in names
        ]
        lines += _format_table(rows)
    return "\n".join(lines)


def _format_table(rows: list[tuple[str, str, str, str]]) -> Iterator[str]:
    """Yield the lines of a group: columns of name, type and value, and the wrapped meaning."""
    widths = [max(min(len(row[column]), WIDEST_CELL) for row in rows) for column in range(3)]
    widths[0] = max(len(row[0]) for row in rows)
    indent = sum(widths) + 8
    for row in rows:
        cells = "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) + "  "
        meaning = textwrap.wrap(row[3], COLUMNS - indent)
        if len(cells) > indent:
            yield from textwrap.wrap(cells.rstrip(), COLUMNS, subsequent_indent=" " * 4, break_on_hyphens=False)
        else:
            yield cells + meaning.pop(0)
        yield from (" " * indent + line for line in meaning)


def _format_type(spec: Field[Any]) -> str:
    # The words of a choice are listed in the column of meanings, which is wide.
    return "choice" if get_origin(get_type(spec)[0]) is Literal else describe_type(spec)


def _format_value(name: str, spec: Field[Any], config: Any) -> str:
    default = get_default(spec)
    value = default if config is None else get_value(config, name)
    return _format_scalar(value) if value == default else f"{_format_scalar(value)} (default {_format_scalar(default)})"


def _format_scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)


def _format_meaning(spec: Field[Any]) -> str:
    """Return `a | b: help; a: phrase; b: phrase [unit; range]`, with the parts that the key has."""
    value_type, _ = get_type(spec)
    words = f"{' | '.join(get_args(value_type))}: " if get_origin(value_type) is Literal else ""
    table = spec.metadata["choices"] or {}
    phrases = "".join(f"; {word}: {choice.help}" for word, choice in table.items())
    notes = [text for text in (spec.metadata["unit"], str(spec.metadata["range"])) if text]
    return f"{words}{spec.metadata['help']}{phrases}" + (f" [{'; '.join(notes)}]" if notes else "")
