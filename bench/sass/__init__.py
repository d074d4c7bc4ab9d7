"""Follows one program of a launch through its machine code: control flow, addresses and waiting, without a GPU."""
