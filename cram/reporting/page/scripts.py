"""JSON and scripts inside of a page, so that no text of a user can end them or run."""

import base64
import hashlib
import json
import math
from typing import Any

# `<` would let a text end the script that holds it. The two line separators end a line in old readers of JavaScript.
_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def write_json(value: Any) -> str:
    """Write a value as JSON that can stand inside a `<script>`. Numbers that are not finite become null."""
    return escape_json(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def escape_json(text: str) -> str:
    """Replace the characters of a JSON text that mean something to HTML; the value stays the same."""
    return text.translate(_ESCAPES)


def hash_script(script: str) -> str:
    """Return the source expression by which a Content-Security-Policy allows this script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
