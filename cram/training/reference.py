"""Reference models, which methods train before the first update and ask for the loss of rows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cram.distributed.orders import on_all_ranks
from cram.distributed.ranks import Ranks
from cram.files.tensors import check_tensors
from cram.training.gradients import accumulate, clip, nats_per_row
from cram.training.row_source import share_out
from cram.training.saving import save
from cram.training.session import LoopConfig, Parts, RankSession, RunState, Session, UpdateParts


@dataclass(frozen=True)
class ReferenceSession:
    """A `cram.training.session.UpdateSession` of a reference model."""

    parts: UpdateParts
    config: LoopConfig
    state: RunState
    ranks: Ranks


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
        """Train on rows, of which each rank computes its share, from one value of progress to another."""
        parts = self._session.parts
        _, nats = accumulate(self._session, share_out(self._session, rows, progress), progress)
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
    """A `cram.methods.beginning.Beginning` of a run, with what rank 0 knows of the budget.

    Args:
        session: the run.
        spent: see `spent`.
        cost: share of the budget that an update costs, whatever its size, and that each row costs.
    """

    def __init__(self, session: RankSession, spent: float, cost: Sequence[float]) -> None:
        self._session, self.spent, self._cost = session, spent, cost
        parts = session.parts
        self.numbers = parts.loader.numbers()
        self.update_rows = max(1, round(parts.batch_tokens(1.0) / parts.seq_len))

    def cost(self, rows: int) -> float:
        """Share of the budget that an update of a reference model on so many rows is expected to spend."""
        of_update, of_row = self._cost
        return of_update + of_row * rows

    def read(self, numbers: npt.NDArray[np.int64], epoch: int = 0) -> Any:
        """Read rows by their numbers."""
        return self._session.parts.loader.read(numbers, epoch)

    def reference(self, layers: int | None = None) -> Reference:
        """Make a model like that of the run, with other random weights and so many blocks."""
        session = self._session
        parts = session.parts.new_reference(layers)
        state = RunState(micro_rows=session.state.micro_rows)
        reference = ReferenceSession(parts, session.config, state, session.ranks)
        return Reference(reference, session.parts, session.clock.count_reference)


def begin_methods(session: Session) -> bool:
    """Let the methods do what comes before the first update, and say which rows are trained on.

    Returns:
        False after a request to stop; the state is saved then.
    """
    parts, clock = session.parts, session.clock
    if parts.methods.claims("start"):
        worked, saved_at = False, time.monotonic()
        while True:
            with clock.beginning(), clock.account("methods"):
                done = start_methods(session, _spent(session), *_costs(session))
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
                print(f"reference models: {_spent(session):.1%} of the budget so far", flush=True)
        if worked:
            print(f"reference models are trained; they took {_spent(session):.1%} of the budget", flush=True)
            save(session)
    order_rows(session)
    return True


def _spent(session: Session) -> float:
    """Share of the budget that reference models have spent so far."""
    return session.clock.began / session.clock.budget.limit


def _costs(session: Session) -> tuple[float, float]:
    """Share of the budget that an update costs, whatever its size, and that each of its rows costs."""
    clock, seq_len = session.clock, session.parts.seq_len
    one, two = (clock.cost(rows * seq_len) / clock.budget.limit for rows in (1, 2))
    return 2 * one - two, two - one


@on_all_ranks("updating")
def start_methods(session: RankSession, spent: float, of_update: float, of_row: float) -> bool:
    """Do a piece of what comes before the first update, and say whether all is done; see `SessionBeginning`."""
    return session.parts.methods.start(SessionBeginning(session, spent, (of_update, of_row)))


@on_all_ranks("starting")
def order_rows(session: RankSession) -> None:
    """Let the methods say which rows are trained on."""
    session.parts.methods.order(session.parts.loader)
