"""PTX text to instructions.

Only what compilers of Triton kernels write is read: one entry point, no calls, one statement a line or several parted
by semicolons. Names of registers end in a number, and their declarations give the width of each prefix.
"""

import re
from dataclasses import dataclass, field

import numpy as np

# Bits of a register by its declared type. Predicates have 1.
WIDTHS = {"pred": 1, "b8": 8, "b16": 16, "b32": 32, "b64": 64, "u16": 16, "u32": 32, "u64": 64, "f32": 32, "f64": 64}
# Registers that the machine sets before the first instruction.
SPECIAL_REGISTERS = ("%tid.x", "%ntid.x", "%ctaid.x", "%nctaid.x", "%laneid", "%warpid")

_STATEMENT = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)", re.DOTALL)
_REGISTER_DECLARATION = re.compile(r"\.reg\s+\.(\w+)\s+(%[A-Za-z_]+)<\d+>")
_SHARED_DECLARATION = re.compile(r"\.shared\s+(?:\.align\s+(\d+)\s+)?\.b8\s+([\w$]+)\[(\d*)\]")
_PARAMETER = re.compile(r"\.param\s+\.(\w+)\s+(?:\.ptr\s+)?(?:\.\w+\s+(?:\.align\s+\d+\s+)?)?([\w$]+)\s*[,)\n]")
_OPERAND = re.compile(r"\s*(\{[^}]*\}|\[[^\]]*\]|[^,\[\]{}]+)\s*(?:,|$)")
_ADDRESS = re.compile(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\w+))?\s*\]")


@dataclass(frozen=True)
class Register:
    """A register. `_`, the sink of results that nobody needs, has no width."""

    name: str
    width: int


@dataclass(frozen=True)
class Immediate:
    """A number. Floating-point numbers are their bits."""

    value: int


@dataclass(frozen=True)
class Address:
    """A base in brackets and an offset in bytes. The base is a register, a parameter's number, or None for 0."""

    base: Register | int | None
    offset: int


@dataclass(frozen=True)
class Label:
    """The name of a place in the program."""

    name: str


@dataclass(frozen=True)
class Vector:
    """Operands in braces."""

    parts: tuple["Register | Immediate", ...]


Operand = Register | Immediate | Address | Label | Vector


@dataclass(frozen=True)
class Instruction:
    """One instruction: `@guard opcode operands`.

    Attributes:
        line: of the text, from 1.
        text: as it stands there.
        opcode: with its modifiers, such as `add.f32`.
        operands: in order, the result first.
        guard: the predicate that must hold, or None.
        negated: whether the predicate must not hold instead.
    """

    line: int
    text: str
    opcode: str
    operands: tuple[Operand, ...]
    guard: Register | None = None
    negated: bool = False


@dataclass
class Program:
    """An entry point.

    Attributes:
        name: of the kernel.
        target: such as `sm_90a`.
        threads: of a program (CTA).
        parameters: types of the parameters, such as `u64`.
        instructions: in the order of the text.
        labels: the number of the instruction that follows each label.
    """

    name: str
    target: str
    threads: int
    parameters: tuple[str, ...]
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


class _Names:
    """What the names of a program stand for."""

    def __init__(self, text: str, parameters: list[str]) -> None:
        self.widths = {prefix: WIDTHS[kind] for kind, prefix in _REGISTER_DECLARATION.findall(text)}
        self.parameters = {name: number for number, name in enumerate(parameters)}
        self.shared: dict[str, int] = {}
        end = 0
        for alignment, name, size in _SHARED_DECLARATION.findall(text):
            end += -end % int(alignment or 1)
            self.shared[name] = end
            end += int(size or 0)

    def register(self, name: str) -> Register:
        """Return a register by its name."""
        if name in SPECIAL_REGISTERS:
            return Register(name, 32)
        if name == "_":
            return Register(name, 0)
        return Register(name, self.widths[name.rstrip("0123456789")])


def parse_number(word: str) -> int:
    """Return the value of an integer, or the bits of `0f3F800000`, `0d3FF0000000000000` and `1.0`, the last in fp32."""
    if word[:2] in ("0f", "0F", "0d", "0D"):
        return int(word[2:], 16)
    if "." in word:
        return int(np.array(float(word), np.float32).view(np.uint32))
    return int(word.rstrip("U"), 0)


def _parse_operand(word: str, names: _Names) -> Operand:
    if word.startswith("["):
        return _parse_address(word, names)
    if word.startswith("{"):
        parts = (_parse_operand(part.strip(), names) for part in word[1:-1].split(","))
        return Vector(tuple(part for part in parts if isinstance(part, Register | Immediate)))
    if word.startswith("%") or word == "_":
        return names.register(word)
    if word.startswith("$"):
        return Label(word)
    return Immediate(names.shared[word] if word in names.shared else parse_number(word))


def _parse_address(word: str, names: _Names) -> Address:
    match = _ADDRESS.fullmatch(word)
    if match is None:
        raise ValueError(word)
    base, offset = match[1], parse_number(match[2] or "0")
    if base.startswith("%"):
        return Address(names.register(base), offset)
    if base in names.parameters:
        return Address(names.parameters[base], offset)
    return Address(None, offset + (names.shared[base] if base in names.shared else parse_number(base)))


def _parse_statement(statement: str, line: int, names: _Names) -> Instruction:
    match = _STATEMENT.fullmatch(statement)
    if match is None:
        raise ValueError(f"line {line} is not an instruction: {statement}")
    negated, guard, opcode, rest = match.groups()
    try:
        # `%r1|%p1` are two results.
        operands = tuple(_parse_operand(word.strip(), names) for word in _OPERAND.findall(rest.replace("|", ",")))
        guard_register = None if guard is None else names.register(guard)
    except (KeyError, ValueError) as error:
        raise ValueError(f"line {line} has an operand that cannot be read: {statement}") from error
    return Instruction(line, statement, opcode, operands, guard_register, bool(negated))


def parse(text: str) -> Program:
    """Parse the PTX of one kernel.

    Raises:
        ValueError: for a statement that cannot be read, with its line.
    """
    target, entry = re.search(r"\.target\s+(\w+)", text), re.search(r"\.entry\s+([\w$]+)\s*\((.*?)\)", text, re.DOTALL)
    threads = re.search(r"\.reqntid\s+(\d+)|\.maxntid\s+(\d+)", text)
    if target is None or entry is None or threads is None:
        raise ValueError("the text has no .target, .entry and .reqntid")
    parameters = _PARAMETER.findall(f"{entry[2]}\n")
    names = _Names(text, [name for _, name in parameters])
    program = Program(entry[1], target[1], int(threads[1] or threads[2]), tuple(kind for kind, _ in parameters))
    depth = 0
    first = text.count("\n", 0, entry.end()) + 1
    for number, full_line in enumerate(text.splitlines()[first - 1 :], first):
        line = full_line.split("//")[0].strip()
        if line in ("{", "}"):
            depth += 1 if line == "{" else -1
            if depth == 0:
                break
        elif depth and line.endswith(":"):
            program.labels[line[:-1]] = len(program.instructions)
        elif depth and not line.startswith("."):
            statements = (statement.strip() for statement in line.split(";"))
            program.instructions += [_parse_statement(s, number, names) for s in statements if s]
    return program
