"""Edits of a kept file, one at a time: another value in a field, a field removed, a line changed, a bit flipped."""

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

YAML_VALUES = ("7", "seven", "")


@dataclass(frozen=True)
class Edit:
    """An edit of a file.

    Args:
        kind: `field` or `bit`.
        place: where in the file, and what is there now.
        content: the whole edited file.
    """

    kind: str
    place: str
    content: bytes


def edit_file(path: Path, bits: int, most_fields: int | None, source: random.Random) -> Iterator[Edit]:
    """Yield edits of the fields and the bits of a file.

    Args:
        path: of the file. The suffixes .json, .jsonl and .yaml have fields.
        bits: how many bits are flipped, one in each edit.
        most_fields: number of fields drawn at random; None for all. Every line of a .yaml file is edited.
        source: of all that is drawn.
    """
    data = path.read_bytes()
    if path.suffix == ".json":
        changes = list(edit_json(json.loads(data)))
        for place, content in _draw(changes, most_fields, source):
            yield Edit("field", place, (json.dumps(content, indent=2) + "\n").encode())
    if path.suffix == ".jsonl":
        yield from _edit_json_lines(data.decode(), most_fields, source)
    if path.suffix == ".yaml":
        yield from _edit_yaml(data.decode())
    for bit in (source.randrange(8 * len(data)) for _ in range(bits if data else 0)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield Edit("bit", f"bit {bit % 8} of byte {bit // 8}", bytes(flipped))


def edit_json(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield every content that differs from a JSON value in one field, with a name of the change."""
    for place in _places(content, ()):
        *above, last = place
        name = ".".join(map(str, place))
        for value in _other_values(_at(content, above)[last]):
            changed = copy.deepcopy(content)
            _at(changed, above)[last] = value
            yield f"{name}={value!r:.20}", changed
        changed = copy.deepcopy(content)
        del _at(changed, above)[last]
        yield f"{name} left out", changed


def _edit_json_lines(text: str, most_lines: int | None, source: random.Random) -> Iterator[Edit]:
    """In each line that is drawn, change one field; then leave the line out."""
    lines = text.splitlines(keepends=True)
    for number in _draw(list(range(len(lines))), most_lines, source):
        place, content = source.choice(list(edit_json(json.loads(lines[number]))))
        for change, line in ((place, json.dumps(content) + "\n"), ("left out", "")):
            changed = [*lines[:number], line, *lines[number + 1 :]]
            yield Edit("field", f"line {number + 1}: {change}", "".join(changed).encode())


def _edit_yaml(text: str) -> Iterator[Edit]:
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        name, _, value = line.rstrip("\n").partition(": ")
        for other in YAML_VALUES if value else ():
            changed = [*lines[:number], f"{name}: {other}\n", *lines[number + 1 :]]
            yield Edit("field", f"{name.strip()}={other!r}", "".join(changed).encode())


def _draw(items: list[Any], most: int | None, source: random.Random) -> list[Any]:
    return source.sample(items, len(items) if most is None else min(most, len(items)))


def _other_values(value: Any) -> Iterator[Any]:
    """Another value of the same type, and one of another type."""
    if isinstance(value, bool):
        yield from (not value, 2)
    elif isinstance(value, int):
        yield from (value + 1, "1")
    elif isinstance(value, float):
        yield from (value * 1.5 + 0.25, "x")
    elif isinstance(value, str):
        yield from (f"{value[:-1]}{'a' if value[-1:] != 'a' else 'b'}", 3)
    else:
        yield from (0, "x")


def _places(value: Any, prefix: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """The keys and indices that lead to each field, from the outermost on."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*prefix, name)
        yield from _places(inner, (*prefix, name))


def _at(value: Any, place: list[Any]) -> Any:
    for name in place:
        value = value[name]
    return value
