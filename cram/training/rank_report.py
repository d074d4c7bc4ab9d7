"""What the ranks of a run report: their devices, their memory, and how long they wait for each other."""

import socket
import statistics
from dataclasses import dataclass
from typing import Any

from cram.distributed.orders import on_all_ranks
from cram.machine.device import device_name, peak_memory
from cram.training.session import RankSession, Session


@dataclass(frozen=True)
class RankFacts:
    """What a rank knows of itself.

    Attributes:
        device: name of its device. host: name of its node.
        waited: seconds that it has waited for others in updates since the last time it was asked.
        memory: `peak_memory`. optimizer_bytes: of the state of the optimizer that it holds.
    """

    device: str
    host: str
    waited: float
    memory: dict[str, int | None]
    optimizer_bytes: int


@on_all_ranks("saving")
def gather_facts(session: RankSession) -> list[RankFacts]:
    """Ask all ranks what they know of themselves; the seconds that they have waited begin at zero again."""
    parts, ranks = session.parts, session.ranks
    waited, ranks.waited = ranks.waited, 0.0
    facts = (
        device_name(parts.device),
        socket.gethostname(),
        waited,
        peak_memory(parts.device),
        parts.optimizer.held_bytes(),
    )
    return [RankFacts(*of_rank) for of_rank in ranks.gather(facts)]


def name_devices(facts: list[RankFacts]) -> list[str]:
    """Name the devices of all ranks, each of them once: a rank beside the first one is named with its number."""
    return [of.device if rank == 0 else f"{of.device} of rank {rank}" for rank, of in enumerate(facts)]


def book_waiting(session: Session) -> None:
    """Add the time that the ranks have waited for each other to the state of the run, as a mean over the ranks."""
    if not session.ranks.alone:
        session.state.rank_waiting += statistics.fmean(of_rank.waited for of_rank in gather_facts(session))


def report_ranks(session: Session, tokens_per_second: float) -> dict[str, Any]:
    """Compose what the receipt says about the ranks.

    The scaling efficiency is the pace of the run, of which all work is part, over the number of ranks times the pace of
    passes forward and backward on rank 0 while the others waited. The optimizer and the exchanges count as losses.
    """
    state, size = session.state, session.ranks.size
    facts = gather_facts(session)
    lone = state.lone_tokens_per_second
    return {
        "world_size": size,
        "backend": session.ranks.backend or None,
        "devices": [f"{of_rank.device} on {of_rank.host}" for of_rank in facts] if size > 1 else [facts[0].device],
        "tokens_per_second": tokens_per_second / size,
        "lone_tokens_per_second": lone,
        "scaling_efficiency": tokens_per_second / (size * lone) if lone and size > 1 else None,
        "waiting_seconds": round(state.rank_waiting, 3) if size > 1 else None,
        "peak_memory_bytes": [of_rank.memory for of_rank in facts],
        "optimizer_bytes": [of_rank.optimizer_bytes for of_rank in facts],
    }
