"""What a method may do, and does not unless it says so."""

from torch import Tensor, nn

from cram.files.tensors import check_tensors


class Method:
    """A technique that works beside the optimizer, driven by progress in [0, 1], the spent share of the budget."""

    name: str

    def after_step(self, model: nn.Module, progress: float) -> None:
        """Called when the weights have changed."""

    def finish(self, model: nn.Module) -> None:
        """Called at the end of the budget; what it leaves in the model is the result. It may be called again."""

    def state_tensors(self) -> dict[str, Tensor]:
        """What a resumed run needs."""
        return {}

    def load_state_tensors(self, tensors: dict[str, Tensor], model: nn.Module) -> None:
        """Put back what `state_tensors` gave. Errors: CramError for what does not fit the model."""
        check_tensors(tensors, {})
