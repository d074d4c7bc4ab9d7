"""Updates that a device has been given and whose figures have not come back yet."""

import torch

from cram.training.noise_scale import NoiseProbe


class Launched:
    """An update whose figures are still on their way from the device.

    Args:
        positions: positions of the update, padding included.
        predicted: its predicted tokens.
        nats: fp32 scalar: the sum of its nats.
        finite: bool scalar: whether loss and gradients were finite.
        probe: where its gradient noise is measured.
    """

    def __init__(
        self, positions: int, predicted: int, nats: torch.Tensor, finite: torch.Tensor, probe: NoiseProbe | None = None
    ) -> None:
        self.positions, self.predicted, self.probe = positions, predicted, probe
        figures = torch.stack([nats, finite.float(), *(probe.norms if probe else [])])
        self._figures = figures
        self._arrived: torch.cuda.Event | None = None
        if figures.device.type == "cuda":
            self._figures = torch.empty(figures.shape, pin_memory=True).copy_(figures, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def wait(self) -> tuple[float, bool, list[float]]:
        """Wait for the device, and give the nats of the update, whether it was finite, and the norms of its probe."""
        if self._arrived is not None:
            self._arrived.synchronize()
        nats, finite, *norms = self._figures.tolist()
        return nats, bool(finite), norms
