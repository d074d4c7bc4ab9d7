"""Updates that a device has been given and whose figures have not come back yet."""

import torch


class Launched:
    """An update whose figures are still on their way from the device.

    Args:
        positions: positions of the update, padding included.
        predicted: its predicted tokens.
        figures: fp32 (2): the sum of its nats, and 1 where loss and gradients were finite.
    """

    def __init__(self, positions: int, predicted: int, figures: torch.Tensor) -> None:
        self.positions, self.predicted = positions, predicted
        self._figures = figures
        self._arrived: torch.cuda.Event | None = None
        if figures.device.type == "cuda":
            self._figures = torch.empty(2, pin_memory=True).copy_(figures, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def wait(self) -> tuple[float, bool]:
        """Wait for the device, and give the nats of the update and whether it was finite."""
        if self._arrived is not None:
            self._arrived.synchronize()
        nats, finite = self._figures.tolist()
        return nats, bool(finite)
