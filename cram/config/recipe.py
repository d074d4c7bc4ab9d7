"""From words to a config: the schema's defaults, then a recipe file, then `key=value` words.

A recipe and a word are data: a text key takes what is written as it is written, and nothing in it is ever looked up or
computed. `cram.config.schema` turns a text into a value of the key's type and range, for words and files alike.
"""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import Field, asdict
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cram.config.config import Config
from cram.config.consistency import check_config
from cram.config.schema import build_config, collect_keys, get_type, parse_list, parse_value
from cram.errors import CramError

PACKAGE = Path(__file__).resolve().parents[1]
# An installed package has the recipes inside of it, a clone beside it.
RECIPES = PACKAGE / "recipes" if (PACKAGE / "recipes").is_dir() else PACKAGE.parent / "recipes"
YAML_ENDINGS = (".yaml", ".yml")
OUTPUT_KEYS = ("run", "data.dir")  # keys that name a place where a command writes
Schema = TypeVar("Schema")


def read_words(schema: type[Schema], words: list[str]) -> Schema:
    """The schema's defaults with `key=value` words on top.

    Errors: CramError for a word that is not `key=value`, an unknown key, and a value of the wrong type or out of range.
    """
    config: Schema = build_config(schema, _from_words(schema, words))
    return config


def read_config(words: list[str]) -> Config:
    """A training config: defaults, then `recipe=` (a name in recipes/ or a path to a yaml file), then the words.

    Errors: CramError as `read_words`, for a recipe that is missing, unknown or broken or chooses a place outside of the
    working folder, and for keys that contradict each other.
    """
    said = _from_words(Config, words)
    name = said.get("recipe")
    if not name:
        raise CramError(f"recipe= is missing. Say recipe=NAME with one of: {', '.join(recipe_names())}.")
    path = find_recipe(name)
    if not path.stem.strip("."):
        raise CramError(f"recipe={name}: the file needs a name, which its run folder gets too. Rename it.")
    mapping = read_yaml(path)
    values = _from_mapping(Config, mapping, path)
    for key, _, line in _flat(collect_keys(Config), mapping, ""):
        if key in OUTPUT_KEYS and key not in said:
            check_inside_working_folder(values[key], f"{path}, line {line}: {key}: ", key)
    config: Config = build_config(Config, values | said)
    config.recipe = path.stem
    config.run = config.run or f"runs/{path.stem}"
    check_config(config)
    return config


def check_inside_working_folder(place: str | None, where: str, key: str) -> None:
    """A file that somebody else wrote says nothing about places outside of the folder in which a command is given.

    Args:
        where: the beginning of the message: the file, and the line or key in it.
        key: the word that may name any place.

    Errors: CramError for a path that is absolute, goes up, or is or crosses a link that leads out.
    """
    path, here = Path(place or ""), Path.cwd().resolve()
    inside = not path.is_absolute() and ".." not in path.parts
    if not inside or not path.resolve().is_relative_to(here):
        raise CramError(
            f"{where}{place} is not inside the working folder, and a file may not choose other places.\n"
            f"Say {key}={place} on the command line if you want it."
        )


def keep_last_words(words: Iterable[str]) -> list[str]:
    """Of words with the same key the last one alone, so that later words stand above earlier ones."""
    return list({word.partition("=")[0]: word for word in words}.values())


def load_config(path: Path) -> Config:
    """The resolved config that a run folder keeps as recipe.yaml."""
    return read_mapping(Config, read_yaml(path), path)


def read_mapping(schema: type[Schema], mapping: dict[str, Any], path: Path) -> Schema:
    """The schema's defaults with what a yaml file says on top. Errors: CramError naming the file and the key."""
    config: Schema = build_config(schema, _from_mapping(schema, mapping, path))
    return config


def format_config(config: Config) -> str:
    """The yaml text from which `load_config` makes an equal config."""
    return yaml.safe_dump(asdict(config), sort_keys=False, width=10_000)


