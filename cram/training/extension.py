"""A longer budget for a run that had a shorter one: from which checkpoint it goes on, and what steps back."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cram.clock import CHARGED, Budget
from cram.config.choices import OBJECTIVES, OPTIMIZERS
from cram.config.config import Config
from cram.errors import CramError
from cram.optim.schedule import batch_tokens, decay_begins, make_schedule
from cram.run.checkpoint import Checkpoint, Checkpoints
from cram.run.heartbeat import last_beat
from cram.run.history import Extension, extension_line

if TYPE_CHECKING:
    from cram.run.folder import RunFolder
    from cram.training.session import Session


@dataclass(frozen=True)
class Plan:
    """What is to be done: the budget so far, the checkpoint to go on from, and what is lost by that."""

    old: Budget
    step: int
    discarded_updates: int
    discarded_seconds: float

    def checkpoint(self, checkpoints: Checkpoints) -> Checkpoint | None:
        """What to go on from. Errors: CramError where it is damaged."""
        return checkpoints.read(self.step) if self.discarded_updates else checkpoints.newest()

    def book(self, session: "Session", config: Config, checkpoint: Checkpoint) -> None:
        """Book the extension in a session that has been resumed from the checkpoint, and say so."""
        new, after, before = session.clock.budget, session.last_progress, checkpoint.state["last_progress"]
        changed = stepped_back(config, before, after)
        extension = Extension(
            new.clock, self.old.limit, new.limit, checkpoint.step, before, after,
            self.discarded_updates, self.discarded_seconds, changed,
        )  # fmt: skip
        session.extensions.append(extension.facts())
        session.clock.booked["discarded"] += self.discarded_seconds
        if config.averaging.start is not None and after < config.averaging.start:
            for method in session.methods:
                method.load_state_tensors({}, session.model)  # an average of what was learned under the old budget
        print(f"the run is {extension_line(extension.facts())}", flush=True)
        values = "".join(f"; {name} {value}" for name, value in changed.items())
        print(f"progress was {before:.1%} of the old budget and is {after:.1%} of the new one{values}", flush=True)


def plan_extension(folder: "RunFolder", config: Config) -> Plan | None:
    """How a run with a shorter budget goes on under the config's; None where its budget is the same or there is none.

    Errors: CramError for a shorter budget, one of another clock, and where the learning rate has fallen too far.
    """
    old, new = folder.budget, Budget.parse(config.budget)
    if old is None or old == new:
        return None
    if old.clock != new.clock or new.limit < old.limit:
        what = "shorter" if old.clock == new.clock else "measured otherwise"
        raise CramError(
            f"budget={config.budget} is {what} than the {old.words()} that run={folder.path} has.\n"
            f"Say budget={old.words()}, a longer one of its kind, or choose another run=."
        )
    checkpoints = folder.checkpoints(decay_begins(config.schedule))
    newest = checkpoints.newest_state()
    step = checkpoints.before_decay()
    if newest is None or step is None or (step == 0 and newest["step"] > 0):
        raise CramError(_refusal(folder, config, old, step))
    if step == newest["step"]:
        return Plan(old, step, 0, 0.0)
    charged, kept = _charged(newest), _charged(checkpoints.state(step))
    return Plan(old, step, newest["step"] - step, max(charged, last_beat(folder.path)) - kept)


def _refusal(folder: "RunFolder", config: Config, old: Budget, step: int | None) -> str:
    begins = decay_begins(config.schedule)
    why = f"with schedule.kind={config.schedule.kind} its learning rate falls from {begins:.0%} of the budget on"
    what = "no checkpoint from before that is left" if step is None else "nothing was trained before that"
    return (
        f"budget={config.budget}: run={folder.path} had {old.words()}, {why}, and {what}: it cannot be extended.\n"
        f"Start another run from its weights with init={folder.path}, or say budget={old.words()}."
    )


def _charged(state: dict[str, Any]) -> float:
    charged: float = sum(state["clock"]["booked"][name] for name in CHARGED)
    return charged


def stepped_back(config: Config, before: float, after: float) -> dict[str, str]:
    """What follows progress, at two values of it: `100% -> 100%`, by name; what does not change is left out."""
    there, here = (_values(config, progress) for progress in (before, after))
    return {name: f"{there[name]} -> {here[name]}" for name in there if there[name] != here[name]}


def _values(config: Config, progress: float) -> dict[str, str]:
    values = {
        "learning rate": f"{make_schedule(config.schedule)(progress):.1%} of its peak",
        "batch": f"{batch_tokens(config.batch)(progress):.0f} tokens",
    }
    values |= OPTIMIZERS[config.optimizer.kind].load().values_at(config.optimizer, progress)
    values |= OBJECTIVES[config.objective.kind].load().values_at(config.objective, progress)
    if config.averaging.start is not None:
        values["averaging"] = "begun" if progress >= config.averaging.start else "not begun"
    return values
