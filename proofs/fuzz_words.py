"""Cases of the fuzz proof: odd words, and keys at the edges of their ranges.

Rules of this module (decimal numbers, `yaml.BaseLoader`) say what a word means, never the code that is tested.
"""

import math
import random
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

import yaml

from cram.config.commands import AblateConfig, EvaluateConfig, ExportConfig, GlueConfig, ShardsConfig
from cram.config.config import Config
from cram.config.schema import collect_keys, get_type
from proofs.fuzz_run import Case, Result
from proofs.odd_values import ODD_NAMES, ODD_VALUES

SCHEMAS: dict[str, type] = {
    "train": Config,
    "prepare": Config,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "glue": GlueConfig,
    "ablate": AblateConfig,
}
CHARACTERS = ["1", "e", ".", "-", "_", "0", " ", "x", ":", "[", "]", ",", "$", "{", "}", "\n", "é"]
DRY_RUN = ["recipe=bert_demo", "device=cpu", "threads=1", "--print"]


def parse_plainly(kind: Any, optional: bool, text: str) -> Any:
    """Return the value that a person reads in a text.

    Args:
        kind: type of the key.
        optional: whether the key may be null.
        text: of the word.

    Raises:
        ValueError: the text does not stand for a value of this type.
    """
    if text == "null" and optional:
        return None
    if get_origin(kind) is list:
        inner = text.strip()[1:-1] if text.strip().startswith("[") and text.strip().endswith("]") else text
        parts = inner.split(",") if inner.strip() else []
        return [parse_plainly(get_args(kind)[0], False, part.strip()) for part in parts]
    if kind is bool:
        return {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else _refuse(text)
    return _parse_number(kind, text) if kind in (int, float) else text


def _parse_number(kind: Any, text: str) -> float:
    if not text.isascii() or text != text.strip() or (not text[-1:].isalnum() and text[-1:] != "."):
        _refuse(text)
    try:
        number = Decimal(text.replace("_", ""))
    except InvalidOperation:
        _refuse(text)
    if not number.is_finite() or (kind is int and number != number.to_integral_value()):
        _refuse(text)
    return int(number) if kind is int else float(number)


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)


def is_equal(kind: Any, expected: Any, printed: Any) -> bool:
    """Whether the text of a printed yaml value stands for the expected value."""
    if expected is None:
        return bool(printed == "null")
    if isinstance(expected, list):
        pairs = zip(expected, printed, strict=False)
        return len(printed) == len(expected) and all(is_equal(get_args(kind)[0], *pair) for pair in pairs)
    if isinstance(expected, bool):
        return bool(printed == str(expected).lower())
    if isinstance(expected, int):
        return bool(Decimal(printed) == expected)
    if isinstance(expected, float):
        return bool(float(printed) == expected)
    return printed in (expected, _expand_home(expected))


def _expand_home(text: str) -> str:
    """A path with the home folder in place of a leading `~`; unchanged if there is no such home."""
    try:
        return str(Path(text).expanduser()) if text.startswith("~") else text
    except RuntimeError:
        return text


def read_printed_config(result: Result) -> dict[str, Any]:
    """Return the values that a dry run has printed, as texts by dotted name."""
    text = result.out.partition("\n\nmodel ")[0]
    return dict(flatten(yaml.load(text, yaml.BaseLoader)))


