"""The command that repeats a run: read back it gives the same config, whatever a value holds."""

import shlex
from pathlib import Path

import pytest

from cram.config.config import Config
from cram.config.recipe import load_config, read_config
from cram.config.schema import collect_keys, get_value
from cram.reporting.reading.runs import read_run
from cram.reporting.sections.repeat import repeat_commands, repeat_section
from tests.cram.reporting.written_runs import ENVIRONMENT, usual_process, usual_receipt, write_run


def words_of(command: str) -> list[str]:
    """What a shell makes of a command, without `python -m cram.train`."""
    words = shlex.split(command.replace("\\\n", ""))
    assert words[:3] == ["python", "-m", "cram.train"]
    return words[3:]


@pytest.mark.parametrize("recipe", ["bert_demo", "electra_24h", "gpt_auto"])
def test_the_command_gives_the_same_config(tmp_path: Path, recipe: str) -> None:
    words = [f"recipe={recipe}", "optimizer.lr=0.0123", "data.source=my texts/*.txt", "threads=1", "model.size=given"]
    config = read_config([*words, "evaluation.interval=null", "compile.cuda_graphs=true", "run=runs/$(touch it)'s"])
    folder = write_run(tmp_path / "a", config=config)
    begun = load_config(folder / "recipe.yaml")
    for command in repeat_commands(read_run(folder)):
        again = read_config(words_of(command.text))
        differing = {name for name in collect_keys(Config) if get_value(again, name) != get_value(begun, name)}
        assert differing <= {"recipe", "run"}
        assert again.run == f"{folder}-again"


def test_a_recipe_of_the_user_is_taken_from_the_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", config=Config(recipe="mine"))
    (command,) = repeat_commands(read_run(folder))
    assert words_of(command.text)[0] == f"recipe={folder}/recipe.yaml"


OTHER_THREADS = {"processes": [usual_process(), usual_process(9, threads=1)]}


@pytest.mark.parametrize(
    ("budget", "changes", "said"),
    [
        ("100s", {}, "follow the pace of the machine"),
        ("100steps", {}, "the result is the same to the byte"),
        ("100steps", {"bytes_repeat": False} | OTHER_THREADS, "threads 2 until update 9, then 1"),
        ("100steps", {"bytes_repeat": False}, "the number of CPU threads was changed"),
    ],
)
def test_what_a_repeated_run_has_in_common(tmp_path: Path, budget: str, changes: dict[str, object], said: str) -> None:
    config = Config(recipe="bert_demo", budget=budget)
    run = read_run(write_run(tmp_path / "a", config=config, receipt=usual_receipt() | changes))
    assert said in str(repeat_section(run).blocks)


def test_an_extension_is_told(tmp_path: Path) -> None:
    extension = {"clock": "wall", "old_limit": 50.0, "limit": 100.0, "update": 40, "discarded_updates": 0}
    run = read_run(write_run(tmp_path / "a", receipt=usual_receipt() | {"extensions": [extension]}))
    assert "The run was extended from 50s to 100s at update 40." in str(repeat_section(run).blocks)
    assert ENVIRONMENT["commit"] in str(repeat_section(run).blocks)
