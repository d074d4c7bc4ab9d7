"""Tensors that do not fit are named, whoever reads them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load, save, save_file
from torch import Tensor, nn

from cram.build import build_optimizer
from cram.config.config import Config
from cram.config.model import ModelConfig
from cram.config.optimizer import OptimizerConfig
from cram.config.training import AveragingConfig
from cram.distributed.ranks import ALONE
from cram.errors import CramError
from cram.files.tensors import check_tensors, count_rows, read_tensors
from cram.hub.initial import check_tokenizer, read_initial
from cram.hub.modernbert import MODERNBERT
from cram.methods.averaging import Averaging
from cram.model.kinds import new_model
from cram.run.checkpoint import Checkpoint
from cram.training.restoring import load_tensors

WANTED = {"a": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.int64)}
Tensors = dict[str, Tensor]

FAULTS = {
    "missing": (lambda one: None, r"the tensor {}, \[.*\] of \w+, is missing\."),
    "shape": (lambda one: torch.zeros(*one.shape, 7, dtype=one.dtype), r"the tensor {} is \[.*7\] of .*, and \["),
    "dtype": (lambda one: one.to(torch.float16), r"the tensor {} is \[.*\] of float16, and \[.*\] of \w+ is needed\."),
}


def faulty(tensors: Tensors, name: str, fault: str) -> Tensors:
    changed = FAULTS[fault][0](tensors[name])
    rest = {key: value for key, value in tensors.items() if key != name}
    return rest if changed is None else {**rest, name: changed}


def check_refusals(load: Callable[[Tensors], None], tensors: Tensors) -> None:
    """Each tensor in turn is damaged in each way, and one is added."""
    for name in tensors:
        for fault, (_, message) in FAULTS.items():
            with pytest.raises(CramError, match=message.format(name)) as caught:
                load(faulty(tensors, name, fault))
            assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(CramError, match=r"the tensor more does not belong there\."):
        load({**tensors, "more": torch.zeros(1)})
    load(tensors)


def test_a_tensor_that_does_not_fit_is_named() -> None:
    check_refusals(lambda tensors: check_tensors(tensors, WANTED), WANTED)
    with pytest.raises(CramError, match=r"^here: the tensor a, \[2, 3\] of float32, is missing\.$"):
        check_tensors({}, WANTED, "here: ")


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_state_of_an_optimizer_that_does_not_fit_is_check_refusals(kind: str) -> None:
    torch.manual_seed(0)
    model = new_model(ModelConfig(layers=1, width=8, heads=2, mlp_width=8), 64)
    optimizer = build_optimizer(model, OptimizerConfig(kind=kind))
    for number, parameter in enumerate(model.parameters()):
        if number % 3:  # one that has never had a gradient is part of the state too
            parameter.grad = torch.randn_like(parameter)
    optimizer.step(0.5, 0.5, torch.tensor(True))
    state = load(save(optimizer.state_tensors()))
    again = build_optimizer(model, OptimizerConfig(kind=kind))
    check_refusals(again.load_state_tensors, state)
    assert save(again.state_tensors()) == save(state)


def test_an_average_that_does_not_fit_is_check_refusals() -> None:
    model, method = nn.Linear(3, 2), Averaging(AveragingConfig(start=0.0))
    method.after_step(model, 0.5)
    state = load(save(method.state_tensors()))
    check_refusals(lambda tensors: method.load_state_tensors(tensors, model), state)
    with pytest.raises(CramError, match=r"the tensor count is -3, and an average has 1 update or more"):
        method.load_state_tensors({**state, "count": torch.tensor(-3)}, model)


def test_a_matrix_is_needed(tmp_path: Path) -> None:
    for tensors, message in (
        ({}, r"here: the tensor a is missing\."),
        ({"a": torch.zeros(3)}, r"here: the tensor a is \[3\] of float32, and a matrix is needed\."),
        ({"a": torch.zeros(())}, r"the tensor a is \[\] of float32, and a matrix is needed\."),
        ({"a": torch.zeros(0, 3)}, r"the tensor a is \[0, 3\] of float32, and a matrix is needed\."),
    ):
        with pytest.raises(CramError, match=message):
            count_rows(tensors, "a", "here: ")
    assert count_rows(WANTED, "a") == 2


def test_a_file_without_tensors_is_named(tmp_path: Path) -> None:
    save_file(WANTED, tmp_path / "there")
    check_tensors(read_tensors(tmp_path / "there"), WANTED)
    for content in (b"", b"\xff" * 20, (tmp_path / "there").read_bytes()[:-1]):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(CramError, match=r"bad: not a readable safetensors file \("):
            read_tensors(tmp_path / "bad")
    with pytest.raises(CramError, match=r"none: not a readable safetensors file \("):
        read_tensors(tmp_path / "none")


def test_the_file_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    model, method = nn.Linear(3, 2), Averaging(AveragingConfig(start=0.0))
    model.fit_blocks = lambda names: False  # type: ignore[assignment]
    method.after_step(model, 0.5)
    average = {f"methods/averaging/{name}": value for name, value in method.state_tensors().items()}
    optimizer = SimpleNamespace(load_state_tensors=lambda tensors: check_tensors(tensors, {"mine": torch.zeros(2)}))
    objective = SimpleNamespace(load_state_tensors=lambda tensors: None)
    parts = SimpleNamespace(model=model, methods=[method], optimizer=optimizer, objective=objective)
    session: Any = SimpleNamespace(parts=parts, ranks=ALONE, facts=dict)
    weights, memory = model.state_dict(), {"mine": torch.zeros(2), **average}
    load_tensors(session, checkpoint=Checkpoint(3, weights, memory, {}, tmp_path / "3"))
    for tensors, rest, message in (
        (faulty(weights, "bias", "shape"), memory, r"3/model\.safetensors: the tensor bias is \[2, 7\] of"),
        (weights, faulty(memory, "mine", "dtype"), r"3/optimizer\.safetensors: the tensor mine is \[2\] of float16"),
        (weights, faulty(memory, "methods/averaging/bias", "missing"), r"3/optimizer\.safetensors: the tensor bias, "),
        (weights, average, r"3/optimizer\.safetensors: the state of the optimizer is missing\."),
    ):
        with pytest.raises(CramError, match=message):
            load_tensors(session, checkpoint=Checkpoint(3, tensors, rest, {}, tmp_path / "3"))
    optimizer.load_state_tensors = lambda tensors: None
    load_tensors(session, checkpoint=Checkpoint(0, weights, {}, {}))  # before the first update there is no state


SMALL = ModelConfig(layers=1, width=8, heads=2, mlp_width=8)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", r"^init=.* is not an export of model\.kind=encoder \('model\.layers\.0\.attn\.Wo\.weight'\)\.$"),
        ("shape", r"does not fit the recipe: blocks\.0\.attention\.out\.weight is \[8, 8, 7\] there, \[8, 8\] here\."),
        ("int", r"^init=.*: blocks\.0\.attention\.out\.weight is of torch\.int32, and weights are needed\.$"),
        ("bytes", r"model\.safetensors: not a readable safetensors file \("),
        ("embedding", r"does not fit the recipe: embedding\.weight is \[3\] there, \[64, 8\] here\."),
    ],
)
def test_weights_to_begin_with_that_do_not_fit_are_named(tmp_path: Path, fault: str, message: str) -> None:
    state = MODERNBERT.rename(new_model(SMALL, 64).state_dict())
    name = "model.layers.0.attn.Wo.weight"
    if fault in FAULTS:
        state = faulty(state, name, fault)
    elif fault == "int":
        state[name] = state[name].int()
    elif fault == "embedding":
        state["model.embeddings.tok_embeddings.weight"] = torch.zeros(3)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "model.safetensors")
    if fault == "bytes":
        (tmp_path / "model.safetensors").write_bytes(b"none")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CramError, match=message) as caught:
        read_initial(Config(init=str(tmp_path), model=SMALL))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"'])
def test_a_tokenizer_to_begin_with_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(CramError, match=r"mine\.json: not a tokenizer, it holds no JSON object\."):
        check_tokenizer(Config(init=str(tmp_path)), tmp_path / "mine.json")
