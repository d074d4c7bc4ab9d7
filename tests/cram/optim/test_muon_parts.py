"""The parts of Muon: the schedules of momentum and steps, and rows of even size."""

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cram.config.optimizer import MuonConfig, OptimizerConfig
from cram.optim.groups import parameter_groups
from cram.optim.muon import Muon, even_rows, momentum_schedule, newton_schulz_steps


def drawn(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.floats(0.0, 1.0), st.floats(0.0, 0.99), st.floats(0.0, 0.99), st.floats(0.0, 1.0))
def test_momentum_rises_in_a_line_until_its_warmup_ends(start: float, end: float, until: float, at: float) -> None:
    start = min(start, 0.99)
    schedule = momentum_schedule(MuonConfig(momentum=end, momentum_start=start, momentum_warmup=until))
    expected = end if at >= until else start + (end - start) * at / until
    assert schedule(at) == pytest.approx(expected, abs=1e-12)


def test_steps_follow_progress_in_a_line_and_are_constant_without_a_final_number() -> None:
    config = MuonConfig(newton_schulz_steps=5, final_newton_schulz_steps=2)
    assert [newton_schulz_steps(config, progress) for progress in (0.0, 0.1, 0.3, 0.6, 0.9, 1.0)] == [5, 5, 4, 3, 2, 2]
    assert newton_schulz_steps(MuonConfig(newton_schulz_steps=5), 0.9) == 5


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.floats(0.0, 0.99))
def test_rows_are_divided_by_their_past_and_matrices_keep_their_norm(
    n: int, rows: int, columns: int, beta2: float
) -> None:
    squares = [torch.zeros(rows, 1, dtype=torch.float64) for _ in range(n)]
    past = [[0.0] * rows for _ in range(n)]
    for step in range(3):
        matrices = drawn((n, rows, columns), seed=step)
        even = even_rows(matrices, squares, beta2, torch.tensor(True))
        even_rows(matrices * float("nan"), squares, beta2, torch.tensor(False))
        for matrix, result, means in zip(matrices, even, past, strict=True):
            for row in range(rows):
                means[row] = beta2 * means[row] + (1 - beta2) * float(matrix[row].square().mean())
            divided = torch.stack([matrix[row] / means[row] ** 0.5 for row in range(rows)])
            torch.testing.assert_close(result, divided * matrix.norm() / divided.norm())


@pytest.mark.parametrize(("products", "expected"), [("auto", torch.bfloat16), ("fp32", torch.float32)])
def test_products_are_in_fp32_if_asked_for(
    products: Literal["auto", "fp32"], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cram.optim.whitening.pick_precision", lambda name, device: torch.bfloat16)
    dtypes = []

    def whiten(matrices: Tensor, config: MuonConfig, steps: int, dtype: torch.dtype) -> Tensor:
        dtypes.append((matrices.dtype, dtype))
        return matrices

    monkeypatch.setattr("cram.optim.muon.whiten", whiten)
    model = nn.Sequential(nn.Linear(4, 4))
    config = OptimizerConfig(kind="muon", muon=MuonConfig(products=products))
    model[0].weight.grad = torch.ones(4, 4)
    Muon(parameter_groups(model, config), config).step(1.0, 0.5)
    assert dtypes == [(expected, expected)]
