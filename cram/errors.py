"""The one error that a user can cause."""

MAX_LINES = 2
MAX_LINE_LENGTH = 1000  # characters; the middle of a longer line is left out
ELLIPSIS = " ... "
TAIL_LENGTH = 300  # characters kept behind the ellipsis


class CramError(ValueError):
    """The user's words or files are at fault.

    The message has one or two lines: the key or the file, what was found there, and what to do about it. Every command
    prints it without a traceback and ends with exit status 2.

    A message may quote any text. Characters that cannot be printed are therefore escaped, and long lines are shortened.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_printable_message(message))


def _printable_message(message: str) -> str:
    lines = message.split("\n")
    if len(lines) > MAX_LINES:
        lines = [r"\n".join(lines)]  # the line breaks are part of a quoted value
    return "\n".join(_shorten("".join(map(_escape, line))) for line in lines)


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _shorten(line: str) -> str:
    head_length = MAX_LINE_LENGTH - len(ELLIPSIS) - TAIL_LENGTH
    return line if len(line) <= MAX_LINE_LENGTH else f"{line[:head_length]}{ELLIPSIS}{line[-TAIL_LENGTH:]}"
