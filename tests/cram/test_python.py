"""`cram.fit` and `cram.load`: training and loading from Python."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import cram
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.methods.method import Method
from cram.model.kinds import build_model

GOMP = Path(torch.__file__).parent / "lib" / "libgomp.so.1"


def as_values(words: list[str]) -> dict[str, Any]:
    """`key=value` words as keyword arguments, without the recipe."""
    pairs = (word.partition("=")[::2] for word in words)
    return {name: value for name, value in pairs if name != "recipe"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[[Path], list[str]]) -> cram.FinishedRun:
    values = as_values(tiny_run(tmp_path_factory.mktemp("python")))
    return cram.fit("bert_demo", **values, budget="4steps", checkpoint={"interval": "1s"})


def test_fit_returns_the_folder_and_the_receipt(finished: cram.FinishedRun) -> None:
    assert finished.receipt == read_json(finished.folder / "receipt.json")
    assert finished.receipt["updates"] == 4
    assert (finished.folder / "export" / "config.json").is_file()


def test_fit_on_a_finished_run_returns_it(finished: cram.FinishedRun, tiny_run: Callable[[Path], list[str]]) -> None:
    values = as_values(tiny_run(finished.folder.parent))
    assert cram.fit("bert_demo", **values, budget="4steps", checkpoint={"interval": "1s"}) == finished


def test_load_gives_the_weights_and_the_tokenizer(finished: cram.FinishedRun) -> None:
    model, tokenizer = cram.load(finished.folder)
    weights = load_file(finished.folder / "model.safetensors")
    assert not model.training
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights.items())
    encoding = tokenizer.encode("The river crosses the garden.")
    assert (encoding.tokens[0], encoding.tokens[-1]) == ("[CLS]", "[SEP]")


def test_tokens_give_hidden_states_and_logits(finished: cram.FinishedRun) -> None:
    from transformers import AutoModelForMaskedLM

    model, tokenizer = cram.load(str(finished.folder))
    tokens = torch.tensor([tokenizer.encode("The river crosses the garden.").ids] * 2)
    rows, seq_len = tokens.shape
    with torch.no_grad():
        hidden = model(tokens)
        logits = model.head(hidden)
        stock = AutoModelForMaskedLM.from_pretrained(finished.folder / "export")(tokens).logits
    assert hidden.shape == (rows * seq_len, model.config.width)
    torch.testing.assert_close(logits.view(rows, seq_len, -1), stock, rtol=0, atol=1e-4)


def test_load_takes_a_checkpoint(finished: cram.FinishedRun) -> None:
    numbers = [int(path.name) for path in (finished.folder / "checkpoints").iterdir() if path.name.isdigit()]
    newest, _ = cram.load(finished.folder, checkpoint="newest")
    by_number, _ = cram.load(finished.folder, checkpoint=max(numbers))
    assert not newest.training
    assert all(torch.equal(a, b) for a, b in zip(newest.parameters(), by_number.parameters(), strict=True))


def test_mistakes_are_told_as_on_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(CramError, match=r"unknown key 'model.layer' .* Nearest: model.layers"):
        cram.fit("bert_demo", model={"layer": 2})
    with pytest.raises(CramError, match="dry_run=true trains nothing"):
        cram.fit("bert_demo", dry_run=True)
    with pytest.raises(CramError, match="is not a run folder"):
        cram.load(tmp_path)


def test_importing_cram_imports_nothing_large() -> None:
    code = "import sys, cram; print({'torch', 'transformers', 'numpy', 'tokenizers'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


class FreezeEmbedding(Method):
    """Keeps the embedding as it is from the beginning."""

    name = "freeze_embedding"

    def before_update(self, model: nn.Module, optimizer: Any, progress: float) -> None:
        model.get_parameter("embedding.weight").requires_grad_(False)


def test_fit_takes_methods_and_the_receipt_names_them(tmp_path: Path, tiny_run: Callable[[Path], list[str]]) -> None:
    values = as_values(tiny_run(tmp_path))
    run = cram.fit("bert_demo", **values, budget="2steps", methods=[FreezeEmbedding()])
    assert run.receipt["methods"] == ["freeze_embedding"]
    model, _ = cram.load(run.folder)
    first = build_model(model.config, model.vocab_size, 0, torch.device("cpu"))
    assert torch.equal(model.embedding.weight, first.embedding.weight)
    assert not torch.equal(model.final_norm.weight, first.final_norm.weight)


@pytest.mark.parametrize(
    ("given", "rounds"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "unset")],
    ids=["nothing", "the number", "a policy"],
)
def test_threads_that_wait_give_their_core_away_unless_the_user_says_otherwise(
    given: dict[str, str], rounds: str
) -> None:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    code = "import os, cram; print(os.environ.get('GOMP_SPINCOUNT', 'unset'))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.strip() == rounds


@pytest.mark.skipif(not GOMP.exists(), reason="this torch does not bring GNU's OpenMP")
def test_torch_reads_the_rounds_that_importing_cram_has_set() -> None:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    code = f"import cram, ctypes; ctypes.CDLL({str(GOMP)!r})"
    command = [sys.executable, "-c", code]
    environment["OMP_DISPLAY_ENV"] = "verbose"
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stderr
    assert re.search(r"GOMP_SPINCOUNT = '1000'", shown), shown
