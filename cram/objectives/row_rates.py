"""Mask rates that vary from row to row round the rate of the schedule.

    rate of a row ~ Beta(mean * n, (1 - mean) * n),  n = 1 / spread^2 - 1

which has the standard deviation spread * sqrt(mean * (1 - mean)).

Source: arXiv:2605.13026, which draws the rate of each row from a bell-shaped distribution round one half, changed: the
distribution lies round the rate of the schedule, is a Beta distribution, and the loss of a row is not weighted.
"""

import numpy as np
import numpy.typing as npt

from cram.objectives.slots import Keys, mix

# Rows have room for the rates below this quantile. A rate above it is lowered to it, which moves the mean by less than
# a thousandth of it.
QUANTILE = 0.999
_RATE = np.uint64(0xD6E8FEB86659FD93)


class RowRates:
    """Draws the mask rate of each row by the row's key.

    Args:
        spread: `objective.mask_rate_spread`, in [0, 1); with 0 every row has the rate of the schedule.
    """

    def __init__(self, spread: float) -> None:
        self.spread = spread

    def most(self, mean: float) -> float:
        """The largest rate that a row can get at this rate of the schedule. It rises with the rate."""
        return float(self._quantiles(mean, np.array([QUANTILE]))[0])

    def draw(self, mean: float, keys: Keys) -> npt.NDArray[np.float64]:
        """Draw rates of the rows, float64 [rows].

        Args:
            mean: rate of the schedule.
            keys: uint64 [rows].
        """
        return self._quantiles(mean, np.minimum(mix(keys ^ _RATE) / 2.0**64, QUANTILE))

    def _quantiles(self, mean: float, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if not self.spread or mean >= 1.0:
            return np.full(len(shares), mean)
        from scipy.special import betaincinv  # 0.15 s to import, and only this lever needs it

        concentration = 1.0 / self.spread**2 - 1.0
        rates: npt.NDArray[np.float64] = betaincinv(mean * concentration, (1.0 - mean) * concentration, shares)
        return rates
