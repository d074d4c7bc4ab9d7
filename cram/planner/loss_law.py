"""The law by which a plan predicts the loss of a short run, from size, tokens and tokens of an update.

    r = r_inf + (Nc / N)^aN + (Sc / Smin)^aS        at most 1
    Smin = D / (B + Bcrit)

r is the held-out loss as a share of the unigram baseline's, N the parameters without the embedding, D the tokens and B
the tokens of an update, so that D / B is the number of updates. Smin is the number of updates that very large updates
would need: (D / B) / (1 + Bcrit / B).

Source: arXiv:2001.08361 equations 1.6 and 5.4, changed: the loss is relative to the unigram baseline, so that the law
of one text can serve another; a floor r_inf is added; the critical batch Bcrit is one constant and does not depend on
the loss, since short runs cover too narrow a range of losses to tell; the loss is at most the baseline's, which a run
that is too short does not get past.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cram.config.config import Config
from cram.errors import CramError
from cram.files.atomic import read_json, write_json
from cram.planner.regression import RESAMPLES, Unknown, Values, fit_logarithm
from cram.planner.runs import FittedRun, RunKind, check_one_kind, check_variety

FITS = Path(__file__).resolve().parent / "fits"  # laws that come with cram
CONSTANTS = ("floor", "size_scale", "size_exponent", "update_scale", "update_exponent", "critical_batch")
LEAST_RUNS = 8  # two more than constants
REACH = 1.5  # factor beyond the fitted range within which a law still counts as covering a run
LEAST_GAIN = 0.9  # a floor must lower the residual at least to this share of what it is without one

_SIZE = (Unknown("size_term", 1e-4, 3.0), Unknown("size_exponent", 0.02, 1.5))
_UPDATES = (Unknown("update_term", 1e-4, 10.0), Unknown("update_exponent", 0.02, 3.0))


@dataclass(frozen=True)
class LossLaw:
    """A law of the relative loss with its constants, and what it was fitted to.

    Attributes:
        floor: r_inf, the relative loss of an endless run of an endless model.
        size_scale: Nc, parameters.
        size_exponent: aN.
        update_scale: Sc, updates.
        update_exponent: aS.
        critical_batch: Bcrit, tokens.
        intervals: of each constant, from the 5th to the 95th percentile of the bootstrap.
        residual: standard deviation of the logarithm of the relative loss, observed over predicted.
        parameters: least and largest number of parameters of the runs.
        tokens: least and largest number of tokens of the runs.
        batch: least and largest batch of the runs, in tokens.
        unigram_nats: mean unigram baseline of the runs, nats per token.
        runs: number of runs.
        kind: what the runs share.
    """

    floor: float
    size_scale: float
    size_exponent: float
    update_scale: float
    update_exponent: float
    critical_batch: float
    intervals: dict[str, tuple[float, float]]
    residual: float
    parameters: tuple[float, float]
    tokens: tuple[float, float]
    batch: tuple[float, float]
    unigram_nats: float
    runs: int
    kind: RunKind

    def predict(self, parameters: float, tokens: float, batch: float) -> float:
        """Predict the loss of a run as a share of the unigram baseline's.

        Args:
            parameters: number without the embedding.
            tokens: to train on.
            batch: tokens of an update.
        """
        if tokens <= 0:
            return 1.0
        updates = tokens / (batch + self.critical_batch)
        size_term = (self.size_scale / parameters) ** self.size_exponent
        loss: float = self.floor + size_term + (self.update_scale / updates) ** self.update_exponent
        return min(1.0, loss)

    def covers(self, parameters: float, tokens: float, batch: float) -> bool:
        """Whether the law was fitted to such runs: each figure is within its range, or beyond it by at most `REACH`."""
        pairs = ((parameters, self.parameters), (tokens, self.tokens), (batch, self.batch))
        return all(least / REACH <= value <= most * REACH for value, (least, most) in pairs)


def fit_loss_law(runs: Sequence[FittedRun], resamples: int = RESAMPLES) -> LossLaw:
    """Fit the law to finished runs. Runs that repeated data are left out.

    The law has a floor only where it fits clearly better with one, by `LEAST_GAIN`: small runs are far above any floor.

    Args:
        resamples: number of bootstrap samples.

    Raises:
        CramError: the runs are of several kinds, or of too few sizes, token counts or batch sizes.
    """
    runs = [run for run in runs if not run.repeats]
    kind = check_one_kind(runs)
    check_variety(runs, sizes=3, token_counts=2, batches=2)
    if len(runs) < LEAST_RUNS:
        raise CramError(f"fit= has {len(runs)} runs, and the law of the loss needs {LEAST_RUNS}. Add runs.")
    size, tokens, batch = (
        np.array([getattr(run, name) for run in runs], dtype=float) for name in ("parameters", "tokens", "batch")
    )
    relative = np.array([run.relative_loss for run in runs])
    middle_size, middle_updates = (float(np.exp(np.mean(np.log(values)))) for values in (size, tokens / batch))

    def predict(values: Values) -> np.ndarray:
        size_term = values["size_term"] * (middle_size / size) ** values["size_exponent"]
        updates = tokens / (batch + values["critical_batch"])
        update_term = values["update_term"] * (middle_updates / updates) ** values["update_exponent"]
        return np.minimum(1.0, values.get("floor", 0.0) + size_term + update_term)

    critical = Unknown("critical_batch", float(batch.min()) / 100, float(batch.max()) * 100)
    floor = Unknown("floor", 0.0, 0.99 * float(relative.min()), linear=True)
    unknowns = (*_SIZE, *_UPDATES, critical)
    fit = fit_logarithm(predict, relative, unknowns, resamples)
    with_floor = fit_logarithm(predict, relative, (*unknowns, floor), resamples)
    if with_floor.residual < LEAST_GAIN * fit.residual:
        fit = with_floor
    constants, intervals = fit.derive(lambda values: _constants(values, middle_size, middle_updates))
    return LossLaw(
        **constants,
        intervals=intervals,
        residual=fit.residual,
        parameters=(float(size.min()), float(size.max())),
        tokens=(float(tokens.min()), float(tokens.max())),
        batch=(float(batch.min()), float(batch.max())),
        unigram_nats=float(np.mean([run.unigram_nats for run in runs])),
        runs=len(runs),
        kind=kind,
    )


def _constants(values: Values, middle_size: float, middle_updates: float) -> Values:
    """Convert the terms at the middle of the runs, which the fit looks for, to the scales of the law."""
    return {
        "floor": values.get("floor", 0.0),
        "size_scale": middle_size * values["size_term"] ** (1 / values["size_exponent"]),
        "size_exponent": values["size_exponent"],
        "update_scale": middle_updates * values["update_term"] ** (1 / values["update_exponent"]),
        "update_exponent": values["update_exponent"],
        "critical_batch": values["critical_batch"],
    }


def write_loss_law(path: Path, law: LossLaw) -> None:
    """Write a law as JSON, with all fields of `LossLaw`."""
    write_json(path, asdict(law))


def find_law(config: Config) -> LossLaw | None:
    """Find the kept law of the model kind and the objective of a config; None if there is none.

    Laws are relative to the unigram baseline, so that one text's serves another. Of several the one whose vocabulary is
    nearest in size is taken.
    """
    laws = [read_loss_law(path) for path in sorted(FITS.glob("*.json"))]
    suiting = [
        law for law in laws if (law.kind.model, law.kind.objective) == (config.model.kind, config.objective.words)
    ]
    return min(suiting, key=lambda law: abs(law.kind.vocab_size - config.wordpiece.vocab_size), default=None)


def read_loss_law(path: Path) -> LossLaw:
    """Read a law.

    Raises:
        CramError: the file is not one that `write_loss_law` has written.
    """
    try:
        return parse_loss_law(read_json(path))
    except (AttributeError, KeyError, TypeError, ValueError):
        message = f"{path}: not a law that cram.plan has fitted. Make it again with fit=FOLDER to={path}."
        raise CramError(message) from None


def parse_loss_law(content: Any) -> LossLaw:
    """Make a law of its JSON form; one that is not that is an AttributeError, KeyError, TypeError or ValueError."""
    rest = dict(content)
    kind = RunKind(**rest.pop("kind"))
    intervals = {name: _pair(ends) for name, ends in rest.pop("intervals").items()}
    ranges: dict[str, Any] = {name: _pair(rest.pop(name)) for name in ("parameters", "tokens", "batch")}
    numbers: dict[str, Any] = {name: _number(value) for name, value in rest.items()}
    return LossLaw(kind=kind, intervals=intervals, **ranges, **numbers)


def _pair(ends: Any) -> tuple[float, float]:
    low, high = ends
    return _number(low), _number(high)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    return value
