"""Reads the disassembly of a kernel (`nvdisasm -c -hex`) into instructions, with the control bits of their encoding.

The control bits say how the hardware issues an instruction: how many cycles pass before the next one of the warp, which
of six scoreboard barriers it sets, and which it waits for. The compiler has chosen them, so no table of the latencies
of arithmetic is needed. Layout of the bits: arXiv:1804.06826, section 2.1 (Volta, unchanged until Blackwell).
"""

import re
import struct
from dataclasses import dataclass, field
from functools import cached_property

_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,6})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;\s*/\* 0x[0-9a-f]{16} \*/")
_SECOND_HALF = re.compile(r"^\s*/\* (0x[0-9a-f]{16}) \*/")
_LABEL = re.compile(r"^(\.L_[\w]+|[A-Za-z_$][\w$.]*):$")
_SECTION = re.compile(r"^\s*\.section\s+(\S+?),")
_OPERAND_SEPARATOR = re.compile(r",\s*(?![^\[]*\])")
_KINDS = {
    "number": re.compile(r"(0x[0-9a-f]+)$"),
    "predicate": re.compile(r"(U?P(?:\d+|T))$"),
    "register": re.compile(r"(U?R(?:\d+|Z))(?=$|\.)"),
}
_CONSTANT = re.compile(r"c\[0x([0-9a-f]+)\]\[0x([0-9a-f]+)\]$")
BANK = 1 << 20  # between the places of two banks of constants
NO_BARRIER = 7


@dataclass(frozen=True)
class Operand:
    """One operand.

    Attributes:
        kind: `register`, `predicate`, `number`, `constant` (in a bank of constants), `address`, `label` or `other`.
        name: a register, predicate or label; the text of another operand.
        number: the value of a number, or the place of a constant: BANK times its bank, plus its offset.
        negated: behind a minus.
        inverted: behind `~` or `!`.
        absolute: within bars.
    """

    kind: str
    name: str
    number: int | None = None
    negated: bool = False
    inverted: bool = False
    absolute: bool = False


@dataclass(frozen=True)
class Instruction:
    """One machine instruction.

    Attributes:
        guard: the predicate that decides for each thread whether it is executed, or None.
        opcode: such as `LDG`.
        modifiers: such as `("E", "128")`.
        operands: destinations first.
        stall: cycles until the warp may issue its next instruction.
        sets: the scoreboard barrier that is released when the result is there, or None.
        frees: the scoreboard barrier that is released when the operands have been read, or None.
        waits: the scoreboard barriers that must have been released.
    """

    guard: Operand | None
    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    stall: int
    sets: int | None
    frees: int | None
    waits: tuple[int, ...]

    @cached_property
    def name(self) -> str:
        """Return the opcode with its modifiers."""
        return ".".join((self.opcode, *self.modifiers))

    @cached_property
    def width(self) -> int:
        """Return the bytes of a thread that a load or store moves, or a constant load reads."""
        widths = {"256": 32, "128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
        return next((widths[modifier] for modifier in self.modifiers if modifier in widths), 4)

    def has(self, *modifiers: str) -> bool:
        """Return whether the instruction has one of the modifiers."""
        return any(modifier in self.modifiers for modifier in modifiers)


@dataclass(frozen=True)
class Program:
    """The instructions of a kernel, the index of the instruction behind each label, and the words of its constants."""

    instructions: tuple[Instruction, ...]
    labels: dict[str, int]
    constants: dict[int, int] = field(default_factory=dict)


def parse_operand(text: str) -> Operand:
    """Read an operand such as `-R4.reuse`, `!P0`, `c[0x0][0x210]`, `desc[UR4][R2.64+0x10]` or `0x7f800000`."""
    text = text.strip().replace(".reuse", "")
    if "[" in text and not text.lstrip("-~|").startswith("c["):
        return Operand("address", text)
    negated, inverted = text.startswith("-"), text.startswith(("~", "!"))
    body = text.lstrip("-~!")
    absolute = body.startswith("|")
    body = body.strip("|")
    if label := re.search(r"`\((\.L_\w+)\)", body):
        return Operand("label", label[1])
    if constant := _CONSTANT.match(body):
        place = BANK * int(constant[1], 16) + int(constant[2], 16)
        return Operand("constant", body, place, negated, inverted, absolute)
    for kind, pattern in _KINDS.items():
        if found := pattern.match(body):
            number = int(found[1], 16) if kind == "number" else None
            return Operand(kind, found[1], number, negated, inverted, absolute)
    return Operand("other", body)


def read_constants(cubin: bytes) -> dict[int, int]:
    """Read the words that the compiler put into banks of constants, from the ELF sections of a cubin."""
    (begin,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names = struct.unpack_from("<HHH", cubin, 58)
    headers = [struct.unpack_from("<IIQQQQ", cubin, begin + index * size) for index in range(count)]
    words: dict[int, int] = {}
    for name, _type, _flags, _address, offset, length in headers:
        text = cubin[headers[names][4] + name :].split(b"\0", 1)[0].decode()
        bank = re.match(r"\.nv\.constant(\d+)\.", text)
        if bank and int(bank[1]):  # bank 0 holds the launch parameters
            content = struct.unpack_from(f"<{length // 4}I", cubin, offset)
            words |= {BANK * int(bank[1]) + 4 * index: word for index, word in enumerate(content)}
    return words


def parse_program(disassembly: str, constants: dict[int, int] | None = None) -> Program:
    """Read the disassembly of a cubin with one kernel. `constants` are what `read_constants` found.

    Raises:
        ValueError: where an instruction has no second half.
    """
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    lines = iter(disassembly.splitlines())
    in_code = False
    for line in lines:
        if section := _SECTION.match(line):
            in_code = section[1].startswith(".text.")
        elif label := _LABEL.match(line.strip()):
            if in_code:
                labels[label[1]] = len(instructions)
        elif in_code and (match := _LINE.match(line)):
            encoded = _SECOND_HALF.match(next(lines, ""))
            if encoded is None:
                raise ValueError(f"no control bits: {line.strip()}")
            instructions.append(_make_instruction(match, int(encoded[1], 16)))
    return Program(tuple(instructions), labels, constants or {})


def _make_instruction(match: re.Match[str], high_half: int) -> Instruction:
    _, guard, opcode, rest = match.groups()
    name, *modifiers = opcode.split(".")
    control = high_half >> 41
    sets, frees = control >> 5 & 7, control >> 8 & 7
    return Instruction(
        guard=parse_operand(guard) if guard else None,
        opcode=name,
        modifiers=tuple(modifiers),
        operands=tuple(map(parse_operand, _OPERAND_SEPARATOR.split(rest))) if rest else (),
        stall=control & 15,
        sets=None if sets == NO_BARRIER else sets,
        frees=None if frees == NO_BARRIER else frees,
        waits=tuple(barrier for barrier in range(6) if control >> 11 & 1 << barrier),
    )
