"""The main job as a user runs it: from text to an exported model, killed, interrupted and misused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from cram.config.recipe import keep_last_words
from cram.data.inspect.verify import verify_shards
from cram.errors import CramError
from cram.evaluate import main as evaluate
from cram.files.atomic import read_json
from cram.prepare import main as prepare
from cram.run.checksums import RESULT_FILES, START_FILES
from cram.run.metrics import read_metrics
from cram.run.receipt import BUDGET_RULE
from cram.train import main
from cram.training.noise_scale import EVERY
from tests.cram.run.tensorboard_files import check_agreement

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "cram.train"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    """`python -m cram.train` to its end."""
    return subprocess.run(
        COMMAND + keep_last_words(words), capture_output=True, text=True, env=ENVIRONMENT, timeout=200, check=False
    )


def start(words: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        COMMAND + keep_last_words(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    )


def wait_for(condition: object, process: "subprocess.Popen[str]", seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline
        time.sleep(0.005)


def checkpoints(run_folder: Path) -> list[int]:
    folder = run_folder / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit()) if folder.exists() else []


def with_run(words: list[str], folder: Path) -> list[str]:
    return [word for word in words if not word.startswith("run=")] + [f"run={folder}"]


LEARNING = ["budget=200steps", "optimizer.lr=1e-2", "data.epochs=3", "evaluation.interval=0.25"]


@pytest.fixture(scope="module")
def finished(
    tiny_run: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], Path, str]:
    """The words, the folder and the output of a run of 200 updates."""
    folder = tmp_path_factory.mktemp("finished")
    words = keep_last_words([*tiny_run(folder), *LEARNING, "report.live=true"])
    answer = run(words)
    assert answer.returncode == 0, answer.stderr
    return words, folder / "run", answer.stdout


def test_a_run_leaves_all_that_is_promised_and_learns(finished: tuple[list[str], Path, str]) -> None:
    _, folder, said = finished
    for name in (*START_FILES, *RESULT_FILES, "metrics.jsonl", "loss.png", "export/config.json", "export/README.md"):
        assert (folder / name).exists(), name
    assert list((folder / "tensorboard").glob("events.*"))
    receipt = read_json(folder / "receipt.json")
    held_out = receipt["held_out"]
    assert held_out["nats_per_token"] < held_out["unigram_nats_per_token"] - 0.3
    assert receipt["updates"] == 200
    assert receipt["positions"] == 200 * 256
    assert receipt["budget"] == {"clock": "steps", "limit": 200.0, "spent": 200, "overshoot": 0.0, "progress": 1.0}
    assert receipt["repeated_rows"] == max(0, 200 * 8 - receipt["data"]["rows"]) > 0
    assert [line["rule"] for line in receipt["rules"] if not line["passed"]] == ["no sample repeated"]
    noise = receipt["noise_scale"]
    assert (noise["measured_updates"], noise["update_tokens"]) == (200 // EVERY, 256)
    assert noise["trace"] > 0.0
    assert "unigram baseline" in said
    assert [line.split(maxsplit=1)[1] for line in said.splitlines() if line.startswith("fill-mask")] == receipt[
        "examples"
    ]
    assert f"page          {folder}/report.html: open it in a browser" in said.splitlines()
    assert 'http-equiv="refresh"' not in (folder / "report.html").read_text()
    assert receipt["time"]["not_charged"]["report"] > 0.0


def test_metrics_hold_training_and_held_out_lines(finished: tuple[list[str], Path, str]) -> None:
    records = read_metrics(finished[1] / "metrics.jsonl")
    train = [record["step"] for record in records if record["kind"] == "train"]
    assert train == list(range(5, 201, 5))
    assert [record["step"] for record in records if record["kind"] == "held_out"] == [50, 100, 150, 200]


def test_the_same_command_on_a_finished_run_does_nothing(
    finished: tuple[list[str], Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    def times() -> dict[Path, int]:
        files = (path for path in finished[1].rglob("*") if path.is_file() and path.name != ".lock")
        return {path: path.stat().st_mtime_ns for path in files}

    before = times()
    assert main(finished[0]) == 0
    assert "is finished" in capsys.readouterr().out
    assert times() == before


def hub_folder(folder: Path, corpus: Path) -> Path:
    """The tokenizer of a Hub folder as of GPT-2: bytes, and one special token, which is all there is for any role."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train([str(corpus)], trainer)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    roles = {f"{role}_token": "<|endoftext|>" for role in ("bos", "eos", "unk", "pad")}
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **roles}))
    return folder / "tokenizer.json"


