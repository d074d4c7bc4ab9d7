"""The benchmark of preparation: it measures every part on a small text, and refuses wrong words."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import checkouts, prepare
from bench.bare_tokenization import tokenize_alone
from bench.checkouts import ROOT, Preparation, prepare_checkout, prepare_in_turns
from bench.prepare import PrepareBenchConfig, compare_checkouts, compare_engines, main
from cram.config.data import WordPieceConfig
from cram.data.wordpiece import train_tokenizer
from cram.errors import CramError


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 300 documents of 40 words."""
    source = random.Random(0)
    syllables = ["ba", "re", "mi", "to", "lu", "ken", "sor", "dal"]
    words = ["".join(source.choices(syllables, k=source.randint(1, 4))) for _ in range(400)]
    path = tmp_path_factory.mktemp("text") / "text.jsonl"
    path.write_text("".join(json.dumps({"text": " ".join(source.choices(words, k=40))}) + "\n" for _ in range(300)))
    return path


def test_every_part(text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This checkout stands beside itself, so the shards must be the same."""
    words = ["rounds=2", "processes=1", "vocab_size=128", f"against={ROOT}", f"out={tmp_path}"]
    main([f"source={text}", *words, "words=[data.filters.compressibility=null]"])
    results = json.loads((tmp_path / "prepare-cpu.json").read_text())
    assert len(results["bare_mb_per_s"]) == len(results["ours"]) == 2
    assert results["ratio"]["median"] > 0
    assert set(results["alone"]["ratios"]) == {"cold", "warm"}
    found = results["checkouts"]
    assert found["same_shards"] and len(found["ours"]) == len(found["against"]) == 2
    assert set(found["ratios"]) >= {"whole", "CPU", "tokenizer", "scan", "pack"}
    run = found["ours"][0]
    assert set(run["checksums"]) == {"tokenizer.json", "shard-00000.safetensors"}
    assert run["cpu_seconds"] > 0 and sum(run["stages"].values()) < run["seconds"]
    assert not Path("/proc/self/status").exists() or 20e6 < run["peak_bytes"] < 2e9
    assert "are the same, byte for byte" in capsys.readouterr().out


def test_other_shards_are_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given: list[list[str]] = []

    def run(_: Path, words: list[str]) -> Preparation:
        given.append(words)
        return Preparation(2.0 if "x=1" in words else 4.0, 1.0, {"scan": 1.0}, None, {"shard": str(words)})

    monkeypatch.setattr(checkouts, "prepare_checkout", run)
    results = compare_checkouts(PrepareBenchConfig("texts", rounds=2, against=str(ROOT), our_words=["x=1"]))
    assert not results["same_shards"] and results["ratios"] == {"whole": 0.5, "work": 1.0, "CPU": 1.0, "scan": 1.0}
    assert "NOT the same" in capsys.readouterr().out
    assert given[0] == [*given[1], "x=1"] and f"data.source={Path.cwd() / 'texts'}" in given[0]


def test_engines_differ_only_in_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []

    def run(root: Path, words: list[str]) -> Preparation:
        assert root == ROOT
        given.append(words)
        return Preparation(9.0, 1.0, {"scan": 3.0, "pack": 1.0}, None, {"shard": "the same"})

    monkeypatch.setattr(checkouts, "prepare_checkout", run)
    results = compare_engines(PrepareBenchConfig("texts", rounds=2))
    assert given[0] == [*given[1], "data.engine=ray", "data.address=local"]
    assert results["same_shards"] and len(results["ray"]) == len(results["local"]) == 2
    assert results["ratios"]["work"] == 1.0


def test_sides_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def run(root: Path, words: list[str]) -> SimpleNamespace:
        seen.append(f"{root} {words[0]}")
        return SimpleNamespace(seconds=1.0, cpu_seconds=1.0, stages={"scan": 1.0}, peak_bytes=None)

    monkeypatch.setattr(checkouts, "prepare_checkout", run)
    prepare_in_turns({"a": Path("A"), "b": Path("B")}, {"a": ["x"], "b": ["y"]}, 3)
    assert seen == ["A x", "B y", "B y", "A x", "A x", "B y"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux reports the peak of a process")
def test_the_peak_is_that_of_the_largest_process_below() -> None:
    large = "import sys, time; ballast = b'x' * 200_000_000; del ballast; print(flush=True); sys.stdin.read()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {large!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        peaks = checkouts._peaks_of_tree(process.pid)
        process.stdin.close()
    assert len(peaks) == 2 and peaks[process.pid] < 50e6
    assert 200e6 < max(peaks.values()) < 300e6
    assert checkouts._peaks_of_tree(process.pid) == {}


def test_the_other_checkout_runs_its_own_code(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "cram", tmp_path / "cram", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "cram" / "prepare.py").write_text("raise SystemExit('the other code')")
    with pytest.raises(CramError, match=r"cram.prepare failed with exit status 1\nthe other code"):
        prepare_checkout(tmp_path, ["recipe=bert_24h"])


def test_tokenization_alone_takes_as_much_text_as_asked(text: Path, tmp_path: Path) -> None:
    texts = [json.loads(line)["text"] for line in text.read_text().splitlines()]
    tokenizer = tmp_path / "tokenizer.json"
    train_tokenizer(texts, WordPieceConfig(vocab_size=128)).save(str(tokenizer))
    for most in (None, 1):
        speeds = tokenize_alone(str(text), str(tokenizer), most)
        assert set(speeds) == {"library", "cold", "warm"} and min(speeds.values()) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "source= is missing"),
        (["source=x", "size=3"], "unknown key 'size'"),
        (
            ["source=x", "parts=[third_pass]"],
            r"parts=\[third_pass\]: not one of second_pass, alone, checkouts, engines",
        ),
        (["source=x", "parts=[checkouts]"], r"give its folder with against=DIR"),
        (["source=x", "against=/"], r"against=/: no file cram/prepare.py in it; give the folder of another checkout"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(CramError, match=message):
        main(words)


@pytest.mark.parametrize("source", ["hf:name", "pydocs", "s3://bucket/*.jsonl"])
def test_only_files_are_named_from_the_working_folder(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert prepare._absolute(source) == source
    assert prepare._absolute("texts/*.jsonl") == str(tmp_path / "texts/*.jsonl")
    assert prepare._absolute("/texts") == "/texts"