def flatten(mapping: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted names and the values of nested mappings."""
    for name, value in mapping.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _judge_words(texts: dict[str, str], _: Path, result: Result) -> str:
    """The rule for a dry run: it uses the values that were given."""
    printed, schema = read_printed_config(result), collect_keys(Config)
    for name, text in texts.items():
        kind, optional = get_type(schema[name])
        try:
            expected = parse_plainly(kind, optional, text)
        except ValueError:
            return f"{name}={text!r:.40} was accepted, as {printed.get(name)!r:.40}"
        is_default_run = name == "run" and expected is None and printed[name] == "runs/bert_demo"
        if name != "recipe" and not is_default_run and not is_equal(kind, expected, printed[name]):
            return f"{name}={text!r:.40} was given, and {printed[name]!r:.40} is used"
    return ""


def judge_never_right(_: Path, result: Result) -> str:
    """The rule for words that no command may accept."""
    return f"was accepted: {result.out[-80:]!r}"


def _judge_without_inputs(folder: Path, result: Result) -> str:
    """The rule for a door that has no inputs: help may be printed, and nothing may be written."""
    names = [path.name for path in folder.iterdir()]
    return f"wrote {names}" if names or "Traceback" in result.out else ""


def make_words(source: random.Random, count: int) -> Iterator[Case]:
    """Yield odd values of any key, odd names, and repeated and broken words, for every door."""
    names = {door: list(collect_keys(schema)) for door, schema in SCHEMAS.items()}
    names["prepare"] += list(collect_keys(ShardsConfig))
    for _ in range(count):
        door = source.choice(["train"] * 5 + list(SCHEMAS))
        name = source.choice(names[door]) if source.random() < 0.9 else source.choice(ODD_NAMES)
        text = source.choice(ODD_VALUES) if source.random() < 0.8 else _make_text(source)
        word = f"{name}={text}" if source.random() < 0.95 else name
        second = [f"{source.choice(names[door])}={source.choice(ODD_VALUES)}"] if source.random() < 0.2 else []
        yield make_case("words", door, [word, *second])


def _make_text(source: random.Random) -> str:
    return "".join(source.choice(CHARACTERS) for _ in range(source.randrange(1, 9)))


def make_case(group: str, door: str, words: list[str]) -> Case:
    """Make a case from words: a dry run of `train`, or another door that has no inputs and must refuse all words."""
    names = [word.partition("=")[0] for word in words]
    about = f"{door} " * (door != "train") + " ".join(map(repr, words))[:200]
    if door == "train":
        others = [word for word in DRY_RUN if word.partition("=")[0] not in names]
        texts = {name: word.partition("=")[2] for name, word in zip(names, words, strict=True)}
        is_valid = (
            len(texts) == len(names) and all("=" in word for word in words) and set(names) <= set(collect_keys(Config))
        )
        judge = partial(_judge_words, texts) if is_valid else judge_never_right
        return Case(group, about, lambda _: [door, *others, *words], judge)
    inputs = {"prepare": ["recipe=bert_demo", "data.source=nothing/*.txt"], "ablate": ["table=nothing.yaml"]}
    others = [word for word in inputs.get(door, ["run=nothing"]) if word.partition("=")[0] not in names]
    return Case(group, about, lambda _: [door, *others, *words], _judge_without_inputs)


def make_edges(_source: random.Random, count: int) -> Iterator[Case]:
    """Yield every key of a recipe with values at the edges of its range, just outside, and far outside."""
    cases = []
    for name, item in collect_keys(Config).items():
        kind, _ = get_type(item)
        element = get_args(kind)[0] if get_origin(kind) is list else kind
        values = ["null", "", "x", "[]", "[1,2]", "1:30", "???", "${seed}", ".inf", "nan", "true"]
        if element in (int, float):
            scope = item.metadata["range"]
            bounds = [scope.least, scope.above, scope.most, scope.below, 0, 1]
            values += [text for bound in bounds if bound is not None for text in _values_around(element, bound)]
            values += ["-1", "-0", "0.5", "1e12", "1e20", "1e308", "1e400", "-1e308", "1e-320", "9" * 300]
        elif get_args(element):
            choices = get_args(element)
            values += [*choices, choices[0].upper(), f" {choices[0]}"]
        cases += [make_case("edges", "train", [f"{name}={value}"]) for value in dict.fromkeys(values)]
    yield from cases[:count]


def _values_around(kind: Any, bound: float) -> list[str]:
    """A bound, and the numbers directly below and above it, as texts."""
    step = 1 if kind is int else math.ulp(bound)
    numbers = (bound - step, bound, bound + step)
    return [
        str(int(number)) if kind is int and float(number).is_integer() else repr(float(number)) for number in numbers
    ]


GROUPS: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {"words": make_words, "edges": make_edges}
