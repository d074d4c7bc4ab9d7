"""A hundred cases of the fuzz proof, and its judgement of outcomes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proofs.fuzz_data import HELD_OUT, read_plainly
from proofs.fuzz_run import Case, Result, call_in_fork, judge_case, run_case

ROOT = Path(__file__).resolve().parents[2]
# All groups but those that train.
GROUPS = ("words", "edges", "recipes", "tables", "data", "tokenizers")
TRACEBACK = "Traceback (most recent call last):\n  ...\nKeyError: 'x'\n"


def make_case(problem: str = "") -> Case:
    return Case("words", "nothing", lambda _: ["train"], lambda *_: problem)


def test_a_hundred_cases_have_no_bad_outcome() -> None:
    words = [sys.executable, "-m", "proofs.fuzz", "cases=107", "seed=1", f"groups={','.join(GROUPS)}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert " 0 of them bad" in answer.stdout


@pytest.mark.parametrize(
    ("result", "problem", "outcome"),
    [
        (Result(2, "", "cram: seed=x: not a number\n", False, 0.1), "", "refused"),
        (Result(2, "", "cram: a\nb\nc\n", False, 0.1), "", "traceback"),
        (Result(2, "", "", False, 0.1), "", "traceback"),
        (Result(0, "", "", False, 0.1), "", "accepted"),
        (Result(0, "", "", False, 0.1), "another value", "accepted wrongly"),
        (Result(1, "", TRACEBACK, False, 0.1), "", "traceback"),
        (Result(0, TRACEBACK, "", False, 0.1), "", "traceback"),
        (Result(1, "", "cram: the disk is full\n", False, 0.1), "", "reported failure"),
        (Result(1, "", "", False, 0.1), "", "traceback"),
        (Result(-11, "", "", False, 0.1), "", "signal"),
        (Result(-9, "", "", True, 60.0), "", "no end"),
    ],
)
def test_outcomes_are_distinguished(result: Result, problem: str, outcome: str, tmp_path: Path) -> None:
    assert judge_case(make_case(problem), tmp_path, result)[0] == outcome


def test_a_case_that_does_not_end_is_killed(tmp_path: Path) -> None:
    def sleep(_: Path) -> list[str]:
        import time

        time.sleep(60)
        return []

    result = run_case(Case("words", "sleeps", sleep, lambda *_: "", patience=0.2), tmp_path / "case")
    assert result.timed_out


def test_a_function_that_dies_in_a_fork_returns_none() -> None:
    assert call_in_fork(lambda: [1, "a", None]) == [1, "a", None]
    assert call_in_fork(lambda: os.kill(os.getpid(), 9)) is None
    assert call_in_fork(lambda: 1 / 0) is None


def test_plain_reading_of_files() -> None:
    assert read_plainly(b"a\r\nb\rc", "file.txt", "line", "text") == ["a", "b", "c"]
    assert read_plainly(b"a\nb\n\n \nc\n", "file.txt", "blank_line", "text") == ["a\nb", "c"]
    assert read_plainly(b'{"text": "a"}\n[]\n{"text": "a", "text": "b"}', "file.jsonl", "file", "text") == [
        "a",
        None,
        "b",
    ]


def test_the_hash_of_the_held_out_text_is_low() -> None:
    from hashlib import sha256

    assert sha256(HELD_OUT.encode()).digest()[:2] == bytes(2)
