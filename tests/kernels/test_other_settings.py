"""Every kernel computes the same with other launch settings than its rule chooses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import cram_kernels as ck
from cram_kernels._settings import LaunchSettings, choose_by
from cram_kernels._tuned import MOST_BLOCKS, Choice, Tuned, find_obstacle

CALLS: dict[str, tuple[int, Callable[[torch.Tensor], Any]]] = {
    "layer_norm": (24, lambda x: ck.layer_norm(x, torch.ones(24, device=x.device))),
    "softmax": (24, ck.softmax),
    "cross_entropy": (24, lambda x: ck.cross_entropy(x, 2 * torch.arange(len(x), device=x.device))),
    "cross_entropy, rows that are not aligned": (
        37,
        lambda x: ck.cross_entropy(x, 6 * torch.arange(len(x), device=x.device), label_smoothing=0.1),
    ),
    "linear_cross_entropy": (
        16,
        lambda x: ck.linear_cross_entropy(x, torch.eye(37, 16, device=x.device), torch.arange(len(x), device=x.device)),
    ),
    "geglu": (48, ck.geglu),
    "rope": (
        48,
        lambda x: ck.rope(
            x.view(1, len(x), 1, 48),
            x.view(1, len(x), 1, 48),
            torch.full((1, len(x), 24), 0.6, device=x.device),
            torch.full((1, len(x), 24), 0.8, device=x.device),
        )[0],
    ),
}
NEIGHBOURS: dict[str, Callable[[LaunchSettings], LaunchSettings]] = {
    "more rows": lambda s: LaunchSettings(2 * s.rows, s.block, s.warps, s.stages),
    "one row": lambda s: LaunchSettings(1, s.block, s.warps, s.stages),
    "wide block": lambda s: LaunchSettings(s.rows, 2 * s.block, s.warps, s.stages),
    "narrow block": lambda s: LaunchSettings(s.rows, 8, s.warps, s.stages),
    "narrowest block": lambda s: LaunchSettings(s.rows, 1, s.warps, s.stages),
    "more stages": lambda s: LaunchSettings(s.rows, s.block, s.warps, s.stages + 1),
}


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
@pytest.mark.parametrize("name", CALLS)
def test_every_kernel_computes_the_same_with_other_settings(
    name: str, neighbour: str, device: torch.device, backend: str
) -> None:
    """Where a block may be narrower than a row, the kernel goes through the row in several blocks."""
    if backend == "reference":
        pytest.skip("the reference has no launch settings")
    width, call = CALLS[name]
    chosen = []

    def chooser(choice: Choice, rule: LaunchSettings) -> LaunchSettings:
        settings = NEIGHBOURS[neighbour](rule)
        fits = find_obstacle(choice, Tuned(settings.rows, settings.block, settings.warps, settings.stages)) is None
        assert fits or (MOST_BLOCKS[choice.kernel] and "narrow" in neighbour)
        chosen.append(choice.kernel)
        return settings if fits else rule

    x = torch.randn(7, width, device=device, requires_grad=True)
    results = []
    for chooser_or_rule in (None, chooser):
        with choose_by(chooser_or_rule or (lambda _, rule: rule)):
            result = call(x)
            (grad,) = torch.autograd.grad(result, x, torch.ones_like(result))
            results.append((result.detach(), grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)
    assert chosen
