"""What a checkpoint holds of a run, and how a run goes on from it."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cram.distributed.orders import on_all_ranks
from cram.distributed.ranks import Ranks
from cram.errors import CramError
from cram.files.tensors import check_tensors
from cram.run.checkpoint import Checkpoint
from cram.training.faults import Faults
from cram.training.noise_scale import NoiseScale
from cram.training.session import Parts, RankSession, RunState, Session
from cram.training.window import Window

# Parts of the state that are dataclasses of their own.
PROCESS_STATE = ("window", "spike_window", "faults", "noise_scale")
OF_OBJECTIVE = "objective/"  # prefix of the names of the objective's tensors in a checkpoint


def weights_hash(model: nn.Module) -> str:
    """Compute the sha256 of a model's weights, in the order of their names."""
    digest = hashlib.sha256()
    for _, tensor in sorted(model.state_dict().items()):
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def checkpoint_state(session: Session) -> dict[str, Any]:
    """Give everything that a resumed run needs beside tensors, as JSON."""
    loss_scale = session.parts.loss_scale
    return {
        "budget": asdict(session.clock.budget),
        "clock": session.clock.state(),
        "loader": session.parts.loader.state(),
        "work": session.parts.work.state(),
        "loss_scale": loss_scale.state() if loss_scale else None,
        "metrics": session.metrics.state(),
        **asdict(session.state),
    }


@on_all_ranks("saving")
def checkpoint_tensors(session: RankSession) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Give the tensors of both files of a checkpoint, on the CPU: the weights; the states of all other parts.

    Every rank takes part, because each has a share of the optimizer's state; only rank 0 needs the result.
    """
    parts = session.parts
    memory = parts.optimizer.state_tensors()
    memory |= {f"{OF_OBJECTIVE}{name}": tensor for name, tensor in parts.objective.state_tensors().items()}
    for method in parts.methods:
        memory |= {f"methods/{method.name}/{name}": tensor for name, tensor in method.state_tensors().items()}
    weights = {name: tensor.cpu() for name, tensor in parts.model.state_dict().items()}
    return weights, {name: tensor.cpu() for name, tensor in memory.items()}


@on_all_ranks("restoring")
def load_tensors(session: RankSession, *, checkpoint: Checkpoint | None = None) -> None:
    """Put back the tensors of a checkpoint, which rank 0 has read, and nothing else.

    Raises:
        CramError: naming the file, and a tensor in it that does not fit.
    """
    _load_tensors(session.parts, _share(session.ranks, checkpoint))


def _share(ranks: Ranks, checkpoint: Checkpoint | None) -> Checkpoint:
    """Give all ranks the checkpoint that rank 0 has read, so that rank 0 alone needs its files."""
    head = [checkpoint.step, checkpoint.state, str(checkpoint.folder)] if checkpoint else None
    step, state, folder = ranks.spread(head)
    model = ranks.spread_tensors(checkpoint.model if checkpoint else None)
    optimizer = ranks.spread_tensors(checkpoint.optimizer if checkpoint else None)
    return Checkpoint(step, model, optimizer, state, Path(folder))


def _load_tensors(parts: Parts, checkpoint: Checkpoint) -> None:
    folder = checkpoint.folder
    if parts.model.fit_blocks(checkpoint.model):  # a method had changed their number
        parts.optimizer.regroup(parts.model, {})
        if parts.loss_scale:
            parts.loss_scale.watch(parts.optimizer.owned(parts.model))
    check_tensors(checkpoint.model, parts.model.state_dict(), f"{folder / 'model.safetensors'}: ")
    parts.model.load_state_dict(checkpoint.model)
    prefixes = {method: f"methods/{method.name}/" for method in parts.methods}
    others = (OF_OBJECTIVE, *prefixes.values())
    of_optimizer = {name: tensor for name, tensor in checkpoint.optimizer.items() if not name.startswith(others)}
    try:
        if checkpoint.step and not of_optimizer:
            raise CramError("the state of the optimizer is missing.")
        parts.optimizer.load_state_tensors(of_optimizer)
        parts.objective.load_state_tensors(_with_prefix(checkpoint.optimizer, OF_OBJECTIVE))
        for method, prefix in prefixes.items():
            method.load_state_tensors(_with_prefix(checkpoint.optimizer, prefix), parts.model)
    except CramError as error:
        raise CramError(f"{folder / 'optimizer.safetensors'}: {error}") from None


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Take the tensors whose name has a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def resume(session: Session, checkpoint: Checkpoint) -> None:
    """Go on from a checkpoint on all ranks. The metrics must have been cut back to it already.

    Raises:
        CramError: for a tensor that does not fit the recipe.
    """
    restore(session, checkpoint=checkpoint)
    session.saved, session.saved_progress = checkpoint.step, session.state.last_progress


@on_all_ranks("restoring")
def restore(session: RankSession, *, checkpoint: Checkpoint | None = None) -> None:
    """Put back everything to a checkpoint, which rank 0 has read.

    Under another budget progress begins where what is spent stands: the only place where progress may fall.

    Raises:
        CramError: for a tensor that does not fit the recipe.
    """
    checkpoint = _share(session.ranks, checkpoint)
    saved, parts, clock = checkpoint.state, session.parts, session.clock
    _load_tensors(parts, checkpoint)
    parts.work.load(saved.get("work", {}))  # checkpoints of earlier versions do not have it
    clock.resume(saved["clock"])
    parts.loader.resume(saved["loader"])
    if parts.loss_scale and saved["loss_scale"]:  # a run may have begun on a GPU that needs no loss scale
        parts.loss_scale.load(saved["loss_scale"])
    session.state = RunState(
        # A checkpoint of an earlier version does not have what came later.
        **{name: saved[name] for name in vars(session.state) if name in saved and name not in PROCESS_STATE},
        window=Window(**saved["window"]),
        spike_window=Window(**saved.get("spike_window", {})),  # as the noise scale below
        faults=Faults(**saved["faults"]),
        noise_scale=NoiseScale(**saved.get("noise_scale", {})),  # checkpoints of early versions do not have it
    )
    if saved["budget"] != asdict(clock.budget):
        data_share = parts.loader.rows_taken / parts.loader.rows_total
        session.state.last_progress = min(1.0, max(clock.share(), data_share))
    _share_micro_batch(session)


def _share_micro_batch(session: RankSession) -> None:
    """Keep the rows of a micro-batch of all ranks, where their number has changed and divides these rows."""
    state, ranks = session.state, session.ranks
    if state.ranks != ranks.size:
        state.micro_rows = max(1, state.micro_rows * state.ranks // ranks.size)
        state.ranks = ranks.size


@on_all_ranks("starting")
def share_weights(session: RankSession) -> None:
    """Give all ranks the weights of rank 0, which may come from a run or an export that only rank 0 can read."""
    model = session.parts.model
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()} if session.ranks.leads else None
    model.load_state_dict(session.ranks.spread_tensors(weights))
