"""The one error a user can cause."""

MOST_LINES = 2
LONGEST_LINE, GAP, KEPT_END = 1000, " ... ", 300  # characters; of a longer line the middle is left out


class CramError(ValueError):
    """The user's words or files are at fault.

    The message is one or two lines: the key or file, what was found there, and what to do. What it quotes may be
    anything, so what cannot be printed is written as an escape, and long lines are cut.
    Every command prints it without a traceback and ends with exit status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_shown(message))


def _shown(message: str) -> str:
    lines = message.split("\n")
    if len(lines) > MOST_LINES:
        lines = [r"\n".join(lines)]  # of a value, not of the message
    return "\n".join(_cut("".join(map(_printable, line))) for line in lines)


def _printable(sign: str) -> str:
    return sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode("ascii")


def _cut(line: str) -> str:
    kept_start = LONGEST_LINE - len(GAP) - KEPT_END
    return line if len(line) <= LONGEST_LINE else f"{line[:kept_start]}{GAP}{line[-KEPT_END:]}"
