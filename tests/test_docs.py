"""Every command and every Python block of the documentation runs, at a small size, and every example program.

In a page, a block of `sh` or `python` is run, in the order of the page. A block of `text` is shown and not run, and one
of `yaml` is read as a recipe in test_recipes.py.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
import zstandard

from cram.config.config import Config
from cram.config.recipe import keep_last_words
from cram.config.schema import collect_keys
from cram.files.atomic import read_json

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ADDING = ROOT / "docs" / "adding.md"  # its blocks change the project, so it has a test of its own
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NOT_RUN = {
    "make demo": "it runs as `cram.train recipe=bert_demo` does",
    "make test": "it is what runs this test",
    "make proofs": "it takes hours",
    "pre-commit install": "it changes the clone",
}
OF_THE_PAGE = {"data.source", "data.document", "data.text_field", "data.tokens", "run", "recipe"}
TINY_GLUE = ["data=glue", "tasks=[rte]", "seeds=1", "epochs=1", "limit=16", "check_counts=false", "device=cpu"]
MINE = "python -m cram.train recipe=bert_demo data.source='texts/*.txt' data.document=blank_line run=runs/mine"


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


class Server:
    """A process that has imported the large libraries, and forks for each command."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        script = ROOT / "tests" / "preloaded_python.py"
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, words: list[str], folder: Path, output: Path) -> int:
        """Run `python` with words in a folder. Returns the exit status; a file gets the output."""
        request = {"words": words, "folder": str(folder), "output": str(output)}
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


class Shell:
    """Types commands in one folder, at the size of a test.

    A command that has been run is not run again: pages share the runs and the prepared data of one another.
    """

    def __init__(self, server: Server, folder: Path, tiny: list[str]) -> None:
        self.folder = folder
        self._server = server
        self._tiny = tiny
        self._outputs: dict[tuple[str, ...], str] = {}

    def type(self, command: str) -> str:
        """Run a command of a page at the size of a test. Returns what it prints."""
        program, *words = shlex.split(command)
        assert program == "python", f"{command}: only Python commands can be run here"
        return self.run(self._small(words))

    def run_source(self, source: str) -> str:
        """Run a Python block or an example, with a few updates and a small vocabulary. Returns what it prints."""
        script = self.folder / "block.py"
        tiny = 'budget="3steps", device="cpu", threads=1, wordpiece={"vocab_size": 192}'
        small = source.replace('budget="75s"', tiny).replace('data={"source"', 'data={"processes": 1, "source"')
        script.write_text(small)
        return self.run([str(script)], source)

    def run(self, words: list[str], shown: str | None = None) -> str:
        """Run `python` with words. Returns what it prints."""
        name = (*words, shown or "")
        if name not in self._outputs:
            output = self.folder / "output.txt"
            status = self._server.run(words, self.folder, output)
            text = output.read_text()
            assert status == 0, f"{shown or shlex.join(words)}\nstatus {status}\n{text}"
            self._outputs[name] = text
        return self._outputs[name]

    def _small(self, words: list[str]) -> list[str]:
        """A command at the size of a test: its own words stay, except those for the size and the data of recipes."""
        module = words[1]
        if words[2].startswith(("show=", "verify=")):
            key, _, example = words[2].partition("=")
            source = Path(example).name.rpartition("-")[0]
            return [*words[:2], f"{key}={next((self.folder / 'shards').glob(f'{source}-*'))}"]
        if module in ("cram.train", "cram.prepare") and "--help" not in words:
            return self._tiny_training(words)
        if module == "cram.plan":
            if any(word.startswith("card=") for word in words):
                return words
            return keep_last_words(
                [*self._tiny_training(words), "budget=2s", "data.epochs=1000", "shapes=2", "seconds=0.05"]
            )
        if module == "cram.ablate":
            # The vocabulary of a test cuts words into many pieces.
            few = ["seeds=1", "arms=[cram_quarter]", "data.filters.compressibility=null"]
            return keep_last_words([*self._tiny_training(words), *few])
        # The frozen probe refuses the keys of fine-tuning.
        refused = ("seeds=", "epochs=") if "frozen=true" in words else ()
        tiny = [word for word in TINY_GLUE if module == "cram.glue" and not word.startswith(refused)]
        return keep_last_words([*words, *tiny]) if tiny else words

    def _tiny_training(self, words: list[str]) -> list[str]:
        of_the_page = {word.split("=")[0] for word in words} & OF_THE_PAGE
        tiny = [
            word
            for word in self._tiny
            if word.split("=")[0] not in of_the_page and not word.startswith(("recipe=", "run="))
        ]
        # The page on resuming extends the run of three updates.
        budget = "budget=6steps" if "budget=3m" in words else "budget=3steps"
        return keep_last_words([*words, *tiny, "data.processes=1", "batch.start_tokens=null", budget])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def shell(
    server: Server,
    tmp_path_factory: pytest.TempPathFactory,
    corpus: Path,
    tiny_run: Callable[[Path], list[str]],
) -> Shell:
    """A folder with the files that the pages name, and `runs/mine`, which several pages use."""
    folder = tmp_path_factory.mktemp("docs")
    texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    write_texts(folder, texts)
    write_records(folder, texts)
    write_glue(folder / "glue")
    shell = Shell(server, folder, tiny_run(folder))
    shell.type(MINE)
    return shell


