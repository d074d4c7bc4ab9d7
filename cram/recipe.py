"""From words to a config: the schema's defaults, then a recipe file, then `key=value` words."""

import difflib
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException, ValidationError

from cram.config import Config
from cram.errors import CramError

PACKAGE = Path(__file__).resolve().parent
# An installed package has the recipes inside of it, a clone beside it.
RECIPES = PACKAGE / "recipes" if (PACKAGE / "recipes").is_dir() else PACKAGE.parent / "recipes"
Schema = TypeVar("Schema")


def keys(schema: type, prefix: str = "") -> dict[str, Any]:
    """Every settable key of a schema, nested ones dotted, with its dataclass field."""
    found: dict[str, Any] = {}
    for item in fields(schema):
        if is_dataclass(item.type):
            found |= keys(item.type, f"{prefix}{item.name}.")  # type: ignore[arg-type]
        else:
            found[prefix + item.name] = item
    return found


def read_words(schema: type[Schema], words: list[str]) -> Schema:
    """The schema's defaults with `key=value` words on top.

    Errors: CramError for a word that is not `key=value`, an unknown key or a value of the wrong type.
    """
    return _object(_merge(OmegaConf.structured(schema), _dotlist(schema, words), "the command line"))


def read_config(words: list[str]) -> Config:
    """A training config: defaults, then `recipe=` (a name in recipes/ or a path to a yaml file), then the words.

    Errors: CramError as `read_words`, and for a recipe that is missing, unknown or broken.
    """
    said = _dotlist(Config, words)
    name = said.get("recipe")
    if not name:
        raise CramError(f"recipe= is missing. Say recipe=NAME with one of: {', '.join(recipe_names())}.")
    path = find_recipe(str(name))
    config = _merge(OmegaConf.structured(Config), _load_yaml(path), str(path))
    config = _object(_merge(config, said, "the command line"))
    config.recipe = path.stem
    config.run = config.run or f"runs/{path.stem}"
    return config


def load_config(path: Path) -> Config:
    """The resolved config that a run folder keeps as recipe.yaml."""
    return load_yaml(Config, path)


def load_yaml(schema: type[Schema], path: Path) -> Schema:
    """The schema's defaults with a yaml file on top. Errors: CramError for a broken file or an unknown key."""
    return _object(_merge(OmegaConf.structured(schema), _load_yaml(path), str(path)))


def save_config(config: Config) -> str:
    """The yaml text from which `load_config` makes an equal config."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def recipe_names() -> list[str]:
    """Names of the recipes that come with cram."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe given by name or path."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise CramError(f"recipe={name}: there is no such file.")
        return path
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        near = nearest(name, recipe_names())
        raise CramError(
            f"recipe={name} is unknown.{near} Recipes: {', '.join(recipe_names())}, or a path to a yaml file."
        )
    return path


def help_text(schema: type) -> str:
    """The lines of `--help`: each key with its type, default, unit and meaning."""
    rows = [(name, _type_name(item.type), _default(item), _meaning(item)) for name, item in keys(schema).items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) + f"  {row[3]}"
        for row in rows
    )


def _default(item: Any) -> str:
    value = item.default if item.default_factory is MISSING else item.default_factory()
    return "null" if value is None else str(value)


def _type_name(kind: Any) -> str:
    return "choice" if get_origin(kind) is Literal else str(getattr(kind, "__name__", kind))


def _meaning(item: Any) -> str:
    choices = f"{' | '.join(get_args(item.type))}: " if get_origin(item.type) is Literal else ""
    return choices + item.metadata["help"] + (f" [{item.metadata['unit']}]" if item.metadata["unit"] else "")


def _dotlist(schema: type, words: list[str]) -> Any:
    known = keys(schema)
    for word in words:
        name, equals, _ = word.partition("=")
        if not equals:
            raise CramError(f"'{word}' is not of the form key=value. --help lists the keys.")
        if name not in known:
            raise CramError(_unknown(name, list(known), "the command line"))
    try:
        return OmegaConf.from_dotlist(words)
    except yaml.YAMLError as error:
        raise CramError(f"{' '.join(words)}: a value cannot be read ({_line(error)}). Quote it.") from None


def _load_yaml(path: Path) -> Any:
    try:
        loaded = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise CramError(f"{path}: not a readable yaml file ({_line(error)}).") from None
    if not OmegaConf.is_dict(loaded):
        raise CramError(f"{path}: must be a yaml mapping of keys; this file is none.")
    return loaded


def _merge(base: Any, upper: Any, where: str) -> Any:
    try:
        return OmegaConf.merge(base, upper)
    except ConfigKeyError as error:
        raise CramError(_unknown(error.full_key or str(error.key), list(keys(type(_object(base)))), where)) from None
    except ValidationError as error:
        name = f"{error.full_key}: " if error.full_key else ""
        raise CramError(f"{name}{_line(error)} (in {where}). --help shows the type of each key.") from None


def _object(config: Any) -> Any:
    return OmegaConf.to_object(config)


def _unknown(name: str, known: list[str], where: str) -> str:
    groups = sorted({key.rpartition(".")[0] for key in known} - {""})
    if name in groups:
        inside = ", ".join(key for key in known if key.startswith(name + "."))
        return f"'{name}' (in {where}) is a group of keys. Set one of: {inside}."
    return f"unknown key '{name}' (in {where}).{nearest(name, known)} --help lists the keys."


def nearest(name: str, known: list[str]) -> str:
    """` Nearest: NAME.` with the known name that was probably meant; nothing where none is near."""
    # A bare last part is the commonest slip: `lr=` for `optimizer.lr=`.
    tails = [key for key in known if key.rpartition(".")[2] == name]
    near = tails or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Nearest: {near[0]}." if near else ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split("\n    ")[0].split())
