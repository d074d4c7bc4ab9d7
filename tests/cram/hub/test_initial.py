"""Runs that begin with the weights of another run or of an export."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cram import train as door
from cram.config.recipe import read_config
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.hub.initial import read_initial
from tests.cram.training.short_runs import STEADY, with_run


@pytest.fixture(scope="module")
def words(tiny_run: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*tiny_run(tmp_path_factory.mktemp("runs")), *STEADY]


@pytest.fixture(scope="module")
def first(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two updates, whose folder is named `run`."""
    folder = tmp_path_factory.mktemp("first") / "run"
    assert door.main([*with_run(words, folder), "budget=2steps"]) == 0
    return folder


def with_init(words: list[str], tmp_path: Path, *more: str) -> list[str]:
    return [*with_run(words, tmp_path / "new"), "model.kind=encoder", "budget=2steps", *more]


def test_a_run_begins_with_the_weights_of_a_run_and_of_its_export(words: list[str], tmp_path: Path) -> None:
    first = tmp_path / "first"
    assert door.main([*with_run(words, first), "model.kind=encoder", "budget=2steps"]) == 0
    state = load_file(first / "model.safetensors")
    for source in (first, first / "export"):
        config = read_config(with_init(words, tmp_path, f"init={source}", f"tokenizer={source}/tokenizer.json"))
        read = read_initial(config)
        assert read.keys() == state.keys()
        assert all(torch.equal(read[name], state[name]) for name in state)
    theirs = [f"init={first}/export", f"tokenizer={first}/export/tokenizer.json", "schedule.kind=linear"]
    assert door.main(with_init(words, tmp_path, *theirs)) == 0
    start = load_file(tmp_path / "new" / "checkpoints" / "0" / "model.safetensors")
    assert all(torch.equal(start[name], state[name]) for name in state)
    receipt = read_json(tmp_path / "new" / "receipt.json")
    line = next(line for line in receipt["rules"] if line["rule"] == "no pretrained weights")
    assert not line["passed"] and line["found"].startswith("began with the weights of first/export, ")
    assert "trained on from the weights of `first/export`" in (tmp_path / "new" / "export" / "README.md").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["model.width=64"], r"does not fit the recipe: embedding.weight is \[192, 32\] there, \[192, 64\] here"),
        (
            ["wordpiece.vocab_size=256"],
            r"without tokenizer= another one would be trained .*tokenizer=.*tokenizer\.json",
        ),
        (["tokenizer={other}"], r"they differ in 'model'.*\n?.*Use tokenizer=.*run/tokenizer\.json"),
        (["init=nowhere"], "init=nowhere is neither a run folder nor an exported folder"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_any_work(
    more: list[str], message: str, words: list[str], first: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    tokenizer = read_json(first / "tokenizer.json")
    other.write_text(json.dumps({**tokenizer, "model": {**tokenizer["model"], "unk_token": "[SEP]"}}))
    said = [*with_run(words, tmp_path / "new"), "budget=2steps", f"init={first}", "data.dir=nowhere"]
    named = {word.partition("=")[0] for word in more}
    said = [word for word in said if word.partition("=")[0] not in named]
    with pytest.raises(CramError, match=message):
        door.main([*said, *(word.format(other=other) for word in more)])
    assert not (tmp_path / "new" / "recipe.yaml").exists() and not Path("nowhere").exists()
