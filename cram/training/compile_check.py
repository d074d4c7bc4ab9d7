"""Comparing compiled code with eager code, before it is trusted."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cram.training.gradients import accumulate, eagerly, seed_dropout
from cram.training.session import RankSession

CHECKED_MICRO_BATCHES = 2  # one that creates the gradients, one that adds to them
WARMUP_PASSES = 3  # a CUDA graph is run, recorded and replayed


@dataclass(frozen=True)
class Tolerance:
    """The largest relative differences that are allowed: of the loss, and of the gradient of a parameter."""

    loss: float
    gradient: float


# Compiled code rounds at other places: it may keep in fp32 what eager code stores in half precision between two
# operations. Measured on a CPU in bf16, six blocks of 256: 3e-6 for the loss; for gradients 4e-3 of a decoder, 0 of an
# encoder. Attention on a GPU adds up in another order. Wrong code differs by about as much as the gradient itself.
TOLERANCES = {torch.float32: Tolerance(1e-4, 1e-3)}
HALF_TOLERANCE = Tolerance(1e-2, 1e-1)
# A gradient is compared relative to its norm, or to this share of the norm of all gradients if that is larger.
SMALLEST_SHARE = 1e-3


@dataclass(frozen=True)
class Check:
    """The largest differences between compiled and eager code, and the parameter whose gradient differs most."""

    updates: int
    loss: float
    gradient: float
    parameter: str
    passed: bool

    def describe(self, precision: torch.dtype) -> str:
        """Say how large the differences are, and how large they may be."""
        allowed = TOLERANCES.get(precision, HALF_TOLERANCE)
        return (
            f"against eager code the loss is off by {self.loss:.1e} of it (allowed {allowed.loss:.0e}) and the "
            f"gradient of {self.parameter} by {self.gradient:.1e} (allowed {allowed.gradient:.0e})"
        )


def compare(session: RankSession, updates: int) -> Check:
    """Compute the same updates of each phase eagerly and compiled, from the same weights and rows, and compare.

    The gradients are compared, not the weights after an optimizer: the optimizer is not compiled, and the first steps
    of AdamW are the signs of the gradients, which rounding can flip. Each update moves the weights along the eager
    gradients, because projections that begin at zero block the gradients of other weights. The weights are put back
    bit for bit.
    """
    rows = _rows_to_check(session)
    parameters = dict(session.parts.model.named_parameters())
    weights = [parameter.detach().clone() for parameter in parameters.values()]
    loss, gradient, worst = 0.0, 0.0, ""
    try:
        for progress in session.parts.objective.phases * updates:
            with eagerly():
                reference, expected = _pass(session, rows, progress)
            value, gradients = _pass(session, rows, progress)
            loss = max(loss, _nan_to_infinity(abs(value - reference) / max(abs(reference), 1e-9)))
            for name, difference in _differences(gradients, expected).items():
                if difference > gradient:
                    gradient, worst = difference, name
            _move(parameters, expected)
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(parameters.values()), weights)
        session.parts.model.zero_grad(set_to_none=True)
    allowed = TOLERANCES.get(session.parts.precision, HALF_TOLERANCE)
    return Check(updates, loss, gradient, worst, loss <= allowed.loss and gradient <= allowed.gradient)


def _rows_to_check(session: RankSession) -> Any:
    """Look at the rows of a few whole micro-batches. Training takes them later."""
    joined = max(map(session.parts.objective.rows_joined, session.parts.objective.phases))
    micro, left = session.state.micro_rows * joined, session.parts.loader.rows_left
    return session.parts.loader.peek(min(CHECKED_MICRO_BATCHES * micro, left - left % micro))


def _pass(session: RankSession, rows: Any, progress: float) -> tuple[float, dict[str, Tensor]]:
    """Compute nats per predicted token and the gradients by parameter, and leave no gradient in the model."""
    seed_dropout(session)
    predicted, nats = accumulate(session, rows, progress)
    gradients = {name: p.grad for name, p in session.parts.model.named_parameters() if p.grad is not None}
    session.parts.model.zero_grad(set_to_none=True)
    return float(nats) / max(predicted, 1), gradients


def _differences(gradients: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Compute the norm of each difference, relative to the norm of the gradient or a small share of all gradients."""
    if gradients.keys() != expected.keys():
        missing = sorted(gradients.keys() ^ expected.keys())
        return dict.fromkeys(missing, math.inf)
    norms = torch.stack(torch._foreach_norm(list(expected.values())))
    apart = torch.stack([torch.linalg.vector_norm(gradients[name] - expected[name]) for name in expected])
    shares = apart / norms.clamp(min=SMALLEST_SHARE * float(torch.linalg.vector_norm(norms)))
    # Where fp16 overflows in both, there is nothing to compare.
    shares = torch.where(norms.isfinite(), shares, 0.0)
    return {name: _nan_to_infinity(share) for name, share in zip(expected, shares.tolist(), strict=True)}


def _nan_to_infinity(difference: float) -> float:
    """Count NaN as infinite, so that it is larger than every tolerance."""
    return math.inf if math.isnan(difference) else difference


@torch.no_grad()
def _move(parameters: dict[str, nn.Parameter], gradients: dict[str, Tensor]) -> None:
    """Move each parameter against its gradient, by 0.001 in the root mean square."""
    for name, gradient in gradients.items():
        size = gradient.square().mean().sqrt()
        step = torch.where(size.isfinite() & (size > 0.0), gradient / size.clamp(min=1e-30), 0.0)
        parameters[name].sub_(step, alpha=1e-3)


def warm_up(session: RankSession) -> None:
    """Run everything that an update will call, so that it is compiled, and throw the gradients away."""
    for progress in session.parts.objective.phases * WARMUP_PASSES:
        _pass(session, _rows_to_check(session), progress)
