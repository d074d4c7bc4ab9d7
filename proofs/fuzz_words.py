"""Cases of the fuzz proof: words, keys at their edges, recipes and tables.

What was typed is read here by rules of its own (decimal numbers, `yaml.BaseLoader`), never by the code under trial.
"""

import math
import random
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

from cram.config.commands import AblateConfig, EvaluateConfig, ExportConfig, GlueConfig
from cram.config.config import Config
from cram.config.recipe import RECIPES
from cram.config.schema import keys, kind_of
from proofs.fuzz_run import Case, Result

DOORS: dict[str, type] = {
    "train": Config,
    "prepare": Config,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
    "glue": GlueConfig,
    "ablate": AblateConfig,
}
ODD = (
    "", " ", "null", "~", "None", "true", "True", "yes", "on", "0", "-0", "1", "-1", "+1", "01", "010", "0x10", "0o7",
    "0b1", "1_000", "1__0", "_1", "1_", "1.", ".5", "1.0", "1e3", "1E3", "1e-3", "1e", "1e+400", "1e-400", "1e20",
    "1e308", "-1e308", "nan", ".nan", "inf", ".inf", "-.inf", "Infinity", "1:30", "12:30:00", "2001-01-01", "???",
    "${oc.env:HOME}", "${seed}", "$HOME", "`id`", "$(id)", "{}", "{a: 1}", "[]", "[1", "[1,2]", "[a]", "[[1]]", "- 1",
    "!!python/name:os.system", "!!int 3", "&a 1", "*a", "<<", "#", "a: b", "a #b", "'1'", '"1"', "'", '"', "\\", "\\n",
    "\n", "\t1", "1 ", "\x00", "\x1b[31m", "\u202e", "é", "日本", "１２", "٣", "½", "𝟙", "\udcff",
    "..", "../..", "/", ".",
    "~", "~nobody", "-", "--", "=", "a=b", "%s", "%n", "9" * 400, "1." + "0" * 400, "x" * 5000, "1e99999999999",
    "123456789012345678901234567890", "1/2", "1,5", "1 000", "1e3.5", "true ", "TRUE", "cpu", "cuda", "mps", "hf:",
)  # fmt: skip
NAMES = (
    "", "=", "seed", "Seed", "seed ", " seed", "model", "model.", ".seed", "model..layers", "model.layers.x", "sed",
    "model.layer", "lr", "__class__", "model.__dict__", "run.x", "é", "\udcff", "\n", "--seed", "-h=",
    "recipe", "x" * 3000,
)  # fmt: skip
TINY = ["recipe=bert_demo", "device=cpu", "threads=1", "--print"]


