"""The list that `data.source` may be: its text on the command line, its form in a recipe, and its entries.

A list stands as one text in the config, such as `[wiki.jsonl, {path: books/, weight: 0.7}]`. What is not such a list is
the text of a single source.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from cram.config.schema import parse_path
from cram.errors import CramError

KEY = "data.source"
ROUNDING = 0.0101  # by which weights may miss 1 when all sources have one: three times 0.33
FIELDS = ("path", "weight", "text_field", "document", "encoding")
EXAMPLE = "write it as [wiki.jsonl, {path: books/, weight: 0.7, text_field: body}]"
_PLAIN = re.compile(r"""[^\s,\[\]{}"':][^,\[\]{}"'\s]*""")  # needs no quotation marks
_QUOTES = ('"', "'")
_OPENING, _CLOSING = "[{", "]}"
_DOCUMENT_RULES = ("file", "blank_line", "line")


@dataclass(frozen=True)
class SourceEntry:
    """One source of the list; None stands for the key of `data` that is the same for all sources.

    Attributes:
        path: the words of the source: a path, folder, glob or address, `hf:...` or `pydocs`.
        weight: share of the training tokens. Sources without one share the rest in proportion to their size.
        text_field: field with the text in a record.
        document: what a document is in a file of plain text.
        encoding: of the files.
    """

    path: str
    weight: float | None = None
    text_field: str | None = None
    document: Literal["file", "blank_line", "line"] | None = None
    encoding: str | None = None

    def __str__(self) -> str:
        """The entry as it stands in a list."""
        given = {name: getattr(self, name) for name in FIELDS if getattr(self, name) is not None}
        if list(given) == ["path"]:
            return _quote(self.path)
        return f"{{{', '.join(f'{name}: {_quote(value)}' for name, value in given.items())}}}"


def is_list(text: str) -> bool:
    """Whether the text of `data.source` is a list of sources, or a single one that is written as a mapping."""
    return text[:1] in ("[", "{") and _is_enclosed(text)


def parse_sources(text: str) -> list[SourceEntry]:
    """Return the sources that the text of `data.source` names; one, if it is not a list.

    Raises:
        CramError: the list cannot be read, an entry has an unknown or unsuitable value, or the weights do not fit.
    """
    if not is_list(text):
        return [SourceEntry(text)]
    content = _parse_value(text)
    return make_entries(content if isinstance(content, list) else [content])


def make_entries(content: Any) -> list[SourceEntry]:
    """Return the sources of a list of texts and mappings, as they stand in a recipe.

    Raises:
        CramError: as `parse_sources`.
    """
    entries = [_make_entry(one, number) for number, one in enumerate(content, start=1)]
    if not entries:
        raise CramError(f"{KEY}=[] names no source: {EXAMPLE}.")
    _check_weights(entries)
    return entries


def normalize_sources(content: Any) -> str:
    """Return the text of `data.source` for a word of the command line, or for a list or mapping of a recipe.

    Raises:
        CramError: as `parse_sources`.
    """
    if isinstance(content, str):
        if not is_list(content):
            return content
        return format_sources(parse_sources(content))
    return format_sources(make_entries(content if isinstance(content, list) else [content]))


def format_sources(entries: list[SourceEntry]) -> str:
    """Return the text of a list from which `parse_sources` makes equal entries."""
    return f"[{', '.join(map(str, entries))}]"


def _make_entry(content: Any, number: int) -> SourceEntry:
    where = f"{KEY}, entry {number}"
    if isinstance(content, str):
        content = {"path": content}
    if not isinstance(content, dict):
        raise CramError(f"{where}: expected a source or a mapping with its path, found a list: {EXAMPLE}.")
    if unknown := [name for name in content if name not in FIELDS]:
        raise CramError(f"{where}: unknown field {str(unknown[0])!r}. Fields: {', '.join(FIELDS)}.")
    for name, value in content.items():
        if not isinstance(value, str) or not value:
            raise CramError(f"{where}: {name} needs a plain value, and has {'none' if value == '' else 'several'}.")
    values: dict[str, Any] = {str(name): str(value) for name, value in content.items()}
    if not values.get("path"):
        raise CramError(f"{where}: path is missing: {EXAMPLE}.")
    values["path"] = parse_path(KEY, values["path"])
    if values.get("document", "file") not in _DOCUMENT_RULES:
        raise CramError(f"{where}: document={values['document']} is not one of {', '.join(_DOCUMENT_RULES)}.")
    if "weight" in values:
        values["weight"] = _parse_weight(values["weight"], f"{where}: weight={values['weight']}")
    return SourceEntry(**values)


def _parse_weight(text: str, where: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight <= 1:
        raise CramError(f"{where} is not a share of the tokens: give a number above 0, at most 1, such as 0.7.")
    return weight


def _check_weights(entries: list[SourceEntry]) -> None:
    weights = [entry.weight for entry in entries if entry.weight is not None]
    total = sum(weights)
    if len(weights) == len(entries) and abs(total - 1) > ROUNDING:
        raise CramError(
            f"{KEY}: the weights of all sources sum to {total:.4g} instead of 1: change one, or leave one out, "
            "which then takes the rest."
        )
    if len(weights) < len(entries) and total >= 1:
        raise CramError(
            f"{KEY}: the weights sum to {total:.4g}, which leaves nothing for the sources without a weight: lower them."
        )


def _quote(value: Any) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _parse_value(text: str) -> Any:
    """Read a list `[...]`, a mapping `{name: value, ...}` or a text, with or without quotation marks."""
    text = text.strip()
    if text.startswith("[") and _is_enclosed(text):
        return [_parse_value(part) for part in _split(text[1:-1])]
    if text.startswith("{") and _is_enclosed(text):
        mapping: dict[str, Any] = {}
        for part in _split(text[1:-1]):
            name, colon, value = part.partition(":")
            name = str(_parse_value(name))
            if not colon or name in mapping:
                raise CramError(f"{KEY}: {name!r} {'is given twice' if colon else 'has no value'}: {EXAMPLE}.")
            mapping[name] = _parse_value(value)
        return mapping
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except ValueError:
            raise CramError(f"{KEY}: {text} is not a text in quotation marks: {EXAMPLE}.") from None
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    return text


def _is_enclosed(text: str) -> bool:
    """Whether the bracket that begins a text is closed by the last character. `[ab]/x[12]` is a glob, not a list."""
    places = [place for place, depth in _depths(text) if not depth]
    return bool(places) and places[0] == len(text) - 1 and text[-1] == _CLOSING[_OPENING.index(text[0])]


def _split(text: str) -> list[str]:
    """Split a text at the commas that are in no brackets and no quotation marks."""
    commas = [place for place, depth in _depths(text) if not depth and text[place] == ","]
    ends = [*commas, len(text)]
    parts = [text[start:end] for start, end in zip([0, *(place + 1 for place in commas)], ends, strict=True)]
    if not text.strip():
        return []
    if not all(part.strip() for part in parts):
        raise CramError(f"{KEY}: an entry of the list is empty: {EXAMPLE}.")
    return parts


def _depths(text: str) -> Iterator[tuple[int, int]]:
    """Yield the place of each character outside of quotation marks, and how many brackets are open after it."""
    depth, quote, before = 0, "", ","
    for place, sign in enumerate(text):
        if quote:
            escaped = quote == '"' and text[place - 1] == "\\" and text[place - 2] != "\\"
            quote = "" if sign == quote and not escaped else quote
            continue
        if sign in _QUOTES and before in ",:[{":  # an apostrophe within a name is not a quotation mark
            quote = sign
            continue
        depth += (sign in _OPENING) - (sign in _CLOSING)
        before = before if sign.isspace() else sign
        yield place, depth
