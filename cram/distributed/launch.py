"""What torchrun tells each process that it has started. This file needs no torch, so that every door can ask it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cram.errors import CramError

# The variables of torchrun. A process that has none of them was not started by torchrun.
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """A process among those that were started together.

    Attributes:
        rank: number of the process, from 0. Rank 0 leads: it decides, prints and writes.
        size: number of processes, on all nodes together.
        local_rank: number of the process on its node.
        local_size: number of processes on this node.
        address, port: where the processes find each other.
        restart: how often torchrun has started the processes again, to tell the attempts apart.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: str = ""
    port: int = 0
    restart: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0


def read_launch(variables: Mapping[str, str] = os.environ) -> Launch:
    """Read the variables of torchrun. A process without them is alone.

    Raises:
        CramError: a variable is missing among others that are there, or is not a number that fits.
    """
    if not any(name in variables for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")):
        return Launch()
    missing = [name for name in VARIABLES if name not in variables]
    if missing:
        raise CramError(
            f"the environment has some of torchrun's variables, but not {', '.join(missing)}. "
            "Start all processes by torchrun, or unset RANK, WORLD_SIZE and LOCAL_RANK."
        )
    try:
        rank, size, local_rank, local_size = (int(variables[name]) for name in VARIABLES[:4])
        port, restart = int(variables["MASTER_PORT"]), int(variables.get("TORCHELASTIC_RESTART_COUNT", "0"))
    except ValueError:
        found = ", ".join(f"{name}={variables[name]}" for name in VARIABLES)
        raise CramError(f"a variable of torchrun is not a number: {found}. Start all processes by torchrun.") from None
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        raise CramError(
            f"RANK={rank} of WORLD_SIZE={size}, LOCAL_RANK={local_rank} of LOCAL_WORLD_SIZE={local_size}: these do "
            "not fit each other. Start all processes by torchrun."
        )
    return Launch(rank, size, local_rank, local_size, variables["MASTER_ADDR"], port, restart)
