"""Reference models, which methods train before the first update and ask for the loss of rows."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cram.files.tensors import check_tensors
from cram.training.gradients import accumulate, clip, nats_per_row
from cram.training.saving import save
from cram.training.session import LoopConfig, Parts, RunState, Session, UpdateParts


@dataclass(frozen=True)
class ReferenceSession:
    """A `cram.training.session.UpdateSession` of a reference model."""

    parts: UpdateParts
    config: LoopConfig
    state: RunState


class Reference:
    """A `cram.methods.beginning.ReferenceModel`, trained with the settings of the run.

    Args:
        session: model, optimizer and micro-batch.
        run: the parts of the run, for its schedule.
        count: called with the positions of each update.
    """

    def __init__(self, session: ReferenceSession, run: Parts, count: Callable[[int], None]) -> None:
        self._session, self._run, self._count = session, run, count
        self.blocks = int(session.parts.model.computed_blocks)

    def update(self, rows: Any, begin: float, progress: float) -> None:
        """Train on rows, from one value of progress to another."""
        parts = self._session.parts
        _, nats = accumulate(self._session, rows, progress)
        finite = clip(self._session, nats).finite
        at = self._run.rate_progress(begin, progress)
        multiplier, others = self._run.multipliers(at)
        parts.optimizer.step(multiplier, at, finite, others)
        parts.work.add_step(parts.optimizer.kind, self.blocks)
        if parts.loss_scale:
            parts.loss_scale.update()
        parts.model.zero_grad(set_to_none=True)
        self._count(len(rows.tokens) * parts.seq_len)

    def nats_per_row(self, rows: Any, progress: float) -> tuple[torch.Tensor, npt.NDArray[np.int64]]:
        """Compute the nats of each row, fp32 (rows,), and the number of its predicted tokens, without gradients."""
        return nats_per_row(self._session, rows, progress)

    def forget_optimizer(self) -> None:
        """Free the state of the optimizer."""
        self._session.parts.optimizer.load_state_tensors({})

    def state_tensors(self) -> dict[str, torch.Tensor]:
        """Give weights and optimizer as named tensors."""
        parts = self._session.parts
        weights = {f"model/{name}": tensor for name, tensor in parts.model.state_dict().items()}
        return weights | {f"optimizer/{name}": tensor for name, tensor in parts.optimizer.state_tensors().items()}

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Put back what `state_tensors` gave.

        Raises:
            CramError: for a tensor that does not fit.
        """
        model, optimizer = (
            {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            for prefix in ("model/", "optimizer/")
        )
        check_tensors(model, self._session.parts.model.state_dict())
        self._session.parts.model.load_state_dict(model)
        self._session.parts.optimizer.load_state_tensors(optimizer)


class SessionBeginning:
    """A `cram.methods.beginning.Beginning` of a run."""

    def __init__(self, session: Session) -> None:
        self._session = session
        parts = session.parts
        self.numbers = parts.loader.numbers()
        self.update_rows = max(1, round(parts.batch_tokens(1.0) / parts.seq_len))

    @property
    def spent(self) -> float:
        """Share of the budget that reference models have spent so far."""
        return self._session.clock.began / self._session.clock.budget.limit

    def cost(self, rows: int) -> float:
        """Share of the budget that an update of a reference model on so many rows is expected to spend."""
        clock = self._session.clock
        return clock.cost(rows * self._session.parts.seq_len) / clock.budget.limit

    def read(self, numbers: npt.NDArray[np.int64], epoch: int = 0) -> Any:
        """Read rows by their numbers."""
        return self._session.parts.loader.read(numbers, epoch)

    def reference(self, layers: int | None = None) -> Reference:
        """Make a model like that of the run, with other random weights and so many blocks."""
        session = self._session
        parts = session.parts.new_reference(layers)
        state = RunState(micro_rows=session.state.micro_rows)
        reference = ReferenceSession(parts, session.config, state)
        return Reference(reference, session.parts, session.clock.count_reference)


def begin_methods(session: Session) -> bool:
    """Let the methods do what comes before the first update, and say which rows are trained on.

    Returns:
        False after a request to stop; the state is saved then.
    """
    parts, clock = session.parts, session.clock
    if parts.methods.claims("start"):
        beginning, worked, saved_at = SessionBeginning(session), False, time.monotonic()
        while True:
            with clock.beginning(), clock.account("methods"):
                done = parts.methods.start(beginning)
            if session.stop_requested() and not done:
                save(session)
                return False
            if done:
                break
            if not worked:
                print("reference models are trained before the first update", flush=True)
            worked = True
            if time.monotonic() - saved_at >= session.config.checkpoint_seconds:
                save(session)
                saved_at = time.monotonic()
                print(f"reference models: {beginning.spent:.1%} of the budget so far", flush=True)
        if worked:
            print(f"reference models are trained; they took {beginning.spent:.1%} of the budget", flush=True)
            save(session)
    parts.methods.order(parts.loader)
    return True