@pytest.mark.parametrize(
    ("recipe", "roles"),
    [
        ("gpt_demo", {"eos_token": "<|endoftext|>", "pad_token": "<pad>"}),
        ("bert_demo", {"sep_token": "<|endoftext|>", "pad_token": "<pad>", "mask_token": "<mask>"}),
    ],
)
def test_gpt2s_tokenizer_is_trained_evaluated_and_exported(
    recipe: str,
    roles: dict[str, str],
    tiny_words: list[str],
    tmp_path: Path,
    corpus: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = hub_folder(tmp_path / "hub", corpus)
    words = [f"recipe={recipe}", *tiny_words[1:], "budget=3steps", f"tokenizer={path}"]
    if recipe == "bert_demo":
        with pytest.raises(CramError, match=r"objective.kind=masked needs a mask, .* special.mask=TOKEN"):
            main(words)
        with pytest.raises(CramError, match=r"objective.kind=masked needs a mask"):
            prepare(words)
        words.append("special.mask=<mask>")
    assert main(words) == 0
    data = read_json(tmp_path / "run" / "receipt.json")["data"]
    assert (data["vocab_size"], data["unknown_tokens"], data["lost_characters"]) == (448, 0.0, 0.0)
    (shards,) = (path for path in (tmp_path / "shards").iterdir() if path.is_dir())
    assert verify_shards(shards).vocab_size == 448
    assert evaluate([f"run={tmp_path / 'run'}"]) == 0
    assert "all shown as <mask>)" in capsys.readouterr().out or recipe == "gpt_demo"
    stock = AutoTokenizer.from_pretrained(tmp_path / "run" / "export")
    assert {role: token for role, token in stock.special_tokens_map.items() if role in roles} == roles
    assert stock.decode(stock("The river").input_ids).removesuffix("<|endoftext|>") == "The river"


def test_a_decoder_learns_and_is_evaluated_by_its_own_figures(
    tiny_words: list[str], tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["recipe=gpt_demo", *tiny_words[1:], "budget=100steps", "optimizer.lr=1e-2", "data.epochs=3"]
    assert main(words) == 0
    said = capsys.readouterr().out
    receipt = read_json(tmp_path / "run" / "receipt.json")
    held_out = receipt["held_out"]
    assert held_out["nats_per_token"] < held_out["unigram_nats_per_token"] - 1.0
    assert held_out["bits_per_byte"] < held_out["bigram_bits_per_byte"] - 0.5
    assert held_out["by_position"][0]["nats_per_token"] > held_out["by_position"][-1]["nats_per_token"]
    assert "rules         all kept" in said
    assert "mask_rate" not in held_out and "cramming_rule" not in held_out
    # Each document's first token, [CLS], and the padding are all that no row predicts, and its first token.
    assert 0.85 < receipt["predicted_tokens"] / receipt["positions"] < 1.0
    assert f"bits per byte (bytes' bigram baseline {held_out['bigram_bits_per_byte']:.3f})" in said
    assert 'written       "The capital of France is" -> "' in said
    assert "transformers.pipeline('text-generation', " in said
    for text in ([], [f"text={corpus}"]):
        assert evaluate([f"run={tmp_path / 'run'}", *text]) == 0
        said = capsys.readouterr().out
        assert "bits per byte, accuracy" in said and "tokens predicted (each from those before it)" in said
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert (last["kind"], last["bits_per_byte"]) == ("held_out", held_out["bits_per_byte"])


def test_killed_runs_resume_to_the_same_bytes(tiny_words: list[str], tmp_path: Path) -> None:
    words = [*tiny_words, "budget=200steps", "checkpoint.interval=0.15s", "evaluation.interval=0.1"]
    words += ["averaging.start=0.05", "optimizer.kind=muon", "model.dropout=0.1"]
    straight = tmp_path / "straight"
    assert run(with_run(words, straight)).returncode == 0
    killed = tmp_path / "killed"
    process = start(with_run(words, killed))
    wait_for(lambda: len(checkpoints(killed)) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = run(with_run(words, killed))
    assert resumed.returncode == 0, resumed.stderr
    step = int(resumed.stdout.split("at update ")[1].split(",")[0])
    assert 0 < step < 200
    assert (killed / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    names = ("kind", "step", "loss", "nats_per_token", "noise_scale")
    names += ("lr", "gradient_norm", "mask_rate", "weight_decay", "momentum", "positions", "flops", "progress")
    records = [read_metrics(folder / "metrics.jsonl") for folder in (straight, killed)]
    (resumed_at,) = [record for record in records[1] if record["kind"] == "resume"]
    assert (resumed_at["step"], resumed_at["process"]) == (step, 2) and resumed_at["lost_seconds"] >= 0.0
    records[1].remove(resumed_at)
    figures = [[tuple(record.get(name) for name in names) for record in of_run] for of_run in records]
    assert figures[0] == figures[1]
    check_agreement(killed)
    noise = [read_json(folder / "receipt.json")["noise_scale"] for folder in (straight, killed)]
    assert noise[0] == noise[1]


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tiny_words: list[str], tmp_path: Path) -> None:
    words = [*tiny_words, "budget=200steps", "checkpoint.interval=0.15s"]
    process = start(words)
    wait_for(lambda: len(checkpoints(tmp_path / "run")) >= 2, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    older, newest = checkpoints(tmp_path / "run")
    weights = tmp_path / "run" / "checkpoints" / str(newest) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    resumed = run(words)
    assert resumed.returncode == 0, resumed.stderr
    assert f"checkpoint {newest} is damaged and passed over" in resumed.stdout
    assert f"at update {older}," in resumed.stdout


def test_weights_that_were_loaded_break_the_rule(
    tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(session: Any, _: object) -> None:
        session.state.micro_rows = 4
        with torch.no_grad():
            next(session.parts.model.parameters()).mul_(2.0)

    monkeypatch.setattr("cram.training.start.find_micro_rows", load)
    assert main([*tiny_words, "budget=2steps"]) == 0
    lines = read_json(tmp_path / "run" / "receipt.json")["rules"]
    assert [line["rule"] for line in lines if not line["passed"]] == ["no pretrained weights"]


def test_the_receipt_names_the_file_of_launch_settings(
    tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = {"file": "settings.json", "sha256": "0123456789abcdef", "entries": 3}
    monkeypatch.setattr("cram.machine.device.describe_kernel_settings", lambda _: file)
    assert main([*tiny_words, "budget=2steps"]) == 0
    receipt = read_json(tmp_path / "run" / "receipt.json")
    assert receipt["kernel_settings"] == file
    assert receipt["processes"][0]["kernel_settings"] == "settings.json (0123456789ab)"


def test_a_wall_clock_run_keeps_its_budget_and_measures_the_threads(
    tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word for word in tiny_words if not word.startswith("threads=")]
    monkeypatch.setattr("cram.training.threads.cores", lambda: 2)
    try:
        assert main([*words, "budget=4s", "data.tokens=1000", "data.epochs=50000"]) == 0
    finally:
        torch.set_num_threads(1)
    receipt = read_json(tmp_path / "run" / "receipt.json")
    assert receipt["budget"]["progress"] == 1.0
    kept = next(line for line in receipt["rules"] if line["rule"] == BUDGET_RULE)["passed"]
    assert kept or receipt["stalls"]["number"]  # the machine may be busy
    charged = receipt["time"]["charged"]
    assert charged["compilation"] > 0
    assert charged["probe"] > 0
    assert sum(charged.values()) == pytest.approx(receipt["budget"]["spent"], abs=0.01)
    choices = receipt["thread_choices"]
    assert set(choices[0]["tokens_per_second"]) == {"2", "1"}
    assert receipt["processes"][0]["threads"] == choices[0]["threads"]
    assert receipt["threads"] == choices[-1]["threads"]
    assert receipt["bytes_repeat"] is (len({choice["threads"] for choice in choices}) == 1)
    assert receipt["repeated_rows"] > 0
    assert not next(line for line in receipt["rules"] if line["rule"] == "no sample repeated")["passed"]


def test_a_run_that_diverges_says_so_and_is_not_trained_again(
    tiny_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    words = [*tiny_words, "budget=3steps", "optimizer.kind=adamw", "optimizer.lr=1e39", "log_interval=1"]
    assert main(words) == 1
    first = capsys.readouterr()
    assert first.err == (
        f"cram: run={folder} has no usable model: the weights are not finite; no loss or gradient was finite after "
        "update 1 of 3. Lower optimizer.lr=1e+39 and optimizer.embedding_lr=0.016 and choose another run=.\n"
    )
    assert "held-out loss not finite; unigram baseline" in first.out
    assert "fill-mask" not in first.out and not (folder / "export").exists()
    receipt = read_json(folder / "receipt.json")
    assert receipt["failed"] in first.err and receipt["export"] == "none: the run failed"
    assert receipt["held_out"]["nats_per_token"] is None
    for path in (*folder.rglob("*.json"), folder / "metrics.jsonl"):
        assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()
    written = (folder / "receipt.json").stat().st_mtime_ns
    assert main(words) == 1
    assert capsys.readouterr().err == first.err
    assert (folder / "receipt.json").stat().st_mtime_ns == written
    with pytest.raises(CramError, match="has no usable model: the weights are not finite"):
        evaluate([f"run={folder}"])


def test_data_that_runs_out_is_said_and_the_schedule_still_lands(
    tiny_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*tiny_words, "budget=100000tokens"]) == 0
    said = capsys.readouterr().out
    assert "tokens, about 100,000 needed for the budget: it will run out at about" in said
    assert "data.epochs=" in said
    assert f"not kept: {BUDGET_RULE}" in said
    last = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "train"][-1]
    assert last["progress"] == 1.0
    assert all(rate > 0.0 for rate in last["lr"].values())  # the last update counts


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["budget=10 parsecs"], "budget=10 parsecs is not a valid budget"),
        (["batch.tokens=10000000"], "the corpus is too small for one batch"),
        (["data.source=nowhere/*.txt"], "nowhere/*.txt"),
        (["model.heads=5"], "model.heads=5"),
        (["wordpiece.vocab_size=30016"], "wordpiece.vocab_size"),
        (["checkpoint.interval=soon"], "checkpoint.interval=soon"),
        (["log_interval=0"], "log_interval=0 is out of range: give a number at least 1"),
        (
            ["evaluation.interval=0"],
            "evaluation.interval=0 is out of range: give a number at least 1e-06",
        ),
        (["averaging.start=2"], "averaging.start=2 is out of range: give a number at least 0, below 1, or null"),
        (["faults.patience=0"], "faults.patience=0"),
    ],
)
def test_bad_words_end_with_status_two_and_no_traceback(
    tiny_words: list[str], tmp_path: Path, words: list[str], message: str
) -> None:
    answer = run([*tiny_words, "budget=5steps", *words])
    assert answer.returncode == 2
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr
    assert len(answer.stderr.strip().splitlines()) <= 2
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_run_folder_of_another_recipe_is_refused(finished: tuple[list[str], Path, str]) -> None:
    answer = run([*finished[0], "seed=7"])
    assert answer.returncode == 2
    assert "belongs to another recipe: seed is 0 there, 7 here" in answer.stderr


def test_a_damaged_shard_is_named(tiny_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*tiny_words, "budget=2steps"]) == 0
    assert (
        "not below the baseline, which knows only how frequent each token is: 2 updates are few; 512 tokens are few, "
        "2.7 for each entry of the vocabulary"
    ) in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run")
    shard = next((tmp_path / "shards").glob("*/shard-00000.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    answer = run([*tiny_words, "budget=2steps"])
    assert answer.returncode == 2
    assert "shard-00000.safetensors" in answer.stderr


def test_an_interrupted_preparation_shows_no_shards(tiny_words: list[str], tmp_path: Path) -> None:
    big = tmp_path / "big.jsonl"
    big.write_text((json.dumps({"text": "A river crosses the garden. " * 200}) + "\n") * 20_000)
    process = start([*tiny_words, f"data.source={big}"])
    wait_for(lambda: list((tmp_path / "shards").glob(".*partial*")), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    assert all(path.name.startswith(".") for path in (tmp_path / "shards").iterdir())
