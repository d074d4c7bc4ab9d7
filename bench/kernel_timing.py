"""How long a call takes on a device, when its inputs are not in a cache and launching costs nothing.

On a GPU the calls are captured in a CUDA graph, one after another, over rotating input sets that together are four
times as large as the L2 cache. A result is kept until its input set is used again, so that results do not stay in the
cache either. A call that waits for the GPU cannot be captured. It is timed between events, including the work of the
host. On a CPU single calls are timed by the clock.

All of it runs on one stream other than the default stream, also the making of inputs and the forward passes, because
autograd runs a backward pass on the stream of its forward pass.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench.timing import percentiles
from cram.machine.device import synchronize

Call = Callable[[int], object]  # takes the number of an input set

MOST_LAUNCHES, MOST_REPLAYS, LEAST_REPLAYS = 20, 30, 10
GRAPH_SECONDS = 0.02  # of one replay, in which long calls are captured a few times or once
CPU_SETS = 2


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, and how it was timed: by `graph`, `events` or `clock`."""

    median: float
    p20: float
    p80: float
    how: str


def count_input_sets(nbytes: int, device: torch.device) -> int:
    """Return how many input sets are needed so that their calls, of `nbytes` each, move four times the L2 cache."""
    if device.type != "cuda":
        return CPU_SETS
    cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 50 << 20)
    return max(1, -(-4 * cache // nbytes))


def plan_launches(one_call: float, sets: int, seconds: float) -> tuple[int, int]:
    """Return the launches in a graph and the replays of it, for a measurement of about `seconds`."""
    launches = max(sets, min(MOST_LAUNCHES, int(GRAPH_SECONDS / one_call)))
    replays = int(seconds / (launches * one_call))
    return launches, max(LEAST_REPLAYS, min(MOST_REPLAYS, replays))


def time_call(call: Call, sets: int, device: torch.device, seconds: float, captured: bool = True) -> Timing:
    """Time a call. With `captured=False` a GPU is timed by events, even where the call could be captured."""
    call(0)
    synchronize(device)
    begin = time.perf_counter()
    for _ in range(3):
        call(0)
    synchronize(device)
    launches, replays = plan_launches((time.perf_counter() - begin) / 3, sets, seconds)
    if device.type != "cuda":
        return _summarise(_by_clock(call, sets, launches * replays, seconds), "clock")
    if captured and not waits_for_gpu(call):
        try:
            graph, results = capture(call, sets, launches)
        except RuntimeError:  # the call cannot be captured for another reason
            synchronize(device)
        else:
            values = _by_events(graph.replay, launches, replays)
            del results  # not earlier: the graph writes into them
            return _summarise(values, "graph")
    return _summarise(_by_events(lambda: rotate(call, sets, launches), launches, replays), "events")


def _summarise(values: list[float], how: str) -> Timing:
    return Timing(**percentiles(values), how=how)


def rotate(call: Call, sets: int, launches: int) -> dict[int, object]:
    """Call `launches` times over the input sets in turn, and return the result of the last call on each set."""
    results: dict[int, object] = {}
    for number in range(launches):
        results[number % sets] = call(number % sets)
    return results


def waits_for_gpu(call: Call) -> bool:
    """Return whether the host waits for the GPU in a call, by `.item()` or by a copy to or from the GPU."""
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
    """Capture `launches` calls in a graph. Returns it and the results, which must be held while it is replayed."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        results = rotate(call, sets, launches)
    return graph, results


def _by_events(run: Callable[[], object], launches: int, replays: int) -> list[float]:
    """Return the seconds of one launch in each of `replays` runs of `launches` launches."""
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
    """Return the seconds of up to `most` calls: at least five, and about `seconds` in all."""
    values: list[float] = []
    while len(values) < 5 or (len(values) < most and sum(values) < seconds):
        begin = time.perf_counter()
        call(len(values) % sets)
        values.append(time.perf_counter() - begin)
    return values


@functools.cache
def measure_copy_speed(nbytes: int, device: torch.device, seconds: float) -> float:
    """Return the bytes a second, read and written, of a copy on the device in pieces that move `nbytes`.

    The faster one of torch's copy and an elementwise kernel counts.
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
    """Return the peak of the memory that a call allocates; None on a CPU."""
    if device.type != "cuda":
        return None
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = call(0)
    synchronize(device)
    del result
    return torch.cuda.max_memory_allocated(device) - before
