"""Extending a run to a longer budget: from which checkpoint it goes on, and what steps back with progress."""

from dataclasses import dataclass
from typing import Any

from cram.budget import Budget
from cram.clock import CHARGED
from cram.config.config import Config
from cram.errors import CramError
from cram.run.checkpoint import Checkpoint, Checkpoints
from cram.run.folder import RunFolder
from cram.run.heartbeat import read_heartbeat
from cram.run.history import Extension, describe_extension
from cram.training.session import Parts, Session


@dataclass(frozen=True)
class ExtensionPlan:
    """How a run is extended: from which update it goes on, and what is lost by that.

    old: the budget so far. step: the update of the checkpoint to go on from. discarded_updates, discarded_seconds: what
    the run has done after that checkpoint.
    """

    old: Budget
    step: int
    discarded_updates: int
    discarded_seconds: float

    def checkpoint(self, checkpoints: Checkpoints) -> Checkpoint | None:
        """Read the checkpoint to go on from.

        Raises:
            CramError: where it is damaged.
        """
        return checkpoints.read(self.step) if self.discarded_updates else checkpoints.read_newest()

    def book(self, session: Session, checkpoint: Checkpoint) -> None:
        """Book the extension in a session that has been resumed from the checkpoint, and print what steps back."""
        budget, state, parts = session.clock.budget, session.state, session.parts
        before, after = checkpoint.state["last_progress"], state.last_progress
        changed = stepped_back(parts, before, after)
        extension = Extension(
            clock=budget.clock,
            old_limit=self.old.limit,
            limit=budget.limit,
            update=checkpoint.step,
            old_progress=before,
            progress=after,
            discarded_updates=self.discarded_updates,
            discarded_seconds=self.discarded_seconds,
            changed=changed,
        )
        state.extensions.append(extension.record())
        session.clock.booked["discarded"] += self.discarded_seconds
        for method in parts.methods:
            method.step_back(parts.model, after)
        print(f"the run is {describe_extension(extension.record())}", flush=True)
        values = "".join(f"; {name} {value}" for name, value in changed.items())
        print(f"progress was {before:.1%} of the old budget and is {after:.1%} of the new one{values}", flush=True)


def plan_extension(folder: RunFolder, config: Config, budget: Budget, decay: float) -> ExtensionPlan | None:
    """ExtensionPlan how a run that had a shorter budget goes on under a longer one.

    Args:
        decay: progress at which the learning rate begins to fall.

    Returns:
        The plan; None where the run has this budget already, or none yet.

    Raises:
        CramError: for a shorter budget, one of another clock, and where the learning rate has fallen too far.
    """
    old = folder.budget
    if old is None or old == budget:
        return None
    if old.clock != budget.clock or budget.limit < old.limit:
        what = "shorter" if old.clock == budget.clock else "measured otherwise"
        raise CramError(
            f"budget={config.budget} is {what} than the {old.words()} that run={folder.path} has.\n"
            f"Give budget={old.words()}, a longer budget of the same kind, or another run=."
        )
    checkpoints = folder.checkpoints(decay)
    newest = checkpoints.read_newest_state()
    step = checkpoints.step_before_decay()
    if newest is None or step is None or (step == 0 and newest["step"] > 0):
        raise CramError(_refusal(folder, config, old, step, decay))
    if step == newest["step"]:
        return ExtensionPlan(old, step, 0, 0.0)
    charged = max(_charged(newest), read_heartbeat(folder.path))
    return ExtensionPlan(old, step, newest["step"] - step, charged - _charged(checkpoints.read_state(step)))


def _refusal(folder: RunFolder, config: Config, old: Budget, step: int | None, decay: float) -> str:
    why = f"with schedule.kind={config.schedule.kind} the learning rate falls from {decay:.0%} of the budget on"
    what = "no checkpoint from before that point is left" if step is None else "nothing was trained before that point"
    return (
        f"budget={config.budget}: run={folder.path} had {old.words()}, {why}, and {what}: it cannot be extended.\n"
        f"Start another run from its weights with init={folder.path}, or give budget={old.words()}."
    )


def _charged(state: dict[str, Any]) -> float:
    charged: float = sum(state["clock"]["booked"][name] for name in CHARGED)
    return charged


def stepped_back(parts: Parts, before: float, after: float) -> dict[str, str]:
    """Compare what follows progress at two values of it: `100% -> 90%`, by name; what is the same is left out."""
    old, new = (_values(parts, progress) for progress in (before, after))
    return {name: f"{old[name]} -> {new[name]}" for name in old if old[name] != new[name]}


def _values(parts: Parts, progress: float) -> dict[str, str]:
    values = {
        "learning rate": f"{parts.schedule(progress):.1%} of its peak",
        "batch": f"{parts.batch_tokens(progress):.0f} tokens",
        **parts.optimizer.values(progress),
        **parts.objective.values(progress),
    }
    for method in parts.methods:
        values |= method.values(progress)
    return values
