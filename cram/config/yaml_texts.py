"""Read a yaml file as mappings and lists of texts.

Yaml would turn `no` into false, `1.10` into 1.1 and `12:30` into a number. The type of a key decides here instead, so
every value stays the text in the file. No code in a file is run: tags are refused.
"""

from pathlib import Path
from typing import Any

import yaml

from cram.errors import CramError

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"


class YamlText(str):
    """A key or value of a yaml file.

    Attributes:
        line: number of its line, from 1.
        plain: whether it has no quotes. Only a plain text can mean null.
    """

    line: int
    plain: bool

    @property
    def is_null(self) -> bool:
        """Whether yaml reads this text as null."""
        return self.plain and self in ("null", "~", "")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a yaml file whose top level is a mapping. Keys and values are `YamlText`s, or mappings or lists of them.

    Raises:
        CramError: the file cannot be read, is not a mapping, repeats a key or has a tag. The message names the line.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise CramError(f"{path}: not a readable yaml file ({_describe_error(error)}).") from None
    if not isinstance(content, dict):
        raise CramError(f"{path}: must be a yaml mapping of keys, found {describe_content(content)}.")
    return content


def describe_content(content: Any) -> str:
    """Describe what stands in a yaml file in place of a value, for a message."""
    if isinstance(content, dict | list):
        return "a mapping" if isinstance(content, dict) else "a list"
    return f"'{content}'" if content else "nothing"


def _describe_error(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


class _Loader(yaml.SafeLoader):
    """Makes a `YamlText` of every scalar. Merge keys (`<<`) work; tags and repeated keys are refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in names:
                    problem = f"the key '{key.value}' is set twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                names.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_text(self, node: yaml.ScalarNode) -> YamlText:
        text = YamlText(node.value)
        text.line, text.plain = node.start_mark.line + 1, node.style is None
        return text

    def refuse_tag(self, node: yaml.Node) -> None:
        raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag} is not allowed", node.start_mark)


# PyYAML gives a plain scalar a type by the patterns of its first character. Only the pattern of `<<` is kept, so every
# other scalar is a text.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == _MERGE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag in (_TAG + "seq", _TAG + "map")
}
_Loader.add_constructor(_TAG + "str", _Loader.construct_text)
_Loader.add_constructor(None, _Loader.refuse_tag)
