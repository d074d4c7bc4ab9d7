from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cram.build import build_optimizer
from cram.config.model import ModelConfig
from cram.config.optimizer import MuonConfig, OptimizerConfig
from cram.model.encoder import Encoder
from cram.optim.adamw import AdamW
from cram.optim.groups import parameter_groups
from cram.optim.muon import Muon
from cram.optim.optimizer import Optimizer, decay_schedule
from cram.run.checkpoint import Checkpoints

MUON = MuonConfig(lr=0.05, momentum=0.9, weight_decay=0.3)
CONFIG = OptimizerConfig(kind="muon", lr=0.02, embedding_lr=0.05, beta1=0.8, beta2=0.95, eps=1e-6, muon=MUON)
MULTIPLIERS = [0.1, 0.6, 1.0, 0.7, 0.3, 0.5]


def drawn(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(*matrices: tuple[int, int], dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """An embedding, a norm and linear layers with weights of these (rows, columns)."""
    linears = [nn.Linear(columns, rows, bias=False) for rows, columns in matrices]
    model = nn.Sequential(nn.Embedding(6, 4), nn.LayerNorm(4), *linears)
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.copy_(drawn(tuple(parameter.shape), seed))
    return model.to(dtype)


def encoder() -> Encoder:
    model = Encoder(ModelConfig(layers=2, width=8, heads=2, mlp_width=12), 64)
    model.initialise(0)
    return model


def muon_of(model: nn.Module, **changes: Any) -> Muon:
    config = OptimizerConfig(**{**vars(CONFIG), "muon": MuonConfig(**{**vars(MUON), **changes})})
    return Muon(parameter_groups(model, config), config)


def set_gradients(model: nn.Module, step: int) -> None:
    """Gradients that are a function of the step and the shape alone."""
    for parameter in model.parameters():
        parameter.grad = drawn(tuple(parameter.shape), 1000 + step).to(parameter.dtype)


def run(model: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        set_gradients(model, step)
        optimizer.step(MULTIPLIERS[step], 1.0)


def as_bytes(model: nn.Module, optimizer: Optimizer) -> tuple[bytes, bytes]:
    return save(model.state_dict()), save(optimizer.state_tensors())


def torch_muon(weights: list[nn.Parameter], nesterov: bool) -> torch.optim.Muon:
    return torch.optim.Muon(weights, lr=0.0, momentum=0.9, weight_decay=0.3, nesterov=nesterov)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_updates_equal_those_of_torch(nesterov: bool, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if exact:  # torch's always computes in bf16
        monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    shapes = [(5, 5), (12, 4), (4, 12), (5, 5), (12, 4)]
    ours, twin = build(*shapes), build(*shapes)
    optimizer = muon_of(ours, nesterov=nesterov)
    reference = torch_muon([layer.weight for layer in twin[2:]], nesterov)
    for step, multiplier in enumerate(MULTIPLIERS):
        for model in (ours, twin):
            set_gradients(model, step)
        optimizer.step(multiplier, 1.0)
        reference.param_groups[0]["lr"] = 0.05 * multiplier
        reference.step()
        for mine, other in zip(ours[2:], twin[2:], strict=True):
            bound = 1e-10 if exact else 0.03 * (step + 1) * 0.05
            torch.testing.assert_close(mine.weight, other.weight, rtol=0.0, atol=bound)
    assert all(
        (mine.weight - before.weight).norm() > 0.2 for mine, before in zip(ours[2:], build(*shapes)[2:], strict=True)
    )


def test_other_groups_are_updated_by_adamw() -> None:
    ours, twin = build((5, 4)), build((5, 4))
    run(ours, muon_of(ours), range(4))
    run(twin, AdamW(parameter_groups(twin, CONFIG), CONFIG), range(4))
    for mine, other in zip(ours[:2].parameters(), twin[:2].parameters(), strict=True):
        assert torch.equal(mine, other)
    assert not torch.equal(ours[2].weight, twin[2].weight)


@pytest.mark.parametrize("rows", [(4, 4, 4), (6, 6), (8, 2, 2)])
def test_a_fused_weight_moves_as_its_matrices_would_alone(rows: tuple[int, ...]) -> None:
    fused, apart = build((12, 4)), build(*[(part, 4) for part in rows])
    fused[2].splits = rows
    together = muon_of(fused)
    alone = muon_of(apart)
    with torch.no_grad():
        for layer, block in zip(apart[2:], fused[2].weight.split(rows), strict=True):
            layer.weight.copy_(block)
    for step in range(3):
        for model in (fused, apart):
            set_gradients(model, step)
        for layer, block in zip(apart[2:], fused[2].weight.grad.split(rows), strict=True):
            layer.weight.grad = block.clone()
        together.step(1.0, 1.0)
        alone.step(1.0, 1.0)
    expected = torch.cat([layer.weight for layer in apart[2:]])
    torch.testing.assert_close(fused[2].weight, expected, rtol=1e-10, atol=1e-10)
    whole = build((12, 4))
    run(whole, muon_of(whole), range(3))
    assert (fused[2].weight - whole[2].weight).abs().max() > 1e-3


def test_the_encoders_fused_weights_are_split_into_their_matrices() -> None:
    model = encoder()
    expected = {}
    for block in model.blocks:
        expected |= {block.attention.qkv.weight: (8, 8, 8), block.mlp.up.weight: (12, 12)}
    matrices = parameter_groups(model, CONFIG)[0]
    splits = {weight: rows for weight, rows in zip(matrices.parameters, matrices.splits, strict=True) if rows}
    assert splits == expected
    fused = [parameter for parameter in model.parameters() if parameter.ndim == 2 and parameter.shape[0] == 24]
    assert set(fused) == set(expected)


class Watch(TorchDispatchMode):
    """The names of all operations, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_matrices_of_one_shape_share_one_chain_of_products_and_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cram.optim.muon.product_dtype", lambda device, dtype, products: dtype)
    monkeypatch.setattr("cram.optim.whitening.is_readable", lambda tensor: False)
    model = encoder()
    optimizer = build_optimizer(model, CONFIG)
    run(model, optimizer, range(1))
    set_gradients(model, 1)
    with Watch() as watch:
        optimizer.step(0.5, 1.0)
    shapes = {(8, 8), (12, 8), (8, 12)}
    assert watch.names.count("bmm") == 2 * len(shapes) * 5
    assert watch.names.count("baddbmm") == len(shapes) * 5
    assert not {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "_to_copy"} & set(watch.names)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_on_a_gpu_never_waits_and_equals_that_of_a_cpu() -> None:
    cpu_model, gpu_model = encoder(), encoder().cuda()
    ours, twin = build_optimizer(cpu_model, CONFIG), build_optimizer(gpu_model, CONFIG)
    for step in range(2):
        set_gradients(cpu_model, step)
        for mine, other in zip(cpu_model.parameters(), gpu_model.parameters(), strict=True):
            other.grad = mine.grad.cuda()
        ours.step(1.0, 1.0)
        torch.cuda.set_sync_debug_mode("error" if step else "default")
        try:
            twin.step(1.0, 1.0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for mine, other in zip(cpu_model.parameters(), gpu_model.parameters(), strict=True):
        torch.testing.assert_close(mine, other.cpu(), rtol=0.0, atol=2 * 0.05 * 2**0.5 * 0.05)


def test_weight_decay_and_momentum_are_told_as_numbers() -> None:
    optimizer = muon_of(build((5, 4)), momentum_start=0.5, momentum_warmup=0.4)
    optimizer.config.final_decay, optimizer.decay = 0.0, decay_schedule(OptimizerConfig(final_decay=0.0))
    assert optimizer.scheduled(0.2) == pytest.approx({"weight_decay": 0.3 * 0.8, "momentum": 0.7})


def test_one_multiplier_scales_both_rates() -> None:
    def moved(multiplier: float) -> list[Tensor]:
        model = build((5, 4))
        before = [parameter.detach().clone() for parameter in model.parameters()]
        set_gradients(model, 0)
        optimizer = muon_of(model)
        optimizer.step(multiplier, 1.0)
        peaks = {"matrices": 0.05, "embeddings": 0.05, "gains": 0.02}
        assert optimizer.lr() == {name: peak * multiplier for name, peak in peaks.items()}
        return [after - start for after, start in zip(model.parameters(), before, strict=True)]

    for whole, half, none in zip(moved(1.0), moved(0.5), moved(0.0), strict=True):
        torch.testing.assert_close(half, whole / 2)
        assert whole.any() and not none.any()


def test_a_matrix_without_a_gradient_is_left_alone() -> None:
    model = build((5, 4), (5, 4))
    optimizer = muon_of(model)
    set_gradients(model, 0)
    model[3].weight.grad = None
    optimizer.step(1.0, 1.0)
    assert torch.equal(model[3].weight, build((5, 4), (5, 4))[3].weight)
    assert not torch.equal(model[2].weight, build((5, 4))[2].weight)
    run(model, optimizer, range(1, 2))
    assert not torch.equal(model[3].weight, build((5, 4), (5, 4))[3].weight)


def test_the_state_is_named_by_parameter() -> None:
    model = build((5, 4))
    optimizer = muon_of(model)
    assert optimizer.state_tensors() == {}
    run(model, optimizer, range(1))
    adamw = {f"{name}/{entry}" for name in ("0.weight", "1.weight", "1.bias") for entry in ("step", "exp_avg")}
    adamw |= {key.replace("exp_avg", "exp_avg_sq") for key in adamw if key.endswith("exp_avg")}
    assert set(optimizer.state_tensors()) == {"2.weight/momentum"} | adamw


def test_a_run_resumed_from_a_checkpoint_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model = encoder()
    optimizer = build_optimizer(model, CONFIG)
    run(model, optimizer, range(3))
    Checkpoints(tmp_path).save(3, model.state_dict(), optimizer.state_tensors(), {})
    run(model, optimizer, range(3, 6))
    resumed = encoder()
    again = build_optimizer(resumed, CONFIG)
    checkpoint = Checkpoints(tmp_path).read_newest()
    assert checkpoint is not None
    resumed.load_state_dict(checkpoint.model)
    again.load_state_tensors(checkpoint.optimizer)
    run(resumed, again, range(3, 6))
    assert as_bytes(resumed, again) == as_bytes(model, optimizer)
    forgetful = encoder()
    forgetful.load_state_dict(checkpoint.model)
    run(forgetful, build_optimizer(forgetful, CONFIG), range(3, 6))
    assert save(forgetful.state_dict()) != save(model.state_dict())


def test_loading_replaces_the_state() -> None:
    model = build((5, 4))
    optimizer = muon_of(model)
    run(model, optimizer, range(2))
    weights, state = as_bytes(model, optimizer)
    run(model, optimizer, range(2, 4))
    expected = as_bytes(model, optimizer)
    model.load_state_dict(load(weights))
    optimizer.load_state_tensors(load(state))
    run(model, optimizer, range(2, 4))
    assert as_bytes(model, optimizer) == expected
    optimizer.load_state_tensors({})
    assert optimizer.state_tensors() == {}


@pytest.mark.usefixtures("where_values_are")
@pytest.mark.parametrize("sick", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_no_bit(sick: float) -> None:
    model = build((5, 4), (4, 12), dtype=torch.float32)
    optimizer = muon_of(model)
    for step in range(2):
        set_gradients(model, step)
        optimizer.step(1.0, 0.5, torch.tensor(True))
    before = as_bytes(model, optimizer)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad[0] = sick
    optimizer.step(1.0, 0.5, torch.tensor(False))
    assert as_bytes(model, optimizer) == before


@pytest.mark.usefixtures("where_values_are")
def test_a_finite_step_is_the_same_with_and_without_the_check() -> None:
    watched, alone = build((5, 4)), build((5, 4))
    for model, finite in ((watched, torch.tensor(True)), (alone, None)):
        optimizer = muon_of(model)
        for step in range(3):
            set_gradients(model, step)
            optimizer.step(1.0, 0.5, finite)
    torch.testing.assert_close(watched.state_dict(), alone.state_dict(), rtol=1e-12, atol=1e-12)


def test_the_momentum_of_a_step_is_that_of_its_progress() -> None:
    warming, fixed = build((5, 4)), build((5, 4))
    pairs = [
        (warming, muon_of(warming, momentum=0.9, momentum_start=0.5, momentum_warmup=0.4), 0.2),
        (fixed, muon_of(fixed, momentum=0.7), 1.0),
    ]
    for model, optimizer, progress in pairs:
        set_gradients(model, 0)
        optimizer.step(1.0, progress)
    torch.testing.assert_close(warming.state_dict(), fixed.state_dict(), rtol=1e-12, atol=1e-12)


def test_cautious_decay_spares_elements_that_the_update_does_not_shrink() -> None:
    plain, careful, without = build((5, 4)), build((5, 4)), build((5, 4))
    start = plain[2].weight.detach().clone()
    for model, changes in ((plain, {}), (careful, {"cautious": True}), (without, {"weight_decay": 0.0})):
        set_gradients(model, 0)
        muon_of(model, **changes).step(1.0, 1.0)
    shrinks = (start - without[2].weight) * start > 0
    assert shrinks.any() and not shrinks.all()
    torch.testing.assert_close(careful[2].weight, torch.where(shrinks, plain[2].weight, without[2].weight))
    assert not torch.equal(plain[2].weight, without[2].weight)
