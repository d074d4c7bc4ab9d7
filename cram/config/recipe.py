"""From words to a config: the defaults of a schema, then a recipe file, then `key=value` words.

Each later source replaces values of the earlier ones. Words and recipes are data: no variable, command or tag in them
is ever expanded. `cram.config.schema` turns a text into a value of the type and range of its key, for words and files.
"""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import Field, asdict
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cram.config.config import Config
from cram.config.consistency import check_config
from cram.config.plan import PLANNED_KEYS
from cram.config.schema import build_config, collect_keys, get_type, parse_list, parse_value
from cram.config.yaml_texts import YamlText, describe_content, read_yaml
from cram.errors import CramError

PACKAGE = Path(__file__).resolve().parents[1]
# An installed package contains the recipes; in a clone they lie beside the package.
RECIPES = PACKAGE / "recipes" if (PACKAGE / "recipes").is_dir() else PACKAGE.parent / "recipes"
YAML_ENDINGS = (".yaml", ".yml")
OUTPUT_KEYS = ("run", "data.dir")  # keys that name a place where a command writes
Schema = TypeVar("Schema")


def read_words(schema: type[Schema], words: list[str]) -> Schema:
    """Return the defaults of a schema, with the values of `key=value` words in their place.

    Raises:
        CramError: a word is not `key=value`, a key is unknown, or a value has the wrong type or is out of range.
    """
    config: Schema = build_config(schema, _parse_words(schema, words))
    return config


def read_config(words: list[str]) -> Config:
    """Return the config of a training: the defaults, then the recipe that `recipe=` names, then the other words.

    Raises:
        CramError: as in `read_words`; the recipe is missing, unknown, broken or chooses a place outside of the working
            folder; or the values of several keys contradict each other.
    """
    word_values = _parse_words(Config, words)
    name = word_values.get("recipe")
    if not name:
        raise CramError(f"recipe= is missing. Give recipe=NAME with one of: {', '.join(recipe_names())}.")
    path = find_recipe(name)
    if not path.stem.strip("."):
        raise CramError(f"recipe={name}: the file needs a name, because the run folder is named after it. Rename it.")
    mapping = read_yaml(path)
    recipe_values = _parse_mapping(Config, mapping, path)
    for key, _, line in _flatten(collect_keys(Config), mapping):
        if key in OUTPUT_KEYS and key not in word_values:
            check_inside_working_folder(recipe_values[key], f"{path}, line {line}: {key}: ", key)
    values = recipe_values | word_values
    config: Config = build_config(Config, values)
    if config.model.size == "auto":
        # The shape in a recipe that does not ask for a plan is what a plan is to replace.
        set_by_user = values if recipe_values.get("model.size") == "auto" else word_values
        config.plan.keep = sorted({*config.plan.keep, *(name for name in PLANNED_KEYS if name in set_by_user)})
    config.recipe = path.stem
    config.run = config.run or f"runs/{path.stem}"
    check_config(config)
    return config


def check_inside_working_folder(place: str | None, where: str, key: str) -> None:
    """Refuse a place outside of the working folder. A file that somebody else wrote must not choose where cram writes.

    Args:
        place: path in the file.
        where: beginning of the message: the file, and the line or key in it.
        key: the key that may name any place in a word of the user.

    Raises:
        CramError: the path is absolute, goes up, or is or crosses a link that leads out of the working folder.
    """
    path, working_folder = Path(place or ""), Path.cwd().resolve()
    goes_down = not path.is_absolute() and ".." not in path.parts
    if not goes_down or not path.resolve().is_relative_to(working_folder):
        raise CramError(
            f"{where}{place} is not inside the working folder, and a file may not choose other places.\n"
            f"To use it all the same, give {key}={place} on the command line."
        )


def keep_last_words(words: Iterable[str]) -> list[str]:
    """Keep only the last of the words with the same key."""
    return list({word.partition("=")[0]: word for word in words}.values())


def load_config(path: Path) -> Config:
    """Read the recipe.yaml of a run folder, which holds every key."""
    return read_mapping(Config, read_yaml(path), path)


def read_mapping(schema: type[Schema], mapping: dict[str, Any], path: Path) -> Schema:
    """Return the defaults of a schema, with the values of a yaml mapping in their place.

    Args:
        schema: a dataclass made of `key` and `group`.
        mapping: as `read_yaml` returns it.
        path: of the file, for messages.

    Raises:
        CramError: a key is unknown or repeated, or a value does not fit. The message names file, line and key.
    """
    config: Schema = build_config(schema, _parse_mapping(schema, mapping, path))
    return config


