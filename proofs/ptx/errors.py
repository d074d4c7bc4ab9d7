"""What the machine refuses."""

from proofs.ptx.parser import Instruction


class PtxError(Exception):
    """A program did what it must not do, or what the machine does not know. The message names line and text."""

    def __init__(self, reason: str, instruction: Instruction | None = None) -> None:
        where = "" if instruction is None else f", in line {instruction.line}: {instruction.text}"
        super().__init__(f"{reason}{where}")
