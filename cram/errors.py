"""The one error a user can cause."""


class CramError(ValueError):
    """The user's words or files are at fault.

    The message is one or two lines: the key or file, what was found there, and what to do.
    Every command prints it without a traceback and ends with exit status 2.
    """
