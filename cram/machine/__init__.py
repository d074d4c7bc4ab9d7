"""The machine: device, cores, memory, processes."""
