"""The cost model: seconds of an update of any shape, from what it counts and what each of these takes on a device."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from cram.errors import CramError
from cram.machine.peaks import PEAK_FLOPS, peak_of
from cram.planner.shape import Shape
from cram.planner.throughput import TimedShape
from cram.planner.workload import TIMED_PROGRESS, Workload

COSTS = Path(__file__).resolve().parent / "costs"
# How firmly the costs of a model stay in proportion while it is adapted: one hundred timed shapes that are 1.7% off
# weigh as much as one cost that is doubled. Chosen by predicting timed shapes of one kind of CPU from the model of
# another: more leaves the proportions of the other, less follows the noise of single measurements.
FIRMNESS = 0.03
# No cost becomes less than this share of what it was, because one that is zero could not be adapted again.
LEAST_FACTOR = 0.1
# Seconds of a unit of each count, to an order of magnitude: what a measured model is first adapted from.
_ASSUMED = {
    "cpu": {
        "products": 1 / 200e9,
        "logits": 3e-9,
        "activations": 4e-9,
        "orthogonalisation": 1 / 200e9,
        "parameters": 1e-8,
        "layers": 3e-3,
        "update": 2e-3,
    },
    "cuda": {
        "products": 1 / 50e12,
        "logits": 2e-11,
        "activations": 2e-11,
        "orthogonalisation": 1 / 50e12,
        "parameters": 5e-11,
        "layers": 1e-3,
        "update": 3e-3,
    },
}
_PROGRESS_STEPS = 20


@dataclass(frozen=True)
class CostModel:
    """Seconds of an update as a sum of counts times the seconds of each.

    Attributes:
        work: what the shapes have in common.
        costs: seconds of a unit of each count of `Workload.counts`.
        origin: where the costs are from, for a reader.
        error: relative error at shapes that were left out of the fit, as a root mean square; None if unknown.
        timed: the shapes that were timed here, with their seconds at the share that was predicted then.
    """

    work: Workload
    costs: dict[str, float]
    origin: str
    error: float | None = None
    timed: dict[Shape, TimedShape] = field(default_factory=dict)

    def predict(self, shape: Shape, progress: float = TIMED_PROGRESS) -> float:
        """Predict the seconds of an update at some progress; infinite for a shape that was timed and did not fit.

        For a shape that was timed, its own seconds count, and the model only for another share of predicted positions.
        """
        return self._correction(shape) * self._seconds(shape, self.work.share(progress))

    def tokens_per_second(self, shape: Shape) -> float:
        """Predict the tokens a second, on average over the time of a whole budget."""
        tokens = self.work.rows(shape) * self.work.config.data.seq_len / self._correction(shape)
        # Seconds are a line over the share of the positions that is predicted, and a plan asks for hundreds of them.
        none, every = (self._seconds(shape, share) for share in (0.0, 1.0))
        return statistics.fmean(tokens / (none + share * (every - none)) for share in self._shares)

    def scaled(self, factor: float) -> "CostModel":
        """Give the model of a device that needs `factor` times as long for everything."""
        return replace(self, costs={name: factor * cost for name, cost in self.costs.items()}, timed={})

    def adapted(self, timed: Sequence[TimedShape], origin: str, firmness: float = FIRMNESS) -> "CostModel":
        """Fit the costs to shapes that were timed, the more the more of them there are.

        All costs are first scaled by the median of the ratios of measured and predicted seconds. Then each gets a
        factor of its own: the least squares of the relative errors and of the distances of the factors from 1. With one
        shape this scales the model; with many it is a fit of its own. The error is that of each shape predicted from
        all others.

        Args:
            firmness: weight of the distances of the factors.
        """
        by_shape = {item.shape: item for item in timed}
        finite = [item for item in timed if math.isfinite(item.seconds)]
        if not finite:
            return replace(self, timed=by_shape)
        counts = [self.work.counts(item.shape, item.share) for item in finite]
        parts = np.array([[count[name] * cost for name, cost in self.costs.items()] for count in counts])
        seconds = np.array([item.seconds for item in finite])
        factors = _factors(parts, seconds, firmness)
        costs = {name: float(cost * factor) for (name, cost), factor in zip(self.costs.items(), factors, strict=True)}
        error = _left_out_error(parts, seconds, firmness) if len(finite) > 1 else self.error
        return replace(self, costs=costs, origin=origin, error=error, timed=by_shape)

    def to_json(self) -> dict[str, Any]:
        """Give what is kept of the model: costs, to three digits, and error."""
        return {
            "costs": {name: float(f"{cost:.3g}") for name, cost in self.costs.items()},
            "error": None if self.error is None else round(self.error, 3),
        }

    @cached_property
    def _shares(self) -> tuple[float, ...]:
        """The share of the positions that is predicted, at moments spread over the budget."""
        return tuple(self.work.share((step + 0.5) / _PROGRESS_STEPS) for step in range(_PROGRESS_STEPS))

    def _correction(self, shape: Shape) -> float:
        """Give the factor of the model's seconds that leads to those that a shape was timed with; else 1."""
        timed = self.timed.get(shape)
        return 1.0 if timed is None else timed.seconds / self._seconds(shape, timed.share)

    def _seconds(self, shape: Shape, share: float) -> float:
        counts = self.work.counts(shape, share)
        return sum(cost * counts[name] for name, cost in self.costs.items())


