"""What the README tells a user to type works, in its order, on small files."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from cram.config.recipe import last_of_each

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
OWN = {"data.source", "data.document", "data.text_field", "data.tokens", "run", "recipe"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


@pytest.fixture
def folder(tmp_path: Path, corpus: Path) -> Path:
    """A folder with the files that the README's commands name."""
    texts = [line.split('"')[3] for line in corpus.read_text().splitlines()]
    (tmp_path / "texts").mkdir()
    (tmp_path / "letters").mkdir()
    for part in range(3):
        (tmp_path / "texts" / f"{part}.txt").write_text("\n\n".join(texts[part::3]))
        (tmp_path / "letters" / f"{part}.txt").write_text(texts[part])
    (tmp_path / "dump").mkdir()
    records = "".join(json.dumps({"body": text, "id": number}) + "\n" for number, text in enumerate(texts))
    (tmp_path / "dump" / "0.jsonl.zst").write_bytes(zstandard.compress(records.encode()))
    (tmp_path / "roneneldan" / "TinyStories").mkdir(parents=True)  # stands in for the one on the Hub
    for part in range(2):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts[part::2])
        (tmp_path / "roneneldan" / "TinyStories" / f"{part}.jsonl").write_text(lines)
    return tmp_path


def shrunk(words: list[str], tiny: list[str]) -> list[str]:
    """A README command at the size of a test: what it says itself stays, but for the size and the data of recipes."""
    said = {word.split("=")[0] for word in words}
    smaller = [
        word for word in tiny if word.split("=")[0] not in said & OWN and not word.startswith(("recipe=", "run="))
    ]
    return last_of_each([*words, *smaller, "batch.start_tokens=null", "budget=3steps"])


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Python with these words, as if typed in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def test_every_command_of_the_readme_runs(folder: Path, tiny_run: Callable[[Path], list[str]]) -> None:
    ran = 0
    for command in commands():
        program, *words = shlex.split(command)
        if program != "python":
            assert command == "make demo"  # runs as `bert_demo` does in the tests of the recipes
            continue
        if words[2].startswith(("show=", "verify=")):
            name, _, example = words[2].partition("=")
            slug = Path(example).name.rpartition("-")[0]
            words[2] = f"{name}={next((folder / 'shards').glob(f'{slug}-*'))}"
        elif words[1] in ("cram.train", "cram.prepare") and "--help" not in words:
            words = shrunk(words, tiny_run(folder))
        elif words[1] == "cram.ablate":
            # The vocabulary of a test cuts words into many pieces.
            few = ["seeds=1", "arms=[cram_quarter]", "data.filters.compressibility=null"]
            words = last_of_each([*shrunk(words, tiny_run(folder)), *few])
        answer = run(words, folder)
        assert answer.returncode == 0, f"{command}\n{answer.stderr}"
        ran += 1
    assert ran >= 10
    for block in blocks("python"):
        answer = run(["-c", block], folder)
        assert answer.returncode == 0, f"{block}\n{answer.stderr}"
        assert "token_str" in answer.stdout


def test_the_example_of_the_kernels_runs_without_the_rest(tmp_path: Path) -> None:
    text = (ROOT / "kernels" / "README.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "kernels"), "OMP_NUM_THREADS": "1"}
    code = f"{block}\nassert loss.isfinite()\nimport sys\nassert 'cram' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def test_every_recipe_is_in_the_table() -> None:
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert f"| `{recipe.stem}` |" in README
