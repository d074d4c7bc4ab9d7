"""The command that repeats a run, and what is known to differ in the bytes of its result."""

import shlex
from typing import Any

from cram.config.config import Config
from cram.config.recipe import find_recipe, load_config, recipe_names
from cram.config.schema import collect_keys, get_value
from cram.reporting.page.blocks import Block, Code, Section, Text
from cram.reporting.reading.runs import RunData
from cram.run.history import describe_changes, describe_extension

PYTHON = "python -m cram.train"
# Keys that say where a run is and what its plan had predicted, not what is computed.
LEFT_OUT = {"recipe", "run", "dry_run"}


def list_words(config: Config) -> list[str]:
    """The words that set what a config has beyond its recipe, unquoted: `optimizer.lr=0.002`.

    Args:
        config: of a run. Its recipe is one that comes with cram, or else the defaults take its place.
    """
    base = load_config(find_recipe(config.recipe)) if config.recipe in recipe_names() else Config()
    return [
        f"{name}={_write_value(get_value(config, name))}"
        for name in collect_keys(Config)
        if name not in LEFT_OUT and not name.startswith("plan.") and get_value(config, name) != get_value(base, name)
    ]


def _write_value(value: Any) -> str:
    """Write a value as a word gives it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def repeat_commands(run: RunData) -> list[Code]:
    """The commands that repeat a run in a folder of another name, quoted for a shell."""
    own = f"run={run.folder.parent / run.name}-again"
    short = [f"recipe={run.config.recipe}", *list_words(run.config), own]
    long = [f"recipe={run.folder / 'recipe.yaml'}", f"data.dir={run.config.data.dir}", own]
    commands = [Code(_write_command(long), "With the recipe in the folder of the run")]
    if run.config.recipe in recipe_names():
        commands.insert(0, Code(_write_command(short), "With the recipe that comes with cram"))
    return commands


def _write_command(words: list[str]) -> str:
    """Write a command with a word a line where it is long."""
    quoted = [shlex.quote(word) for word in words]
    line = " ".join((PYTHON, *quoted))
    return line if len(line) <= 100 else " \\\n    ".join((PYTHON, *quoted))


def repeat_section(run: RunData) -> Section:
    """How to repeat a run, and what a repeated run has in common with it."""
    blocks: list[Block] = [*repeat_commands(run), Text(_describe_sameness(run))]
    if extensions := run.told("extensions"):
        told = "; ".join(map(describe_extension, extensions))
        blocks.append(Text(f"The run was {told}. A run that has the longer budget from the beginning differs.", "note"))
    return Section("repeat", "Repeat it", blocks)


def _describe_sameness(run: RunData) -> str:
    """Say what a repeated run has in common with this one, and what not."""
    commit = run.environment.get("commit")
    version = f"cram at commit {commit}" if commit else "the same version of cram"
    clock = run.config.parse_budget().clock
    if clock == "wall":
        return (
            f"With {version}, the same packages and the same data, the first weights and the order of the rows are the "
            "same. The budget is a time, so the number of updates, and with it the schedule, follow the pace of the "
            "machine: the loss comes close, but the bytes differ. A budget of updates repeats to the byte on a CPU."
        )
    if run.figure("bytes_repeat") is False:
        changes = "; ".join(describe_changes(run.told("processes") or [])) or "the number of CPU threads was changed"
        return f"The bytes of this result cannot be repeated by one command: {changes}."
    where = "on the same kind of CPU with as many threads" if run.environment.get("device") == "cpu" else ""
    if where:
        return f"With {version}, the same packages and the same data, {where}, the result is the same to the byte."
    return (
        f"With {version}, the same packages and the same data, the result differs only by the order of sums on the GPU."
    )
