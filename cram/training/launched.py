"""Updates that a device has been given and whose figures have not come back yet."""

import torch

from cram.training.noise_scale import NoiseProbe


class Launched:
    """An update whose figures are still on their way from the device.

    Args:
        positions: positions of the update, padding included.
        predicted: its predicted tokens.
        nats: fp32 scalar: the sum of its nats.
        norm: fp32 scalar: the norm of its gradient before clipping.
        finite: bool scalar: whether loss and gradients were finite.
        flops: operations of the blocks in its passes.
        probe: where its gradient noise is measured.
    """

    def __init__(
        self,
        positions: int,
        predicted: int,
        nats: torch.Tensor,
        norm: torch.Tensor,
        finite: torch.Tensor,
        flops: float = 0.0,
        probe: NoiseProbe | None = None,
    ) -> None:
        self.positions, self.predicted, self.flops, self.probe = positions, predicted, flops, probe
        # One tensor, so that one copy brings all figures to the host.
        figures = torch.stack([nats, norm, finite.float(), *(probe.norms if probe else [])])
        self._figures = figures
        self._arrived: torch.cuda.Event | None = None
        if figures.device.type == "cuda":
            self._figures = torch.empty(figures.shape, pin_memory=True).copy_(figures, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def wait(self) -> tuple[float, float, bool, list[float]]:
        """Wait for the device, and give the figures of the update.

        Returns:
            Its nats, the norm of its gradient, whether both were finite, and the norms of its probe.
        """
        if self._arrived is not None:
            self._arrived.synchronize()
        nats, norm, finite, *norms = self._figures.tolist()
        return nats, norm, bool(finite), norms