def _factors(
    parts: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64], firmness: float
) -> npt.NDArray[np.float64]:
    """Find a factor for each cost.

    Args:
        parts: float64 (shapes, costs), the predicted seconds by cost.
        seconds: float64 (shapes), the measured ones.
        firmness: weight of the distances of the factors from their common value.
    """
    common = float(np.median(seconds / parts.sum(1)))
    relative = common * parts / seconds[:, None]
    firm = math.sqrt(firmness) * np.eye(parts.shape[1])
    equations = np.vstack([relative, firm])
    wanted = np.concatenate([np.ones(len(seconds)), firm.sum(1)])
    above, _ = nnls(equations, wanted - LEAST_FACTOR * equations.sum(1))
    factors: npt.NDArray[np.float64] = common * (LEAST_FACTOR + above)
    return factors


def _left_out_error(parts: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64], firmness: float) -> float:
    """Predict each shape from all others; return the root mean square of the relative errors."""
    others = [np.arange(len(seconds)) != left_out for left_out in range(len(seconds))]
    predicted = np.array(
        [row @ _factors(parts[kept], seconds[kept], firmness) for row, kept in zip(parts, others, strict=True)]
    )
    return float(np.sqrt(np.mean((predicted / seconds - 1.0) ** 2)))


def assumed_cost(work: Workload) -> CostModel:
    """Give a model of the right order of magnitude for the type of device, to be adapted to timed shapes."""
    return CostModel(work, _ASSUMED[work.device_type], "assumed")


def kept_cost(work: Workload, precision: str) -> CostModel:
    """Give the model that comes with cram for a device and precision, to be scaled by a few timed shapes.

    Args:
        precision: `bf16`, `fp16` or `fp32`. A CPU that multiplies bf16 is another kind of CPU than one that does not.
    """
    path = COSTS / f"{work.device_type}_{precision}.json"
    if not path.is_file():
        return assumed_cost(work)
    kept = json.loads(path.read_text(encoding="utf-8"))
    model = kept["models"].get(work.config.model.kind) or kept["models"]["encoder"]
    return CostModel(work, model["costs"], f"kept: {kept['device']}, {precision}", model["error"])


def datasheet_cost(work: Workload, card: str, utilisation: float) -> CostModel:
    """Give the model of a card that is not here: its published peak rate times an assumed utilisation.

    Args:
        card: as `cram.machine.peaks` names it, such as `RTX 4090`.
        utilisation: the share of the peak rate that training reaches, all that is no matrix product counted in.

    Raises:
        CramError: the card is unknown.
    """
    peak = peak_of(card)
    if peak is None:
        raise CramError(f"card={card} is unknown. Known cards: {', '.join(PEAK_FLOPS)}.")
    costs = dict.fromkeys(_ASSUMED["cuda"], 0.0)
    costs["products"] = costs["orthogonalisation"] = 1.0 / (peak * utilisation)
    origin = f"datasheet: {card}, {peak / 1e12:.4g} TFLOP/s at an assumed utilisation of {utilisation:.0%}"
    return CostModel(work, costs, origin)
