"""The gradients of a real model, by micro-batches, in the precisions that training knows."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cram.config.model import ModelConfig
from cram.config.objective import ObjectiveConfig
from cram.distributed.ranks import ALONE
from cram.methods.method import Methods
from cram.model.encoder import Encoder
from cram.objectives.masked import MaskedObjective
from cram.objectives.objective import Setting
from cram.reference_time import ExecutedWork
from cram.training.gradients import accumulate, clip, in_evaluation_mode, seed_dropout
from cram.training.loss_scale import LossScale
from cram.training.noise_scale import NoiseProbe
from tests.cram.training.fake_session import make_session

VOCAB, SEQ_LEN = 64, 16
CPU = torch.device("cpu")


class Rows:
    """Rows as the loader gives them."""

    def __init__(self, tokens: np.ndarray, first: int = 0) -> None:
        self.tokens, self.documents = tokens, np.zeros_like(tokens, dtype=np.int32)
        self.index, self.epoch = np.arange(first, first + len(tokens)), np.zeros(len(tokens), np.int64)

    def __getitem__(self, part: slice) -> "Rows":
        return Rows(self.tokens[part], int(self.index[part.start]))


ROWS = Rows(np.random.default_rng(0).integers(5, VOCAB, (8, SEQ_LEN)))


def session(micro_rows: int, precision: torch.dtype = torch.float32, scaled: bool = False) -> Any:
    model = Encoder(ModelConfig(layers=2, width=16, heads=2, mlp_width=32, zero_init=False, init_std=0.2), VOCAB)
    model.initialise(0)
    objective = MaskedObjective(ObjectiveConfig(mask_rate=0.5), Setting([0, 1, 2, 3, 4], 0, 4, VOCAB, SEQ_LEN))
    parts = SimpleNamespace(
        model=model,
        objective=objective,
        seq_len=SEQ_LEN,
        device=CPU,
        precision=precision,
        loss_scale=LossScale(model.parameters(), CPU) if scaled else None,
        methods=Methods(),
        work=ExecutedWork(),
    )
    return SimpleNamespace(
        parts=parts,
        state=SimpleNamespace(micro_rows=micro_rows, compiled={}),
        config=SimpleNamespace(clip=None),
        ranks=ALONE,
    )


def gradients(of: Any) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in of.parts.model.parameters()])


class Casts(TorchDispatchMode):
    """Counts casts from fp32 to half precision of tensors as large as a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16:
            self.count += isinstance(args[0], torch.Tensor) and args[0].requires_grad and args[0].is_leaf
        return func(*args, **kwargs)


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_the_size_of_a_micro_batch_changes_rounding_alone(precision: torch.dtype, tolerance: float) -> None:
    whole, parts = session(8, precision), session(2, precision)
    (predicted, nats), (same, sum_of_parts) = accumulate(whole, ROWS, 0.0), accumulate(parts, ROWS, 0.0)
    assert predicted == same
    torch.testing.assert_close(nats, sum_of_parts, rtol=tolerance, atol=0.0)
    apart = torch.linalg.vector_norm(gradients(whole) - gradients(parts))
    assert apart < tolerance * torch.linalg.vector_norm(gradients(whole))


def test_a_measurement_sees_the_gradient_of_each_half_and_changes_rounding_alone() -> None:
    plain, measured, probe = session(8), session(8), NoiseProbe(8 * SEQ_LEN, 4)
    predicted, nats = accumulate(plain, ROWS, 0.0)
    same, sum_of_halves = accumulate(measured, ROWS, 0.0, probe)
    assert clip(measured, sum_of_halves, probe).finite
    assert (same, sum(probe.predicted), len(probe.predicted)) == (predicted, predicted, 2)
    torch.testing.assert_close(nats, sum_of_halves, rtol=1e-5, atol=0.0)
    whole = gradients(plain)
    assert torch.linalg.vector_norm(whole - gradients(measured)) < 1e-5 * torch.linalg.vector_norm(whole)
    parts, squares = plain.parts, []
    for half in (ROWS[0:4], ROWS[4:8]):
        loss = parts.objective.loss(parts.model, parts.objective.prepare(half, 0.0)) / predicted
        squares += [g.double().square().sum() for g in torch.autograd.grad(loss, list(parts.model.parameters()))]
    torch.testing.assert_close(probe.norms[0].double(), sum(squares).sqrt(), rtol=1e-5, atol=0.0)  # type: ignore[union-attr]
    torch.testing.assert_close(probe.norms[1], torch.linalg.vector_norm(whole), rtol=1e-5, atol=0.0)


