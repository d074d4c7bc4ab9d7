"""The two ways of whitening, against singular values, plain loops and the definition in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cram.optim.whitening import decorrelate, orthogonalise, product_dtype


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


def test_a_zero_matrix_and_a_zero_row_stay_zero() -> None:
    assert not orthogonalise(torch.zeros(2, 3, 5), 5, torch.bfloat16).any()
    assert not decorrelate(torch.zeros(2, 3, 5), 1, torch.bfloat16).any()
    matrices = drawn((1, 3, 5))
    matrices[0, 1] = 0.0
    result = decorrelate(matrices, 2, torch.float64)
    assert result.isfinite().all() and not result[0, 1].any() and result[0, 2].any()


@pytest.mark.parametrize("size", [1e-44, 1e-37, 1e-30, 1e-20, 1e-12, 1e-8, 1.0, 1e19, 1e37])
def test_the_result_does_not_depend_on_the_scale_of_the_matrix(size: float) -> None:
    matrices = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(3))
    expected = orthogonalise(matrices.double(), 5, torch.float64)
    small = (matrices.double() * size).float()
    if size < 1e-37:  # subnormal numbers have few digits: compared with their rounded values
        expected = orthogonalise(small.double(), 5, torch.float64)
    torch.testing.assert_close(orthogonalise(small, 5, torch.float32).double(), expected, rtol=1e-3, atol=1e-3)
    same = decorrelate(small.double() / size, 1, torch.float64)
    torch.testing.assert_close(decorrelate(small, 1, torch.float32).double(), same, rtol=1e-3, atol=1e-3)


def decorrelated_by_loops(matrix: Tensor, passes: int) -> Tensor:
    """MUD of one matrix, row by row: each row without its correlations with the finished rows above it."""
    if matrix.shape[0] > matrix.shape[1]:
        return decorrelated_by_loops(matrix.T, passes).T
    for _ in range(passes):
        rows = [row / row.norm() for row in matrix]
        solved: list[Tensor] = []
        for row in rows:
            overlaps = [(row @ above) * done for above, done in zip(rows, solved, strict=False)]
            solved.append(row - sum(overlaps, torch.zeros_like(row)))
        matrix = torch.stack([row / row.norm() for row in solved])
    return matrix


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.floats(1e-3, 1e3))
def test_decorrelating_solves_for_the_rows_one_after_the_other(
    n: int, rows: int, columns: int, passes: int, size: float
) -> None:
    matrices = drawn((n, rows, columns), seed=rows + 8 * columns) * size
    expected = torch.stack([decorrelated_by_loops(matrix, passes) for matrix in matrices])
    torch.testing.assert_close(decorrelate(matrices, passes, torch.float64), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", [(2, 24, 48), (2, 48, 24), (1, 24, 24)])
def test_decorrelating_leaves_orthonormal_rows_alone_and_brings_others_near_them(shape: tuple[int, int, int]) -> None:
    short = min(shape[1:])
    start = drawn(shape)
    left, _, right = torch.linalg.svd(start, full_matrices=False)
    torch.testing.assert_close(decorrelate(left @ right, 1, torch.float64), left @ right, rtol=1e-9, atol=1e-9)
    spreads = [torch.linalg.svdvals(decorrelate(start, passes, torch.float64)) for passes in (1, 3, 12)]
    for values in spreads:
        torch.testing.assert_close(values.square().sum(dim=1), torch.full(shape[:1], float(short)).double())
    assert spreads[0].std() > spreads[1].std() > spreads[2].std()
    torch.testing.assert_close(spreads[2], torch.ones_like(spreads[2]), rtol=0.0, atol=0.2)


def test_decorrelating_in_bf16_is_near_that_in_fp32() -> None:
    matrices = drawn((2, 64, 96)).float()
    exact, rounded = (decorrelate(matrices, 1, dtype) for dtype in (torch.float64, torch.bfloat16))
    assert rounded.dtype == torch.float32
    assert ((rounded - exact).norm() / exact.norm()).item() < 0.01


@pytest.mark.parametrize(("capability", "expected"), [((8, 0), torch.bfloat16), ((7, 5), torch.float32)])
def test_products_are_in_bf16_on_a_gpu_that_has_it(
    capability: tuple[int, int], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert product_dtype(torch.device("cuda"), torch.float32) == expected
    assert product_dtype(torch.device("cuda"), torch.float64) == torch.float64