def recipe_names() -> list[str]:
    """Names of the recipes that come with cram."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe given by name or path."""
    if name.endswith(YAML_ENDINGS):
        path = Path(name)
        if not path.is_file():
            raise CramError(f"recipe={name}: there is no such file.")
        return path
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        near = suggest_nearest(name, recipe_names())
        raise CramError(
            f"recipe={name} is unknown.{near} Recipes: {', '.join(recipe_names())}, or a path to a yaml file."
        )
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    """A yaml file as mappings, lists and texts: every value is the text that stands in the file.

    Errors: CramError naming file and line for what is not readable, no mapping, has a key twice or a tag.
    """
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise CramError(f"{path}: not a readable yaml file ({_reason(error)}).") from None
    if not isinstance(loaded, dict):
        raise CramError(f"{path}: must be a yaml mapping of keys, found {_what(loaded)}.")
    return loaded


def suggest_nearest(name: str, known: list[str]) -> str:
    """` Nearest: NAME.` with the known name that was probably meant; nothing where none is near."""
    # A bare last part is the commonest slip: `lr=` for `optimizer.lr=`.
    tails = [key for key in known if key.rpartition(".")[2] == name]
    near = tails or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Nearest: {near[0]}." if near else ""


def _from_words(schema: type, words: list[str]) -> dict[str, Any]:
    """The values of some words by the names of their keys; of a repeated key the last one."""
    known, found = collect_keys(schema), {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise CramError(f"'{word}' is not of the form key=value. --help lists the keys.")
        if name not in known:
            raise CramError(_unknown(name, list(known), "the command line"))
        empty = text == "null" and get_type(known[name])[1]
        found[name] = None if empty else parse_value(name, known[name], text)
    return found


def _from_mapping(schema: type, mapping: dict[str, Any], path: Path) -> dict[str, Any]:
    """The values of a yaml mapping by the dotted names of their keys."""
    known, found = collect_keys(schema), {}
    for name, value, line in _flat(known, mapping, ""):
        if name not in known:
            raise CramError(_unknown(name, list(known), f"{path}, line {line}"))
        if name in found:
            raise CramError(f"{name}: is there twice (in {path}, line {line})")
        try:
            found[name] = _value(name, known[name], value)
        except CramError as error:
            raise CramError(f"{error} (in {path}, line {line})") from None
    return found


def _flat(known: Iterable[str], mapping: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any, int]]:
    """Dotted name, value and line of what stands in a mapping."""
    for part, value in mapping.items():
        name = f"{prefix}{part}"
        if isinstance(value, dict) and any(key.startswith(f"{name}.") for key in known):
            yield from _flat(known, value, f"{name}.")
        else:
            yield name, value, part.line


def _value(name: str, item: Field[Any], value: Any) -> Any:
    if isinstance(value, _Text) and value.plain and value in NULLS and get_type(item)[1]:
        return None
    if isinstance(value, list):
        return parse_list(name, item, value)
    if isinstance(value, _Text) and (value or not value.plain):
        return parse_value(name, item, value)
    raise CramError(f"{name}: a value is needed, found {_what(value)}")


def _unknown(name: str, known: list[str], where: str) -> str:
    groups = sorted({key.rpartition(".")[0] for key in known} - {""})
    if name in groups:
        inside = ", ".join(key for key in known if key.startswith(name + "."))
        return f"'{name}' (in {where}) is a group of keys. Set one of: {inside}."
    return f"unknown key '{name}' (in {where}).{suggest_nearest(name, known)} --help lists the keys."


def _what(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f"'{value}'" if value else "nothing"


def _reason(error: Exception) -> str:
    """What is wrong with a yaml file, and in which line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


class _Text(str):
    """A key or value with its line in the file; `plain` without quotes, so that it may stand for null."""

    line: int
    plain: bool


class _Loader(yaml.SafeLoader):
    """Reads every value as a text. Merge keys work; tags and repeated keys are refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if key.value in names:
                    what = f"the key '{key.value}' is there twice"
                    raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
                names.add(key.value)
        return super().construct_mapping(node, deep)

    def text(self, node: yaml.ScalarNode) -> str:
        text = _Text(node.value)
        text.line, text.plain = node.start_mark.line + 1, node.style is None
        return text

    def refuse(self, node: yaml.Node) -> None:
        raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag} is not allowed", node.start_mark)


TAG = "tag:yaml.org,2002:"
MERGE = TAG + "merge"
NULLS = ("null", "~", "")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == MERGE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: maker for tag, maker in yaml.SafeLoader.yaml_constructors.items() if tag in (TAG + "seq", TAG + "map")
}
_Loader.add_constructor(TAG + "str", _Loader.text)
_Loader.add_constructor(None, _Loader.refuse)
