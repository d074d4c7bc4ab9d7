"""First light on a CPU: every step runs at tiny sizes, and steps that fail, take too long or are cut off are said."""

import importlib
import os
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from bench import first_light, first_light_steps
from bench.first_light import RECORD, execute, last_line, main, order_steps
from bench.first_light_steps import PYTHON, STEPS, VARIABLES, Command, Step
from cram.config.recipe import read_config, read_words
from cram.data.text import pydocs
from cram.errors import CramError
from cram.files.atomic import read_json

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "bench" / "first_light.sh"
INTERPRETED = "TRITON_INTERPRET=1"


def run_here(command: Command, log: Path, limit: float) -> int | None:
    """Run the doors of a step in this process, which has imported everything; other commands as they are."""
    assert command[: 1 + len(VARIABLES)] == ["env", *VARIABLES]
    words = command[1 + len(VARIABLES) :]
    if INTERPRETED in words or words[: len(PYTHON)] != PYTHON or words[len(PYTHON) + 1] == "pytest":
        return execute(command, log, limit)
    module = importlib.import_module(words[len(PYTHON) + 1])
    with log.open("w") as output, redirect_stdout(output):
        return int(module.main(words[len(PYTHON) + 2 :]) or 0)


def test_every_step_runs_at_tiny_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    some = pydocs.find_documentation()[::20]  # all of it takes ten seconds to clean
    monkeypatch.setattr(pydocs, "find_documentation", lambda: some)
    assert main(["tiny=true", f"out={tmp_path}"], run_here) == 0
    steps = read_json(tmp_path / RECORD)["steps"]
    assert list(steps) == list(STEPS)
    assert {step["state"] for step in steps.values()} == {"done"}
    results = {name: set(step["results"]) for name, step in steps.items()}
    assert results["check"] == {"check/kernels-check-cpu.json"}
    assert results["kernels"] == {"kernels/kernels-cpu.json"}
    assert (results["step"], results["speed"]) == ({"step/step-cpu.json"}, {"speed/step-cpu.json"})
    assert results["tune"] == {"tune/settings.json"}
    assert "cram/run/receipt.json" in results["cram"]
    assert read_json(tmp_path / "cram/run/receipt.json")["updates"] == 5
    assert "passed" in steps["tests"]["last_line"] and (tmp_path / "tests/log.txt").exists()
    printed = capsys.readouterr().out
    assert printed.index("=== tests: Are") < printed.index("=== tests: done") < printed.index("=== check: Are")
    assert main(["tiny=true", f"out={tmp_path}"], lambda *_: pytest.fail("a step that is done is run again")) == 0


# --- the steps at full size, which need a GPU


def test_the_limits_are_25_minutes_in_all_and_below_8_in_each() -> None:
    assert sum(step.limit for step in STEPS.values()) <= 25 * 60
    assert max(step.limit for step in STEPS.values()) < 8 * 60


def test_the_words_of_every_step_are_read(tmp_path: Path) -> None:
    for step in STEPS.values():
        for tiny in (False, True):
            words = [word for word in step.command(tmp_path, tiny)[1:] if word not in VARIABLES]
            words = words[words.index(PYTHON[0]) + len(PYTHON) + 1 :]
            module, *words = words
            if module == "pytest":
                continue
            if module == "cram.train":
                config = read_config(words)
                assert config.data.source == "pydocs" and config.data.dir.startswith(str(tmp_path))
                assert tiny or (config.budget, config.data.epochs) == ("5m", 1000)
                continue
            schemas = vars(importlib.import_module(module))
            (schema,) = [
                value for name, value in schemas.items() if name.endswith("Config") and value.__module__ == module
            ]
            config = read_words(schema, words)
            assert tiny or config.limit <= 0.85 * step.limit


def test_the_run_takes_the_settings_that_were_found(tmp_path: Path) -> None:
    step = STEPS["cram"]
    assert not any(word.startswith("CRAM_KERNELS_SETTINGS=") for word in step.command(tmp_path, False))
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune/settings.json").write_text("{}")
    assert f"CRAM_KERNELS_SETTINGS={tmp_path}/tune/settings.json" in step.command(tmp_path, False)


def test_the_settings_of_the_step_benchmark_exist() -> None:
    from bench.step_training import SETTINGS

    for name in ("step", "speed"):
        words = STEPS[name].command(Path("out"), False)
        settings = [word.removeprefix("settings=") for word in words if word.startswith("settings=")]
        assert settings and set(settings) <= set(SETTINGS["cuda"])


# --- what is run, and in what order