def test_half_precision_gives_nearly_the_gradients_of_single() -> None:
    half, single = session(4, torch.bfloat16), session(4)
    accumulate(half, ROWS, 0.0)
    accumulate(single, ROWS, 0.0)
    apart = torch.linalg.vector_norm(gradients(half) - gradients(single))
    assert 0.0 < apart < 0.05 * torch.linalg.vector_norm(gradients(single))


def test_weights_are_cast_once_an_update_however_many_micro_batches_there_are() -> None:
    counts = []
    for micro_rows in (8, 1):
        with Casts() as casts:
            accumulate(session(micro_rows, torch.bfloat16), ROWS, 0.0)
        counts.append(casts.count)
    assert counts[0] == counts[1] > 0


def test_fp16_with_a_loss_scale_gives_true_gradients_and_tells_an_overflow() -> None:
    half, single = session(4, torch.float16, scaled=True), session(4)
    for of in (half, single):
        _, nats = accumulate(of, ROWS, 0.0)
        assert bool(clip(of, nats).finite)
    apart = torch.linalg.vector_norm(gradients(half) - gradients(single))
    assert apart < 0.02 * torch.linalg.vector_norm(gradients(single))
    half.parts.loss_scale.update()
    half.parts.loss_scale.load({**half.parts.loss_scale.state(), "scale": 2.0**60})
    half.parts.model.zero_grad()
    _, nats = accumulate(half, ROWS, 0.0)
    assert not bool(clip(half, nats).finite)


@pytest.mark.parametrize("size", [1e-18, 1e-12, 1e-7, 1.0, 1e12])
def test_clipping_is_as_exact_for_small_gradients_as_for_large_ones(size: float) -> None:
    of = session(8)
    _, nats = accumulate(of, ROWS, 0.5)
    for parameter in of.parts.model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * size
    before = gradients(of).double()
    of.config.clip = 0.25 * float(before.norm())
    torch.testing.assert_close(clip(of, nats).norm.double(), before.norm(), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(gradients(of).double(), before * 0.25, rtol=1e-5, atol=0.0)
    of.config.clip *= 2.0
    clip(of, nats)  # below the limit nothing changes
    torch.testing.assert_close(gradients(of).double(), before * 0.25, rtol=1e-5, atol=0.0)


def test_clipping_bounds_the_norm_and_keeps_the_direction() -> None:
    free, clipped = session(8), session(8)
    clipped.config.clip = 0.1
    for of in (free, clipped):
        _, nats = accumulate(of, ROWS, 0.0)
        clip(of, nats)
    norm = torch.linalg.vector_norm(gradients(free))
    torch.testing.assert_close(gradients(clipped), gradients(free) * (0.1 / norm), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("nats", "gradient"), [(float("nan"), 1.0), (1.0, float("inf")), (1.0, float("nan"))])
def test_a_loss_or_gradient_that_is_not_finite_is_seen(nats: float, gradient: float) -> None:
    of = session(8)
    accumulate(of, ROWS, 0.0)
    assert bool(clip(of, torch.tensor(1.0)).finite)
    next(of.parts.model.parameters()).grad[0, 0] *= gradient
    assert not bool(clip(of, torch.tensor(nats)).finite)


def test_dropout_of_an_update_depends_on_its_number_and_the_seed_alone(tmp_path: Path) -> None:
    sessions = {seed: make_session(tmp_path, seed=seed, dropout=True) for seed in (0, 1, 2**32, 2**63 - 1)}

    def draw(seed: int, update: int) -> list[float]:
        session = sessions[seed]
        session.clock.updates = update
        seed_dropout(session)
        return torch.rand(4).tolist()

    drawn = [draw(seed, update) for seed, update in ((0, 0), (0, 1), (1, 0), (2**32, 0), (2**63 - 1, 0))]
    torch.rand(3)
    assert draw(0, 1) == drawn[1]
    assert len({tuple(numbers) for numbers in drawn}) == 5
    without = make_session(tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(4).tolist()
    torch.manual_seed(5)
    seed_dropout(without)
    assert torch.rand(4).tolist() == expected


def test_dropout_is_off_in_evaluation_mode_only() -> None:
    model = torch.nn.Dropout(0.5)
    with pytest.raises(ZeroDivisionError), in_evaluation_mode(model):
        assert not model.training
        raise ZeroDivisionError
    assert model.training
