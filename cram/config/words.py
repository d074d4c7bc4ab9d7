"""From Python values to the `key=value` words of the command line."""

from collections.abc import Iterator, Mapping
from typing import Any

from cram.errors import CramError


def to_words(values: Mapping[str, Any]) -> list[str]:
    """The words that set keys to values.

    Args:
        values: by the name of the key; a mapping stands for a group of keys. None becomes `null`.

    Returns:
        One word for each key: `{"budget": "10m", "model": {"layers": 2}}` gives `["budget=10m", "model.layers=2"]`.

    Raises:
        CramError: if a key is given twice.
    """
    words: dict[str, str] = {}
    for name, value in _flatten(values, ""):
        if name in words:
            raise CramError(f"{name}= is given twice. Give it once.")
        words[name] = f"{name}={_text(value)}"
    return list(words.values())


def _flatten(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    return str(value)