def format_config(config: Config) -> str:
    """Return the yaml text from which `load_config` makes an equal config.

    The keys that `model.size=auto` is still to choose are left out.
    """
    return yaml.safe_dump(_without_planned(config), sort_keys=False, width=10_000)


def _without_planned(config: Config) -> dict[str, Any]:
    """Give the values of a config by group and key, without those that a plan chooses."""
    values = asdict(config)
    for name in PLANNED_KEYS if config.model.size == "auto" else ():
        if name not in config.plan.keep:
            *groups, key = name.split(".")
            del reduce(getitem, groups, values)[key]
    return values


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with cram."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """Return the file of a recipe.

    Args:
        name: one of `recipe_names()`, or a path that ends in .yaml or .yml.

    Raises:
        CramError: there is no such recipe or file.
    """
    if name.endswith(YAML_ENDINGS):
        path = Path(name)
        if not path.is_file():
            raise CramError(f"recipe={name}: there is no such file.")
        return path
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        names = recipe_names()
        raise CramError(
            f"recipe={name} is unknown.{suggest_nearest(name, names)} Recipes: {', '.join(names)}, "
            "or a path to a yaml file."
        )
    return path


def suggest_nearest(name: str, names: list[str]) -> str:
    """Return ` Nearest: NAME.` with the valid name that is most like an unknown one, or an empty text."""
    # The most frequent mistake is a key without its group: `lr=` for `optimizer.lr=`.
    without_group = [key for key in names if key.rpartition(".")[2] == name]
    nearest = without_group or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" Nearest: {nearest[0]}." if nearest else ""


def _parse_words(schema: type, words: list[str]) -> dict[str, Any]:
    """Return the values of `key=value` words by key. The last word of a repeated key counts."""
    specs, values = collect_keys(schema), {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise CramError(f"'{word}' is not of the form key=value. --help lists the keys.")
        if name not in specs:
            raise CramError(_describe_unknown(name, list(specs), "your words"))
        is_null = text == "null" and get_type(specs[name])[1]
        values[name] = None if is_null else parse_value(name, specs[name], text)
    return values


def _parse_mapping(schema: type, mapping: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the values of a yaml mapping by full name of key."""
    specs, values = collect_keys(schema), {}
    for name, content, line in _flatten(specs, mapping):
        if name not in specs:
            raise CramError(_describe_unknown(name, list(specs), f"{path}, line {line}"))
        if name in values:
            raise CramError(f"{name} is set twice (in {path}, line {line})")
        try:
            values[name] = _parse_content(name, specs[name], content)
        except CramError as error:
            raise CramError(f"{error} (in {path}, line {line})") from None
    return values


def _flatten(names: Iterable[str], mapping: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any, int]]:
    """Yield full name, content and line of every key in a yaml mapping.

    A nested mapping is entered only if its name is a group of keys; else the caller refuses it as a value.
    """
    for part, content in mapping.items():
        name = f"{prefix}{part}"
        if isinstance(content, dict) and any(key.startswith(f"{name}.") for key in names):
            yield from _flatten(names, content, f"{name}.")
        else:
            yield name, content, part.line


def _parse_content(name: str, spec: Field[Any], content: Any) -> Any:
    if isinstance(content, YamlText) and content.is_null and get_type(spec)[1]:
        return None
    if isinstance(content, list):
        return parse_list(name, spec, content)
    if isinstance(content, dict) and spec.metadata["normalize"]:
        return parse_list(name, spec, [content])
    # An empty text counts only in quotes: `layers:` alone has no value.
    if isinstance(content, YamlText) and (content or not content.plain):
        return parse_value(name, spec, content)
    raise CramError(f"{name}: a value is needed, found {describe_content(content)}")


def _describe_unknown(name: str, names: list[str], where: str) -> str:
    groups = {key.rpartition(".")[0] for key in names} - {""}
    if name in groups:
        keys = ", ".join(key for key in names if key.startswith(name + "."))
        return f"'{name}' (in {where}) is a group of keys. Set one of: {keys}."
    return f"unknown key '{name}' (in {where}).{suggest_nearest(name, names)} --help lists the keys."
