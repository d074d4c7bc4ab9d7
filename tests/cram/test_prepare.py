import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cram import prepare
from cram.command import run_door
from cram.config.commands import ShardsConfig
from cram.config.config import Config
from cram.config.schema import collect_keys
from cram.errors import CramError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[[Path], list[str]]) -> Path:
    """A shard folder, made by the door."""
    where = tmp_path_factory.mktemp("door")
    assert prepare.main(tiny_run(where)) == 0
    (made,) = (path for path in (where / "shards").iterdir() if not path.name.startswith("."))
    return made


def status(words: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit status of the door."""
    monkeypatch.setattr(sys, "argv", ["cram.prepare", *words])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as left:
        run_door(prepare.main, Config, prepare.ABOUT, instead=ShardsConfig)
    return left.value.code


def test_what_was_prepared_is_accounted_for_and_not_made_again(
    tiny_words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = ((prepare.main(tiny_words), capsys.readouterr().out)[1] for _ in range(2))
    assert "scanning: " in first and "scanning: " not in second
    assert first.endswith(second)
    assert len(second.splitlines()) <= 24
    assert re.search(r"^ kept +\d+ +[\d.]+% +\d", second, re.MULTILINE)
    assert re.search(r" tokens \([\d.]+ bytes each\) in [\d,]+ rows x 32 tokens, 1 shard\(s\)\n", second)
    assert "packing best_fit instead: " in second and "time: tokenizer " in second


def test_verify_says_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main([f"verify={folder}"]) == 0
    line = rf"{folder}: [\d,]+ rows, [\d,]+ tokens, 1 shard\(s\): all checksums and rows hold\n"
    assert re.fullmatch(line, capsys.readouterr().out)


def test_verify_and_show_together_verify_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main([f"show={folder}", f"verify={folder}", "row=1"]) == 0
    first, _, row, *_ = capsys.readouterr().out.splitlines()
    assert first.endswith(": all checksums and rows hold")
    assert row.startswith("row 1: 32 tokens of ")


def test_show_shows_and_draws(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main([f"show={folder}"]) == 0
    out = capsys.readouterr().out
    assert "\nrow " in out and out.endswith(f"plots: {folder}/plots/lengths.png, {folder}/plots/tokens.png\n")


def test_damage_is_status_2_with_one_line_that_names_the_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.glob("*.*"):
        (copy / path.name).write_bytes(path.read_bytes())
    shard = copy / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x09")
    assert status([f"verify={copy}"], monkeypatch) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(rf"cram: {shard}: damaged, its sha256 is .*; delete the folder and .*\n", shown.err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify=D", "recipe=bert_demo"], r"recipe= prepares shards, but verify=, show= and row= look at finished"),
        (["data.seq_len=9", "show=D"], r"data.seq_len= prepares shards, .* Use one or the other."),
        (["row=3", "recipe=bert_demo"], r"recipe= prepares shards"),
        (["row=3"], r"row=3 needs show=DIR"),
        (["row=0", "verify=D"], r"row=0 needs show=DIR"),
        (["show="], r"show= is empty: give a path, or leave the word out."),
        (["verify=null"], r"verify= and show= name no shard folder."),
        (["show=D", "rwo=3"], r"unknown key 'rwo' .* Nearest: row"),
        (["show=D", "row=many"], r"row=many cannot be read: give a whole number such as 12, 131_072 or 2e9, or null"),
        (["show=D"], r"D: not a shard folder, it has no manifest.json; run cram.prepare"),
        (["verify=D"], r"D: not a shard folder, it has no manifest.json; run cram.prepare"),
        ([], r"recipe= is missing"),
    ],
)
def test_words_that_do_not_go_together(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status(words, monkeypatch) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) <= 2
    assert re.match(rf"cram: {message}", shown.err)


def test_a_row_out_of_range(folder: Path) -> None:
    row = 1_000_000
    with pytest.raises(CramError, match=rf"row={row}: {folder} does not have this row; its rows are 0 to \d+$"):
        prepare.main([f"show={folder}", f"row={row}"])


def test_help_lists_both_groups_of_keys() -> None:
    command = [sys.executable, "-m", "cram.prepare", "--help"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    first, _, second = out.partition("\nOr, instead of all these:\n")
    assert set(re.findall(r"^  (\S+)", first.partition("key=value:")[2], re.MULTILINE)) == set(collect_keys(Config))
    assert re.findall(r"^  (\S+)", second, re.MULTILINE) == ["verify", "show", "row"]