def typed(kind: Any, optional: bool, text: str) -> Any:
    """What a text stands for, as a person reads it. Errors: ValueError where it stands for nothing of the kind."""
    if text == "null" and optional:
        return None
    if get_origin(kind) is list:
        inner = text.strip()[1:-1] if text.strip().startswith("[") and text.strip().endswith("]") else text
        return [typed(get_args(kind)[0], False, part.strip()) for part in inner.split(",")] if inner.strip() else []
    if kind is bool:
        return {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else _nothing(text)
    if kind in (int, float):
        if not text.isascii() or text != text.strip() or (not text[-1:].isalnum() and text[-1:] != "."):
            _nothing(text)
        try:
            number = Decimal(text.replace("_", ""))
        except InvalidOperation:
            _nothing(text)
        if not number.is_finite() or (kind is int and number != number.to_integral_value()):
            _nothing(text)
        return int(number) if kind is int else float(number)
    return text


def _nothing(text: str) -> Any:
    raise ValueError(text)


def equal(kind: Any, wanted: Any, there: Any) -> bool:
    """Whether the text of a printed yaml value is the wanted value."""
    if wanted is None:
        return there == "null"
    if isinstance(wanted, list):
        return len(there) == len(wanted) and all(
            equal(get_args(kind)[0], one, other) for one, other in zip(wanted, there, strict=True)
        )
    if isinstance(wanted, bool):
        return there == str(wanted).lower()
    if isinstance(wanted, int):
        return Decimal(there) == wanted
    if isinstance(wanted, float):
        return float(there) == wanted
    return there in (wanted, _at_home(wanted))


def _at_home(text: str) -> str:
    """A path whose leading `~` is the home folder; as it is where there is no such home."""
    try:
        return str(Path(text).expanduser()) if text.startswith("~") else text
    except RuntimeError:
        return text


def in_force(result: Result) -> dict[str, Any]:
    """The values that a dry run has printed, as texts by dotted name."""
    text = result.out.partition("\n\nmodel ")[0]
    return dict(_flat(yaml.load(text, yaml.BaseLoader), ""))


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, one in value.items():
        if isinstance(one, dict):
            yield from _flat(one, f"{prefix}{name}.")
        else:
            yield prefix + name, one


def judge_words(said: dict[str, str]) -> Callable[[Path, Result], str]:
    """The rule for words of a dry run: the value in force is the one that was typed."""

    def judge(_: Path, result: Result) -> str:
        there, known = in_force(result), keys(Config)
        for name, text in said.items():
            kind, optional = kind_of(known[name])
            try:
                wanted = typed(kind, optional, text)
            except ValueError:
                return f"{name}={text!r:.40} was taken, as {there.get(name)!r:.40}"
            default = name == "run" and wanted is None and there[name] == "runs/bert_demo"
            if name != "recipe" and not default and not equal(kind, wanted, there[name]):
                return f"{name}={text!r:.40} is {there[name]!r:.40} in force"
        return ""

    return judge


def never(_: Path, result: Result) -> str:
    """The rule where nothing can be right."""
    return f"was accepted: {result.out[-80:]!r}"


def words(source: random.Random, count: int) -> Iterator[Case]:
    """Odd values for any key, odd names, repeated and broken words, of every door."""
    known = {door: list(keys(schema)) + (["verify", "show", "row"] if door == "prepare" else [])
             for door, schema in DOORS.items()}  # fmt: skip
    for _ in range(count):
        door = source.choice(["train"] * 5 + list(DOORS))
        name = source.choice(known[door]) if source.random() < 0.9 else source.choice(NAMES)
        text = source.choice(ODD) if source.random() < 0.8 else _mixed(source)
        word = f"{name}={text}" if source.random() < 0.95 else name
        beside = [f"{source.choice(known[door])}={source.choice(ODD)}"] if source.random() < 0.2 else []
        yield word_case("words", door, [word, *beside])


def _mixed(source: random.Random) -> str:
    return "".join(source.choice(["1", "e", ".", "-", "_", "0", " ", "x", ":", "[", "]", ",", "$", "{", "}", "\n", "é"])
                   for _ in range(source.randrange(1, 9)))  # fmt: skip


def word_case(group: str, door: str, said: list[str]) -> Case:
    """A command with these words; train says what it would do, the others have nothing that they could do."""
    names = [word.partition("=")[0] for word in said]
    if door == "train":
        base = [word for word in TINY if word.partition("=")[0] not in names]
        values = {name: word.partition("=")[2] for name, word in zip(names, said, strict=True)}
        sound = len(set(names)) == len(names) and all("=" in word for word in said) and set(names) <= set(keys(Config))
        judge = judge_words(values) if sound else never
        return Case(group, " ".join(map(repr, said))[:200], lambda _: [door, *base, *said], judge)
    # Nothing is there that these could take, so that whatever they are told they must refuse it.
    sources = {"prepare": ["recipe=bert_demo", "data.source=nothing/*.txt"], "ablate": ["table=nothing.yaml"]}
    base = [word for word in sources.get(door, ["run=nothing"]) if word.partition("=")[0] not in names]
    return Case(group, f"{door} " + " ".join(map(repr, said))[:200], lambda _: [door, *base, *said], refused_or_empty)


def refused_or_empty(folder: Path, result: Result) -> str:
    """The rule for a door that has nothing to work on: help may be printed, and nothing is written."""
    left = [path.name for path in folder.iterdir()]
    return f"wrote {left}" if left or "Traceback" in result.out else ""


def edges(_: random.Random, count: int) -> Iterator[Case]:
    """Every key of a recipe at the edges of its range, just outside, and far outside."""
    cases = []
    for name, item in keys(Config).items():
        kind, _ = kind_of(item)
        inner = get_args(kind)[0] if get_origin(kind) is list else kind
        values = ["null", "", "x", "[]", "[1,2]", "1:30", "???", "${seed}", ".inf", "nan", "true"]
        if inner in (int, float):
            scope = item.metadata["range"]
            for bound in (scope.least, scope.above, scope.most, scope.below, 0, 1):
                if bound is not None:
                    step = 1 if inner is int else math.ulp(bound)
                    values += [_text(inner, bound + step * shift) for shift in (-1, 0, 1)]
            values += ["-1", "-0", "0.5", "1e12", "1e20", "1e308", "1e400", "-1e308", "1e-320", "9" * 300]
        elif get_args(inner):
            values += [*get_args(inner), get_args(inner)[0].upper(), f" {get_args(inner)[0]}"]
        cases += [word_case("edges", "train", [f"{name}={value}"]) for value in dict.fromkeys(values)]
    yield from cases[:count]


def _text(kind: Any, value: float) -> str:
    return str(int(value)) if kind is int and float(value).is_integer() else repr(float(value))


def recipes(source: random.Random, count: int) -> Iterator[Case]:
    """Recipe files with edited values, lines, bytes and structure."""
    texts = [path.read_text() for path in sorted(RECIPES.glob("*.yaml"))]
    for number in range(count):
        data = _edited_yaml(source, source.choice(texts))
        yield Case("recipes", f"recipe {number}: {data[:60]!r}", _recipe_maker(data), _judge_recipe(data))


def _recipe_maker(data: bytes) -> Callable[[Path], list[str]]:
    def make(folder: Path) -> list[str]:
        (folder / "mine.yaml").write_bytes(data)
        return ["train", "recipe=mine.yaml", "device=cpu", "--print"]

    return make


def _judge_recipe(data: bytes) -> Callable[[Path, Result], str]:
    def judge(folder: Path, result: Result) -> str:
        there, known = in_force(result), keys(Config)
        try:
            loaded = yaml.load(data.decode("utf-8-sig"), yaml.BaseLoader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            return f"taken, though it is not valid yaml: {error!s:.60}"
        merged = loaded.pop("<<", {})
        for name, text in _flat({**merged, **loaded}, ""):
            if name in ("device", "recipe", "dry_run"):
                continue
            kind, optional = kind_of(known[name])
            try:
                wanted = text if isinstance(text, list) else typed(kind, optional, text)
            except ValueError:
                wanted = None if optional and text in ("", "~") else text
            empty = optional and text in ("", "~") and there[name] == "null"
            if not (empty or isinstance(wanted, list) or equal(kind, wanted, there[name])):
                return f"{name}: {text!r:.40} is {there[name]!r:.40} in force"
        run = (folder / there["run"]).resolve()
        return "" if folder in run.parents else f"the run folder is {there['run']}"

    return judge


def _edited_yaml(source: random.Random, text: str) -> bytes:
    lines = text.splitlines()
    for _ in range(source.randrange(1, 4)):
        at = source.randrange(len(lines))
        key, colon, _ = lines[at].partition(":")
        indent = " " * (len(key) - len(key.lstrip()))
        lines[at : at + 1] = source.choice([
            [f"{key}: {source.choice(ODD)}"] if colon else [source.choice(ODD)],
            [f"{key}: {source.choice(ODD)}"] if colon else ["x: 1"],
            [f"{key}: !!python/object/apply:os.getcwd []"],
            [f"{key}: &a [*a]", lines[at]], [lines[at], lines[at]], [], [f"{indent}\t{key.strip()}: 1"],
            [f"{indent}run: {source.choice(['/tmp/x', '../x', '~/x', 'runs/../../x', 'x', 'null', 'runs/x/..'])}"],
            [f"{indent}<<: {{seed: 3}}"], [f"{indent}? [a, b]", f"{indent}: 1"], [f"{indent}null: 1"], [f"{indent}: 1"],
            [f"{key}: |", f"{indent}  a", f"{indent}  b"], [f"{key}: {{" * 30], ["---", lines[at]], ["%YAML 9.9"],
            [f"{indent}data.dir: {source.choice(['/tmp/x', '..'])}"], [f"{key}: {'[' * 300}"],
        ])  # fmt: skip
        lines = lines or ["{}"]
    data = "\n".join(lines).encode("utf-8", "surrogateescape") + b"\n"
    if source.random() < 0.2:
        at = source.randrange(len(data))
        data = data[:at] + bytes([source.randrange(256)]) + data[at + 1 :]
    return source.choice([data] * 8 + [b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r\n")])


def tables(source: random.Random, count: int) -> Iterator[Case]:
    """Ablation tables, edited likewise; an arm that there is not is asked for, so that all must be refused."""
    texts = [path.read_text() for path in sorted((RECIPES / "ablations").glob("*.yaml"))]
    for number in range(count):
        data = _edited_yaml(source, source.choice(texts))

        def make(folder: Path, data: bytes = data) -> list[str]:
            (folder / "mine.yaml").write_bytes(data)
            return ["ablate", "table=mine.yaml", "arms=[none of these]", "device=cpu"]

        yield Case("tables", f"table {number}: {data[:60]!r}", make, never)


GROUPS: dict[str, Callable[[random.Random, int], Iterator[Case]]] = {
    "words": words,
    "edges": edges,
    "recipes": recipes,
    "tables": tables,
}