def write_texts(folder: Path, texts: list[str]) -> None:
    (folder / "texts").mkdir()
    (folder / "letters").mkdir()
    for part in range(3):
        (folder / "texts" / f"{part}.txt").write_text("\n\n".join(texts[part::3]))
        (folder / "letters" / f"{part}.txt").write_text(texts[part])


def write_records(folder: Path, texts: list[str]) -> None:
    (folder / "dump").mkdir()
    records = "".join(json.dumps({"body": text, "id": number}) + "\n" for number, text in enumerate(texts))
    (folder / "dump" / "0.jsonl.zst").write_bytes(zstandard.compress(records.encode()))
    (folder / "roneneldan" / "TinyStories").mkdir(parents=True)  # in place of the data set on the Hub
    for part in range(2):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts[part::2])
        (folder / "roneneldan" / "TinyStories" / f"{part}.jsonl").write_text(lines)


def write_glue(folder: Path) -> None:
    """RTE in GLUE's layout, with a few rows."""
    (folder / "RTE").mkdir(parents=True)
    for split, rows in {"train": 32, "dev": 8, "test": 4}.items():
        labels = ["" if split == "test" else f"\t{('entailment', 'not_entailment')[row % 2]}" for row in range(rows)]
        lines = [f"{row}\tThe river is long.\tThe castle is old.{label}\n" for row, label in enumerate(labels)]
        head = "index\tsentence1\tsentence2" + ("" if split == "test" else "\tlabel") + "\n"
        (folder / "RTE" / f"{split}.tsv").write_text(head + "".join(lines))


@pytest.mark.parametrize("page", [page for page in PAGES if page != ADDING], ids=page_name)
def test_every_block_of_a_page_runs(page: Path, shell: Shell) -> None:
    for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        if language == "python":
            assert shell.run_source(block).strip(), f"{page_name(page)}: this block prints nothing\n{block}"
            continue
        for command in filter(None, map(str.strip, block.splitlines())):
            if command not in NOT_RUN:
                shell.type(command)


