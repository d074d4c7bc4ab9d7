"""The micro-batch: how many rows go through the model at once."""

# More positions at once make a CPU no faster, and no longer fit into its caches.
CPU_POSITIONS = 4096


def cpu_micro_rows(rows: int, seq_len: int) -> int:
    """Return the micro-batch of a CPU for an update of so many rows: a power of two that holds at most 4096 tokens."""
    return power_of_two(min(rows, max(1, CPU_POSITIONS // seq_len)))


def power_of_two(most: int) -> int:
    """Return the largest power of two that is not above `most`, which is at least 1."""
    return 1 << (most.bit_length() - 1)
