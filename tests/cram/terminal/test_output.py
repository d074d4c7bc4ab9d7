import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BEGIN = "import os, sys\nfrom cram.terminal.output import protect_output\nprotect_output()\n"
PRINT = BEGIN + "for number in range(3):\n    print('x' * 9000, flush=number == 1)\nprint('the end')\n"
REPORT = "print(sys.stdout.isatty(), file=sys.stderr)\n"
SAID = "cram: standard output cannot be written ({}). The command goes on without it.\n"


def shell(code: str, where: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python code with redirections of the shell."""
    command = ["bash", "-c", f'"$0" -c "$1" {where}', sys.executable, code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, env=os.environ | environment)


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        (">/dev/full", "No space left on device"),
        ("| true; exit ${PIPESTATUS[0]}", "Broken pipe"),
        (">&-", "it is closed"),
        ("0<&- >&-", "it is closed"),
        ("1</dev/null", "Bad file descriptor"),  # open for reading alone
    ],
)
def test_output_that_cannot_be_written_is_told_once_and_ends_nothing(where: str, reason: str) -> None:
    done = shell("import time; time.sleep(0.2)\n" + PRINT, where)
    assert (done.returncode, done.stderr.decode()) == (0, SAID.format(reason))


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_is_lost_at_the_very_end_is_told_too(unbuffered: str) -> None:
    done = shell(BEGIN + "print('short')", ">/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr.decode()) == (0, SAID.format("No space left on device"))


@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-", ">/dev/full 2>/dev/full", ">&- 2>&-"])
def test_errors_that_nobody_can_read_end_nothing(where: str) -> None:
    done = shell(PRINT + "print('a warning', file=sys.stderr)\nsys.exit(130)", where)
    assert done.returncode == 130
    assert done.stderr == b""
    assert ("the end" in done.stdout.decode()) == where.startswith("2")


def test_output_that_is_well_is_left_alone() -> None:
    done = shell(PRINT + REPORT, "")
    assert done.returncode == 0
    assert done.stdout.decode().splitlines() == ["x" * 9000] * 3 + ["the end"]
    assert done.stderr == b"False\n"


def test_no_file_gets_the_number_of_closed_output(tmp_path: Path) -> None:
    code = BEGIN + f"file = open({str(tmp_path / 'shard')!r}, 'w')\nprint('a line', flush=True)\nos.system('echo more')"
    done = shell(code, "0<&- >&- 2>&-")
    assert done.returncode == 0
    assert (tmp_path / "shard").read_text() == ""


def test_characters_that_an_encoding_lacks_are_escaped() -> None:
    done = shell(BEGIN + "print('\\u2501', '\\udcff')", "", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, b"\\u2501 \\udcff\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_must_not_be_waited_for_is_waited_for(unbuffered: str) -> None:
    code = BEGIN + "os.set_blocking(1, False)\nfor _ in range(40):\n    print('x' * 7999, flush=True)\n" + REPORT
    done = shell(code, "| (sleep 0.3; wc -c); exit ${PIPESTATUS[0]}", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"320000\n", b"False\n")


def test_a_terminal_that_goes_away_ends_nothing() -> None:
    ours, theirs = os.openpty()
    code = (
        BEGIN
        + "print(sys.stdout.isatty(), flush=True)\nsys.stdin.read()\nprint('more')\nsys.stdout.flush()\nsys.exit(7)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    assert os.read(ours, 4) == b"True"
    os.close(ours)
    _, said = child.communicate()
    assert (child.returncode, said.decode()) == (7, SAID.format("Input/output error"))
