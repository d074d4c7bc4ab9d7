"""The parts of Muon: the Newton-Schulz iteration against singular values, and the schedule of the momentum."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cram.config.optimizer import MuonConfig
from cram.optim.muon import momentum_schedule, orthogonalise, product_dtype


def drawn(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def polynomial(values: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return values


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), st.integers(1, 6), st.floats(1e-3, 1e3))
def test_orthogonalising_is_a_polynomial_of_the_singular_values(
    n: int, rows: int, columns: int, steps: int, size: float
) -> None:
    matrices = drawn((n, rows, columns), seed=rows + 8 * columns) * size
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    expected = polynomial(values / values.norm(dim=1, keepdim=True), steps)
    torch.testing.assert_close(
        orthogonalise(matrices, steps, torch.float64), left @ torch.diag_embed(expected) @ right, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 48, 48), (2, 96, 48), (2, 48, 192), (3, 1, 48)])
def test_five_steps_bring_the_singular_values_near_one(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    matrices = drawn(shape).float()
    if shape[1] == shape[2]:  # a random square matrix has singular values near zero, which no five steps lift
        matrices += 10 * torch.eye(shape[1])
    values = torch.linalg.svdvals(orthogonalise(matrices, 5, dtype).float())
    margin = 0.0 if dtype == torch.float32 else 0.03
    assert 0.68 - margin < values.min() <= values.max() < 1.21 + margin
    assert torch.linalg.svdvals(matrices).max() > 5


def test_a_zero_matrix_stays_zero() -> None:
    assert not orthogonalise(torch.zeros(2, 3, 5), 5, torch.bfloat16).any()


@pytest.mark.parametrize("size", [1e-44, 1e-37, 1e-30, 1e-20, 1e-12, 1e-8, 1.0, 1e19, 1e37])
def test_the_result_does_not_depend_on_the_scale_of_the_matrix(size: float) -> None:
    matrices = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(3))
    expected = orthogonalise(matrices.double(), 5, torch.float64)
    small = (matrices.double() * size).float()
    if size < 1e-37:  # subnormal numbers have few digits: compared with their rounded values
        expected = orthogonalise(small.double(), 5, torch.float64)
    torch.testing.assert_close(orthogonalise(small, 5, torch.float32).double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("capability", "expected"), [((8, 0), torch.bfloat16), ((7, 5), torch.float32)])
def test_products_are_in_bf16_on_a_gpu_that_has_it(
    capability: tuple[int, int], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert product_dtype(torch.device("cuda"), torch.float32) == expected
    assert product_dtype(torch.device("cuda"), torch.float64) == torch.float64


@given(st.floats(0.0, 1.0), st.floats(0.0, 0.99), st.floats(0.0, 0.99), st.floats(0.0, 1.0))
def test_momentum_rises_in_a_line_until_its_warmup_ends(start: float, end: float, until: float, at: float) -> None:
    start = min(start, 0.99)
    schedule = momentum_schedule(MuonConfig(momentum=end, momentum_start=start, momentum_warmup=until))
    expected = end if at >= until else start + (end - start) * at / until
    assert schedule(at) == pytest.approx(expected, abs=1e-12)