def fake_steps(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Replace the steps by some whose commands are never run."""
    steps = {name: Step(f"What of {name}?", 9.0, lambda out: ["true"], lambda out: ["true"]) for name in names}
    for module in (first_light, first_light_steps):
        monkeypatch.setattr(module, "STEPS", steps)


def test_a_step_that_fails_is_said_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_steps(monkeypatch, "one", "two", "three")
    run: list[str] = []
    states: dict[str, int | None] = {"one": 3, "two": None, "three": 0}

    def fake(command: Command, log: Path, limit: float) -> int | None:
        run.append(log.parent.name)
        log.write_text("begin\nCUDA error: out of memory\n\n")
        return states[log.parent.name]

    assert main(["tiny=true", f"out={tmp_path}"], fake) == 1
    steps = read_json(tmp_path / RECORD)["steps"]
    assert [step["state"] for step in steps.values()] == ["failed (3)", "stopped after 9 s", "done"]
    assert steps["one"]["last_line"] == "CUDA error: out of memory"
    printed = capsys.readouterr().out
    assert "=== one: failed (3)" in printed and "=== two: stopped after 9 s" in printed
    states |= {"one": 0, "two": 0}
    assert main(["tiny=true", f"out={tmp_path}"], fake) == 0
    assert run == ["one", "two", "three", "one", "two"]
    assert main(["steps=three", "tiny=true", f"out={tmp_path}"], fake) == 0
    assert run[-1] == "three"


def test_it_goes_on_at_the_first_step_without_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_steps(monkeypatch, "one", "two", "three")
    run: list[str] = []

    def cut(command: Command, log: Path, limit: float) -> int | None:
        run.append(log.parent.name)
        if len(run) == 2:
            raise KeyboardInterrupt  # as if the machine were taken away
        return 1 if len(run) == 1 else 0

    with pytest.raises(KeyboardInterrupt):
        main(["tiny=true", f"out={tmp_path}"], cut)
    assert list(read_json(tmp_path / RECORD)["steps"]) == ["one"]
    assert main(["tiny=true", f"out={tmp_path}"], cut) == 0
    assert run == ["one", "two", "two", "three", "one"]  # what has failed comes after what has not been tried


def test_steps_are_ordered_as_in_the_table_unless_they_are_named() -> None:
    done, failed = {"state": "done"}, {"state": "failed (1)"}
    assert order_steps([], {}) == list(STEPS)
    assert order_steps([], {"tests": failed, "check": done}) == [*list(STEPS)[2:], "tests"]
    assert order_steps(["tune", "check"], {"check": done}) == ["tune", "check"]
    with pytest.raises(CramError, match=r"steps=tunes is not one of tests, check, .* Nearest: tune\."):
        order_steps(["tunes"], {})


def test_tiny_results_and_others_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_steps(monkeypatch, "one")
    assert main(["tiny=true", f"out={tmp_path}"], lambda *_: 0) == 0
    monkeypatch.setattr(first_light.torch.cuda, "is_available", lambda: True)
    with pytest.raises(CramError, match=r"first_light\.json: has results of tiny size, not of full size"):
        main([f"out={tmp_path}"], lambda *_: 0)


def test_without_a_gpu_only_tiny_sizes_are_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(first_light.torch.cuda, "is_available", lambda: False)
    with pytest.raises(CramError, match=r"torch finds no CUDA device here\. tiny=true tries all steps on the CPU"):
        main([f"out={tmp_path / 'out'}"], lambda *_: pytest.fail("it runs"))
    assert not (tmp_path / "out").exists()


# --- a process


def python(code: str) -> Command:
    return ["env", "PYTHONUNBUFFERED=1", sys.executable, "-c", code]


def test_what_a_step_prints_is_seen_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(first_light, "SILENCE", 0.3)
    log = tmp_path / "log.txt"
    code = "import time; print('begin'); time.sleep(1); print('end'); raise SystemExit(5)"
    assert execute(python(code), log, 60.0) == 5
    printed = capsys.readouterr().out
    assert printed.startswith("begin\n[") and printed.endswith("s]\nend\n")
    assert log.read_text() == "begin\nend\n"
    assert last_line(log) == "end"
    assert last_line(tmp_path / "none") == ""


def test_a_step_that_takes_too_long_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_light, "PATIENCE", 0.5)
    pids = tmp_path / "pids"
    code = (
        "import os, pathlib, signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(60)"
    )
    began = time.monotonic()
    assert execute(python(code), tmp_path / "log.txt", 3.0) is None
    assert time.monotonic() - began < 30
    for pid in map(int, pids.read_text().split()):
        for _ in range(100):
            if not is_running(pid):
                break
            time.sleep(0.05)
        assert not is_running(pid)


def is_running(pid: int) -> bool:
    """Whether a process runs. A zombie, which nobody waits for after its parent was killed, does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- the script


def call_script(*words: str) -> "subprocess.CompletedProcess[str]":
    """Call the script with an interpreter that prints its arguments."""
    environment = os.environ | {"PYTHON": "echo"}
    return subprocess.run([SCRIPT, *words], env=environment, capture_output=True, text=True, check=False)


def test_the_script_turns_steps_into_words() -> None:
    assert call_script().stdout.split() == ["-u", "-m", "bench.first_light"]
    command = call_script("tune", "--tiny", "out=a b", "cram")
    assert command.stdout.strip() == "-u -m bench.first_light steps=tune,cram tiny=true out=a b"
    assert call_script("--help").stdout.split()[-1] == "--help"


def test_the_script_runs_from_any_folder(tmp_path: Path) -> None:
    environment: dict[str, Any] = {**os.environ, "PYTHON": sys.executable}
    environment.pop("PYTHONPATH", None)
    process = subprocess.run(
        [SCRIPT, "tests", "out=first light", "nothing=1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith("cram: ") and "nothing" in process.stderr


def test_the_help_names_every_step() -> None:
    for name, step in STEPS.items():
        assert f"    {name:8} {step.limit:3.0f} s  {step.question}" in first_light.ABOUT


def test_the_page_has_every_step() -> None:
    page = (ROOT / "docs" / "first_light.md").read_text()
    for name, step in STEPS.items():
        assert f"| `{name}` | {step.question} | {step.limit:.0f} s |" in page
