"""Cases of the fuzz proof: recipes and tables of arms, with edited values, lines, bytes and structure."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import yaml

from cram.config.config import Config
from cram.config.recipe import RECIPES
from cram.config.schema import collect_keys, get_type
from proofs.fuzz_run import Case, Result
from proofs.fuzz_words import flatten, is_equal, judge_never_right, parse_plainly, read_printed_config
from proofs.odd_values import ODD_VALUES

RUNS = ["/tmp/x", "../x", "~/x", "runs/../../x", "x", "null", "runs/x/.."]
NOT_COMPARED = ("device", "recipe", "dry_run")  # keys that the command itself gives


def make_recipes(source: random.Random, count: int) -> Iterator[Case]:
    """Yield edited recipe files, for a dry run."""
    texts = [path.read_text() for path in sorted(RECIPES.glob("*.yaml"))]
    for number in range(count):
        data = _edit_yaml(source, source.choice(texts))
        yield Case(
            "recipes", f"recipe {number}: {data[:60]!r}", partial(_make_recipe, data), partial(_judge_recipe, data)
        )


def make_tables(source: random.Random, count: int) -> Iterator[Case]:
    """Yield edited tables of arms. An arm is chosen that no table has, so that every one must be refused."""
    texts = [path.read_text() for path in sorted((RECIPES / "ablations").glob("*.yaml"))]
    for number in range(count):
        data = _edit_yaml(source, source.choice(texts))
        yield Case("tables", f"table {number}: {data[:60]!r}", partial(_make_table, data), judge_never_right)


def _make_recipe(data: bytes, folder: Path) -> list[str]:
    (folder / "mine.yaml").write_bytes(data)
    return ["train", "recipe=mine.yaml", "device=cpu", "--print"]


def _make_table(data: bytes, folder: Path) -> list[str]:
    (folder / "mine.yaml").write_bytes(data)
    return ["ablate", "table=mine.yaml", "arms=[none of these]", "device=cpu"]


def _judge_recipe(data: bytes, folder: Path, result: Result) -> str:
    """The dry run must use the values of the recipe, and its run folder must be inside the working folder."""
    printed, schema = read_printed_config(result), collect_keys(Config)
    try:
        recipe = yaml.load(data.decode("utf-8-sig"), yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return f"was accepted, though it is not valid yaml: {error!s:.60}"
    merged = recipe.pop("<<", {})
    for name, text in flatten({**merged, **recipe}):
        if name in NOT_COMPARED:
            continue
        kind, optional = get_type(schema[name])
        try:
            expected = text if isinstance(text, list) else parse_plainly(kind, optional, text)
        except ValueError:
            expected = None if optional and text in ("", "~") else text
        is_null = optional and text in ("", "~") and printed[name] == "null"
        if not (is_null or isinstance(expected, list) or is_equal(kind, expected, printed[name])):
            return f"{name}: {text!r:.40} was given, and {printed[name]!r:.40} is used"
    run = (folder / printed["run"]).resolve()
    return "" if folder in run.parents else f"the run folder is {printed['run']}"


def _edit_yaml(source: random.Random, text: str) -> bytes:
    lines = text.splitlines()
    for _ in range(source.randrange(1, 4)):
        number = source.randrange(len(lines))
        lines[number : number + 1] = source.choice(_replacements(source, lines[number]))
        lines = lines or ["{}"]
    data = "\n".join(lines).encode("utf-8", "surrogateescape") + b"\n"
    if source.random() < 0.2:
        position = source.randrange(len(data))
        data = data[:position] + bytes([source.randrange(256)]) + data[position + 1 :]
    return source.choice([data] * 8 + [b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r\n")])


def _replacements(source: random.Random, line: str) -> list[list[str]]:
    """The lines that may take the place of a line."""
    key, colon, _ = line.partition(":")
    indent, name = " " * (len(key) - len(key.lstrip())), key.strip()
    value, other_value = source.choice(ODD_VALUES), source.choice(ODD_VALUES)
    return [
        [f"{key}: {value}"] if colon else [value],
        [f"{key}: {other_value}"] if colon else ["x: 1"],
        [f"{key}: !!python/object/apply:os.getcwd []"],
        [f"{key}: &a [*a]", line],
        [line, line],
        [],
        [f"{indent}\t{name}: 1"],
        [f"{indent}run: {source.choice(RUNS)}"],
        [f"{indent}data.dir: {source.choice(['/tmp/x', '..'])}"],
        [f"{indent}<<: {{seed: 3}}"],
        [f"{indent}? [a, b]", f"{indent}: 1"],
        [f"{indent}null: 1"],
        [f"{indent}: 1"],
        [f"{key}: |", f"{indent}  a", f"{indent}  b"],
        [f"{key}: {{" * 30],
        [f"{key}: {'[' * 300}"],
        ["---", line],
        ["%YAML 9.9"],
    ]


GROUPS: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {"recipes": make_recipes, "tables": make_tables}
