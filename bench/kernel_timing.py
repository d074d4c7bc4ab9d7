"""How long a call takes on a device, with inputs that no cache holds and launches that cost nothing.

On a GPU the calls stand in a CUDA graph, one after another over rotating input sets that together are four times its
L2 cache; what they return is kept until its set comes round again, so that results do not stay in the cache either.
A call that waits for the GPU cannot be captured: it is timed between events, the host's part included. On a CPU the
clock times single calls.

All of it runs on one stream that is not the default one, inputs and forward passes included: autograd runs a backward
pass on the stream of its forward pass.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bench.timing import percentiles
from cram.machine.device import synchronize

Call = Callable[[int], object]  # takes the number of an input set

MOST_LAUNCHES, MOST_REPLAYS, LEAST_REPLAYS = 20, 30, 10
GRAPH_SECONDS = 0.02  # of one replay: long calls stand in it a few times or once
CPU_SETS = 2


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, and how they were taken: by `graph`, `events` or `clock`."""

    median: float
    p20: float
    p80: float
    how: str

    def plain(self) -> dict[str, Any]:
        """For a results file."""
        return asdict(self)


def count_input_sets(nbytes: int, device: torch.device) -> int:
    """Input sets whose calls, of `nbytes` each, together move four times the L2 cache."""
    if device.type != "cuda":
        return CPU_SETS
    cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 50 << 20)
    return max(1, -(-4 * cache // nbytes))


def plan_launches(one_call: float, sets: int, seconds: float) -> tuple[int, int]:
    """Launches of a graph and its replays, for a measurement of about `seconds`."""
    launches = max(sets, min(MOST_LAUNCHES, int(GRAPH_SECONDS / one_call)))
    replays = int(seconds / (launches * one_call))
    return launches, max(LEAST_REPLAYS, min(MOST_REPLAYS, replays))


def time_call(call: Call, sets: int, device: torch.device, seconds: float, captured: bool = True) -> Timing:
    """Time a call; `captured=False` takes events on a GPU even where a graph could be had."""
    call(0)
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(3):
        call(0)
    synchronize(device)
    launches, replays = plan_launches((time.perf_counter() - begin) / 3, sets, seconds)
    if device.type != "cuda":
        return _timing(_by_clock(call, sets, launches * replays, seconds), "clock")
    if captured and not waits_for_gpu(call):
        try:
            graph, kept = capture(call, sets, launches)
        except RuntimeError:  # what it does cannot stand in a graph for another reason
            synchronize(device)
        else:
            values = _by_events(graph.replay, launches, replays)
            del kept  # the graph writes there
            return _timing(values, "graph")
    return _timing(_by_events(lambda: rotate(call, sets, launches), launches, replays), "events")


def _timing(values: list[float], how: str) -> Timing:
    return Timing(**percentiles(values), how=how)


def rotate(call: Call, sets: int, launches: int) -> dict[int, object]:
    """Call again and again over the input sets; returns what the last call of each gave."""
    kept: dict[int, object] = {}
    for number in range(launches):
        kept[number % sets] = call(number % sets)
    return kept


def waits_for_gpu(call: Call) -> bool:
    """Whether the host waits for the GPU somewhere in a call, by `.item()` or a copy to or from it."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        call(0)
    except RuntimeError as error:
        if "synchroniz" not in str(error):
            raise
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def capture(call: Call, sets: int, launches: int) -> tuple[torch.cuda.CUDAGraph, dict[int, object]]:
    """A graph of `launches` calls, and their results, which live as long as they are held."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        kept = rotate(call, sets, launches)
    return graph, kept


def _by_events(run: Callable[[], object], launches: int, replays: int) -> list[float]:
    """Seconds a launch in each of `replays` runs of `launches` launches."""
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(replays)]
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    for begin, end in pairs:
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) / 1e3 / launches for begin, end in pairs]


def _by_clock(call: Call, sets: int, most: int, seconds: float) -> list[float]:
    """Seconds of up to `most` calls, no more than about `seconds` in all but at least five."""
    values: list[float] = []
    while len(values) < 5 or (len(values) < most and sum(values) < seconds):
        begin = time.perf_counter()
        call(len(values) % sets)
        values.append(time.perf_counter() - begin)
    return values


@functools.cache
def measure_copy_speed(nbytes: int, device: torch.device, seconds: float) -> float:
    """Bytes a second, read and written, of copying on the device in pieces that move `nbytes`.

    The faster of torch's copy and an elementwise kernel.
    """
    count = max(1, nbytes // 8)
    sets = count_input_sets(nbytes, device)
    pairs = [[torch.ones(count, device=device) for _ in range(2)] for _ in range(sets)]
    kinds: list[Call] = [
        lambda i: pairs[i][1].copy_(pairs[i][0]),
        lambda i: torch.neg(pairs[i][0], out=pairs[i][1]),
    ]
    return 8 * count / min(time_call(kind, sets, device, seconds).median for kind in kinds)


def measure_peak_bytes(call: Call, device: torch.device) -> int | None:
    """Memory that a call takes beyond what was allocated before, at most; None on a CPU."""
    if device.type != "cuda":
        return None
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = call(0)
    synchronize(device)
    del result
    return torch.cuda.max_memory_allocated(device) - before