def test_parts_are_added_as_the_page_says(
    server: Server, tmp_path: Path, tiny_run: Callable[[Path], list[str]]
) -> None:
    """In a copy of the project: the files of the page are written, its lines are put in, and its command is run."""
    for name in ("cram", "kernels", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    text = ADDING.read_text()
    for block in blocks(ADDING, "python"):
        name, _, source = block.removeprefix("# ").partition("\n")
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(source)
    additions = re.findall(r"^In `([^`]+)`, behind\s`([^`]+)`:\n\n```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(additions) == text.count("\nIn `cram/")
    for name, line, lines in additions:
        source = (tmp_path / name).read_text().splitlines(keepends=True)
        places = [number for number, content in enumerate(source) if content.startswith(line)]
        assert len(places) == 1, f"{name} has not one line that begins with {line}"
        source.insert(places[0] + 1, lines)
        (tmp_path / name).write_text("".join(source))
    for tool in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *tool, "cram"], cwd=tmp_path, check=True)
    (command,) = blocks(ADDING, "sh")
    output = Shell(server, tmp_path, tiny_run(tmp_path)).type(command)
    assert "transformers has no class that computes model.kind=rms_encoder" in output
    manifest = read_json(next((tmp_path / "shards").glob("*/manifest.json")))
    assert manifest["settings"]["filters"]["capitals"] == 0.5
    run = tmp_path / "runs" / "bert_demo"
    assert read_json(run / "receipt.json")["model"]["kind"] == "rms_encoder"
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert recipe["objective"]["kind"] == "denoising"
    assert recipe["optimizer"]["kind"] == "signum"
    assert recipe["freezing"]["start"] == 0.5


@pytest.mark.parametrize("example", EXAMPLES, ids=page_name)
def test_every_example_runs(example: Path, shell: Shell) -> None:
    assert shell.run_source(example.read_text()).strip(), f"{page_name(example)} prints nothing"


def test_the_blocks_are_found() -> None:
    commands = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines() if line]
    assert len(commands) >= 20
    for page in PAGES:
        languages = re.findall(r"^```(\w*)$", page.read_text(), re.MULTILINE)[::2]
        assert set(languages) <= {"sh", "python", "text", "yaml"}, page_name(page)


def test_every_recipe_is_in_the_table() -> None:
    table = (ROOT / "docs" / "recipes.md").read_text()
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert f"| `{recipe.stem}` |" in table


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_and_keys_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    for target, anchor in re.findall(r"\]\(([^)#:]*)#?([^)#:]*)\)", text):
        linked = page.parent / target if target else page
        assert linked.exists(), f"{page_name(page)} links to {target}"
        headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [heading.lower().replace(" ", "-") for heading in headings], anchor
    for path in re.findall(r"`((?:cram|kernels|tests|proofs|bench|examples)/[\w/]+\.(?:py|md))`", text):
        must_not_exist = path == "kernels/__init__.py"
        assert (ROOT / path).is_file() != must_not_exist or page == ADDING, f"{page_name(page)} names {path}"
    known = collect_keys(Config)
    groups = {name.partition(".")[0] for name in known if "." in name}
    for name in re.findall(r"(?<![\w./-])([a-z]+(?:\.[a-z_0-9]+)+)=", text):
        if name.partition(".")[0] in groups and page != ADDING:  # which adds keys
            assert name in known, f"{page_name(page)} names the key {name}"


def test_files_and_functions_of_the_architecture_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for name in re.findall(r"`((?:cram|kernels)/[^`]+)`", text):
        assert (ROOT / name).is_file(), name
    rows = re.findall(r"\| `(cram/[^`]+)` \| `([\w.]+)` \|", text)
    assert len(rows) >= 30
    for name, function in rows:
        nodes: list[ast.AST] = [ast.parse((ROOT / name).read_text())]
        for part in function.split("."):
            children = [child for node in nodes for child in ast.iter_child_nodes(node)]
            nodes = [child for child in children if getattr(child, "name", None) == part]
        assert nodes, f"{name} has no {function}"


def test_every_page_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in readme


def test_every_room_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "cram").iterdir():
        if not path.name.startswith("__") and (path.suffix == ".py" or (path / "__init__.py").exists()):
            assert f"cram.{path.stem}" in readme, path.stem


def test_the_example_of_the_kernels_runs_without_the_rest(tmp_path: Path) -> None:
    (block,) = blocks(ROOT / "kernels" / "README.md", "python")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "kernels"), "OMP_NUM_THREADS": "1"}
    code = f"{block}\nassert loss.isfinite()\nimport sys\nassert 'cram' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
