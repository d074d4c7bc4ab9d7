"""What our kernels must reach by the count."""

from bench.count_cases import least_bytes
from bench.count_ops import OpCount
from bench.kernel_cases import DTYPES, KernelCase

MOST_BYTES = 1.02  # of the least
LEAST_WIDE = 0.99  # of the bytes of aligned rows, by 16 bytes or more a thread
LEAST_IN_FLIGHT = 32 << 10  # bytes a multiprocessor
TIMED_ARCH = 90  # the GPU for which time and bytes in flight are held to a bar


def has_aligned_rows(case: KernelCase) -> bool:
    """Return whether all rows of a case begin at a multiple of 16 bytes. The rows of a chunk are padded to it."""
    return case.op == "linear_cross_entropy" or case.width * DTYPES[case.dtype].itemsize % 16 == 0


def find_missed_bars(op: OpCount, case: KernelCase, direction: str) -> list[str]:
    """Return the bars that our kernels miss in one direction of a case."""
    missed = []
    for launch in op.launches:
        count, bounds = launch.count, launch.bounds
        if count.spills:
            missed.append(f"{count.spills} instructions spill registers")
        if has_aligned_rows(case) and count.wide_share < LEAST_WIDE:
            missed.append(f"{count.wide_share:.0%} of the bytes of rows by 16 bytes")
        if count.guesses:
            missed.append(f"{count.guesses} jumps or addresses depend on data, so that the count is a guess")
        if op.arch != TIMED_ARCH:
            continue
        if bounds.issue >= bounds.memory:
            missed.append(f"issue {1e6 * bounds.issue:.1f} us is not below memory {1e6 * bounds.memory:.1f} us")
        if count.in_flight < LEAST_IN_FLIGHT:
            missed.append(f"{count.in_flight >> 10} KB in flight")
    share = sum(launch.count.first_bytes for launch in op.launches) / least_bytes(case, direction)
    if share > MOST_BYTES:
        missed.append(f"{share:.3f} of the least bytes")
    return missed
