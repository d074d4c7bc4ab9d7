"""Machine code written for tests: instructions as nvdisasm prints them."""

from bench.sass.program import Program, parse_program

NONE = 7  # no scoreboard barrier


def write(text: str, stall: int = 1, sets: int = NONE, waits: int = 0, place: int = 0) -> str:
    """Return an instruction as nvdisasm prints it, with its control bits."""
    control = (stall | sets << 5 | NONE << 8 | waits << 11) << 41
    return f"        /*{place:04x}*/   {text} ;   /* 0x{0:016x} */\n       /* 0x{control:016x} */\n"


def assemble(*lines: str) -> Program:
    """Return a program of instructions and labels."""
    code = "".join(line if line.endswith(("*/\n", ":\n")) else write(line) for line in lines)
    return parse_program(f'\t.section\t.text.kernel,"ax",@progbits\nkernel:\n{code}')
