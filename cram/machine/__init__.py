"""The machine: devices and their precision, cores and memory, published peak rates, and child processes."""
