"""The text of `--help`: every key with its type, default, unit, range and meaning, by groups, 120 columns wide."""

import textwrap
from collections.abc import Iterator
from dataclasses import Field
from typing import Any, Literal, get_args, get_origin

from cram.config.schema import collect_keys, describe_type, get_default, get_type, get_value

COLUMNS = 120
LONGEST_VALUE = 24  # a longer default has a line of its own


def help_text(schema: type, config: Any = None) -> str:
    """The lines of `--help`; with a config of the schema, its values where they differ from the defaults."""
    groups: dict[str, list[str]] = {}
    for name in collect_keys(schema):
        groups.setdefault(name.rpartition(".")[0], []).append(name)
    known = collect_keys(schema)
    lines: list[str] = []
    for title, names in groups.items():
        lines += ["", title] if title else []
        rows = [(name, _type(known[name]), _value(name, known[name], config), _meaning(known[name])) for name in names]
        lines += _table(rows)
    return "\n".join(lines)


def _table(rows: list[tuple[str, str, str, str]]) -> Iterator[str]:
    """The rows of a group; the first three columns are as wide as they must be, the last is wrapped."""
    widths = [max(min(len(row[column]), LONGEST_VALUE) for row in rows) for column in range(3)]
    widths[0] = max(len(row[0]) for row in rows)
    indent = sum(widths) + 8
    for row in rows:
        begin = "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) + "  "
        meaning = textwrap.wrap(row[3], COLUMNS - indent)
        if len(begin) > indent:
            yield from textwrap.wrap(begin.rstrip(), COLUMNS, subsequent_indent=" " * 4, break_on_hyphens=False)
        else:
            yield begin + meaning.pop(0)
        yield from (" " * indent + line for line in meaning)


def _type(item: Field[Any]) -> str:
    return "choice" if get_origin(get_type(item)[0]) is Literal else describe_type(item)


def _value(name: str, item: Field[Any], config: Any) -> str:
    default = get_default(item)
    value = default if config is None else get_value(config, name)
    return _shown(value) if value == default else f"{_shown(value)} (default {_shown(default)})"


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)


def _meaning(item: Field[Any]) -> str:
    kind, _ = get_type(item)
    choices = f"{' | '.join(get_args(kind))}: " if get_origin(kind) is Literal else ""
    table = item.metadata["choices"] or {}
    phrases = "".join(f"; {name}: {choice.help}" for name, choice in table.items())
    notes = [text for text in (item.metadata["unit"], str(item.metadata["range"])) if text]
    return f"{choices}{item.metadata['help']}{phrases}" + (f" [{'; '.join(notes)}]" if notes else "")
