"""A new choice is one file and one line in a table: each test writes the file, adds the line, and uses the choice."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from cram.config.choices import (
    ATTENTION,
    METHODS,
    MODELS,
    OBJECTIVES,
    OPTIMIZERS,
    SCHEDULES,
    Choice,
    ModelChoice,
    ObjectiveChoice,
)
from cram.config.config import Config
from cram.config.help import help_text
from cram.config.recipe import read_config
from cram.errors import CramError
from cram.files.atomic import read_json
from cram.train import main

OPTIMIZER = """
import torch

from cram.optim.optimizer import Optimizer


class SignDescent(Optimizer):
    @torch.no_grad()
    def update(self, progress, finite):
        for group in self.groups:
            for parameter in group.parameters:
                if not self.state[parameter]:
                    self.state[parameter] = self.first_state(group, parameter)
                self.state[parameter]["updates"] += 1.0
                parameter -= self.lr_of(group) * parameter.grad.sign()

    def first_state(self, group, parameter):
        return {"updates": torch.zeros((), device=parameter.device)}
"""

OBJECTIVE = """
import torch

from cram.objectives.batch import Batch
from cram.objectives.objective import Objective


class Copying(Objective):
    def prepare(self, rows, progress):
        tokens = torch.from_numpy(rows.tokens).long()
        return Batch(tokens, torch.from_numpy(rows.documents), tokens.flatten(), tokens.numel())
"""

SCHEDULE = """
from cram.optim.schedule import Shape


def stairs(config):
    return Shape(0.0, 0.5, lambda progress: 1.0 if progress < 0.5 else 0.5)
"""

MODEL = """
from cram.model.heads import TiedHead
from cram.model.transformer import Architecture, Transformer


class Headless(Transformer):
    def __init__(self, config, vocab_size):
        super().__init__(config, vocab_size, Architecture(first_norm=True, embedding_norm=False))
        self.head = TiedHead(self.embedding)
"""


METHOD = """
import torch

from cram.methods.method import Method


class Zeroing(Method):
    name = "zeroing"

    def __init__(self, config, seed):
        self.start = config.start

    @torch.no_grad()
    def finish(self, model):
        for parameter in model.parameters():
            parameter.zero_()
"""


@pytest.fixture
def add_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes the one file of a new choice where Python finds it."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def add(name: str, text: str) -> None:
        (folder / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)

    return add


@pytest.mark.parametrize("table", [MODELS, OBJECTIVES, OPTIMIZERS, ATTENTION, SCHEDULES, METHODS])
def test_every_choice_has_a_target_and_a_phrase(table: dict[str, Choice]) -> None:
    for name, choice in table.items():
        assert choice.help
        assert (choice.target == "") == (name == "auto")
        assert name == "auto" or choice.load() is not None


def test_the_choices_are_printed_and_others_are_refused() -> None:
    text = " ".join(help_text(Config).split())
    assert (
        "model.kind choice encoder encoder | decoder | crammed | bert | prenorm_bert | minimal_bert | electra | lstm: "
        "architecture; "
        "encoder: exports as ModernBERT" in text
    )
    with pytest.raises(CramError, match=r"^optimizer\.kind=sgd is not one of adamw, adam, muon, lion, sophia\.$"):
        read_config(["recipe=bert_demo", "optimizer.kind=sgd"])


def test_models_have_the_positions_that_the_table_names() -> None:
    from cram.config.model import ModelConfig
    from cram.model.kinds import new_model

    for kind, choice in MODELS.items():
        model = new_model(ModelConfig(kind=kind, layers=1, width=8, heads=2, mlp_width=8), 64)
        assert (model._rope_theta is not None) == choice.rotary


def test_a_new_optimizer_is_one_file_and_one_line(
    add_module: Callable[[str, str], None], tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_module("sign_descent", OPTIMIZER)
    monkeypatch.setitem(OPTIMIZERS, "sign", Choice("sign_descent:SignDescent", "the sign of each gradient"))
    assert main([*tiny_words, "optimizer.kind=sign", "budget=2steps"]) == 0
    receipt = read_json(tmp_path / "run" / "receipt.json")
    assert receipt["updates"] == 2


def test_a_new_objective_is_one_file_and_one_line(
    add_module: Callable[[str, str], None], tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_module("copying", OBJECTIVE)
    monkeypatch.setitem(OBJECTIVES, "copying", ObjectiveChoice("copying:Copying", "each token is copied"))
    monkeypatch.setitem(
        MODELS, "encoder", ModelChoice(MODELS["encoder"].target, "copies too", ("copying",), MODELS["encoder"].stock)
    )
    assert main([*tiny_words, "objective.kind=copying", "objective.causal_share=0", "budget=2steps"]) == 0
    receipt = read_json(tmp_path / "run" / "receipt.json")
    assert receipt["predicted_tokens"] == receipt["positions"]


def test_a_new_method_is_one_file_and_one_line(
    add_module: Callable[[str, str], None], tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_module("zeroing", METHOD)
    monkeypatch.setitem(METHODS, "averaging", Choice("zeroing:Zeroing", "the result is zero"))  # with these keys
    assert main([*tiny_words, "model.kind=crammed", "averaging.start=0.5", "budget=2steps"]) == 0
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert not any(tensor.any() for tensor in weights.values())


def test_a_new_model_kind_is_one_file_and_one_line(
    add_module: Callable[[str, str], None], tiny_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_module("headless", MODEL)
    monkeypatch.setitem(MODELS, "headless", ModelChoice("headless:Headless", "no norm behind the embedding"))
    assert main([*tiny_words, "model.kind=headless", "budget=2steps"]) == 0
    receipt = read_json(tmp_path / "run" / "receipt.json")
    assert receipt["model"]["kind"] == "headless"
    assert receipt["export"] == "none: transformers has no class that computes model.kind=headless"


def test_a_new_schedule_is_one_function_and_one_line(
    add_module: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cram.config.training import ScheduleConfig
    from cram.optim.schedule import decay_begins, make_schedule

    add_module("stairs", SCHEDULE)
    monkeypatch.setitem(SCHEDULES, "stairs", Choice("stairs:stairs", "half of the peak, then zero"))
    config = ScheduleConfig(kind="stairs")
    assert [make_schedule(config)(progress) for progress in (0.0, 0.4, 0.8)] == [1.0, 1.0, 0.5]
    assert decay_begins(config) == 0.5
