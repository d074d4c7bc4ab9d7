"""A hundred cases of the fuzz proof, and whether it tells the outcomes apart."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proofs.fuzz_data import ANCHOR, read_plainly
from proofs.fuzz_run import Case, Result, apart, outcome_of, run_case

ROOT = Path(__file__).resolve().parents[2]
# All but those that train.
GROUPS = ("words", "edges", "recipes", "tables", "data", "tokenizers")
TRACE = "Traceback (most recent call last):\n  ...\nKeyError: 'x'\n"


def case(judged: str = "") -> Case:
    return Case("words", "nothing", lambda _: ["train"], lambda *_: judged)


def test_a_hundred_cases_have_no_bad_outcome() -> None:
    words = [sys.executable, str(ROOT / "proofs" / "fuzz.py"), "cases=107", "seed=1", f"groups={','.join(GROUPS)}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 of them bad" in done.stdout


@pytest.mark.parametrize(
    ("result", "judged", "outcome"),
    [
        (Result(2, "", "cram: seed=x: not a number\n", False, 0.1), "", "refused"),
        (Result(2, "", "cram: a\nb\nc\n", False, 0.1), "", "traceback"),
        (Result(2, "", "", False, 0.1), "", "traceback"),
        (Result(0, "", "", False, 0.1), "", "accepted"),
        (Result(0, "", "", False, 0.1), "another value", "accepted wrongly"),
        (Result(1, "", TRACE, False, 0.1), "", "traceback"),
        (Result(0, TRACE, "", False, 0.1), "", "traceback"),
        (Result(1, "", "cram: the disk is full\n", False, 0.1), "", "failed as said"),
        (Result(1, "", "", False, 0.1), "", "traceback"),
        (Result(-11, "", "", False, 0.1), "", "signal"),
        (Result(-9, "", "", True, 60.0), "", "no end"),
    ],
)
def test_outcomes_are_told_apart(result: Result, judged: str, outcome: str, tmp_path: Path) -> None:
    assert outcome_of(case(judged), tmp_path, result)[0] == outcome


def test_a_case_that_does_not_end_is_ended(tmp_path: Path) -> None:
    def sleep(_: Path) -> list[str]:
        import time

        time.sleep(60)
        return []

    result = run_case(Case("words", "sleeps", sleep, lambda *_: "", patience=0.2), tmp_path / "case")
    assert result.late


def test_what_dies_apart_gives_nothing() -> None:
    assert apart(lambda: [1, "a", None]) == [1, "a", None]
    assert apart(lambda: os.kill(os.getpid(), 9)) is None
    assert apart(lambda: 1 / 0) is None


def test_files_are_read_plainly() -> None:
    assert read_plainly(b"a\r\nb\rc", "file.txt", "line", "text") == ["a", "b", "c"]
    assert read_plainly(b"a\nb\n\n \nc\n", "file.txt", "blank_line", "text") == ["a\nb", "c"]
    assert read_plainly(b'{"text": "a"}\n[]\n{"text": "a", "text": "b"}', "file.jsonl", "file", "text") == [
        "a",
        None,
        "b",
    ]


def test_the_hash_of_the_anchor_is_low() -> None:
    from hashlib import sha256

    assert sha256(ANCHOR.encode()).digest()[:2] == bytes(2)
