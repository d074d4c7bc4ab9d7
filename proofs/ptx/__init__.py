"""A machine that executes compiled PTX on a CPU, and the checks that are made with it."""
