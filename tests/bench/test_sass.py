"""Machine code is read correctly, and its integer arithmetic and predicates are computed correctly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.sass.integer_unit import HANDLERS
from bench.sass.integers import FALSE, TRUE, UNKNOWN, Bits, Predicate, combine, join
from bench.sass.program import BANK, Operand, parse_operand, parse_program
from bench.sass.registers import Registers
from tests.bench.sass_code import assemble, write

WORD = st.integers(0, 2**32 - 1)
LONG = st.integers(0, 2**64 - 1)
SHIFT = st.integers(0, 31)


def execute(text: str, registers: Registers) -> Registers:
    """Execute one instruction for one thread."""
    (instruction,) = assemble(text).instructions
    HANDLERS[instruction.opcode](registers, instruction, np.ones(1, np.bool_))
    return registers


def hold(**values: int) -> Registers:
    """Return registers that hold these words."""
    registers = Registers({})
    for name, value in values.items():
        registers.write(name, word(value), np.ones(1, np.bool_))
    return registers


def word(value: int) -> Bits:
    """Return a register's value."""
    return np.array([value & 0xFFFFFFFF], np.uint32)


def long_of(registers: Registers, name: str) -> int:
    """Return the number of 64 bits in a pair of registers."""
    value = registers.long(Operand("register", name))
    assert value is not None
    return int(value[0])


def split(value: int) -> tuple[int, int]:
    """Return both halves of a number of 64 bits."""
    return value & 0xFFFFFFFF, value >> 32


# --- reading


@pytest.mark.parametrize(
    ("text", "operand"),
    [
        ("-R4.reuse", Operand("register", "R4", negated=True)),
        ("!UP2", Operand("predicate", "UP2", inverted=True)),
        ("~R7", Operand("register", "R7", inverted=True)),
        ("0x7f", Operand("number", "0x7f", 0x7F)),
        ("-0x1", Operand("number", "0x1", 1, negated=True)),
        ("c[0x0][0x210]", Operand("constant", "c[0x0][0x210]", 0x210)),
        ("-c[0x2][0x8]", Operand("constant", "c[0x2][0x8]", 2 * BANK + 8, negated=True)),
        ("|R3|", Operand("register", "R3", absolute=True)),
        ("`(.L_x_1)", Operand("label", ".L_x_1")),
        ("desc[UR4][R2.64+0x10]", Operand("address", "desc[UR4][R2.64+0x10]")),
        ("1.5", Operand("other", "1.5")),
    ],
)
def test_operands(text: str, operand: Operand) -> None:
    assert parse_operand(text) == operand


def test_an_instruction_with_its_control_bits() -> None:
    program = assemble(".L_x_1:\n", write("@!P0 LDG.E.128 R4, desc[UR4][R2.64+0x10]", stall=5, sets=2, waits=0b100001))
    (load,) = program.instructions
    assert program.labels == {"kernel": 0, ".L_x_1": 0}
    assert (load.opcode, load.modifiers, load.width) == ("LDG", ("E", "128"), 16)
    assert load.guard == Operand("predicate", "P0", inverted=True)
    assert (load.stall, load.sets, load.frees, load.waits) == (5, 2, None, (0, 5))


def test_an_instruction_without_its_second_half() -> None:
    with pytest.raises(ValueError, match="no control bits"):
        parse_program("\t.section\t.text.kernel,\n" + write("EXIT").splitlines()[0])


# --- integers


@given(LONG, LONG, st.booleans())
def test_sums_and_differences_of_64_bits(a: int, b: int, minus: bool) -> None:
    (a0, a1), (b0, b1) = split(a), split(b)
    registers = hold(R0=a0, R1=a1, R2=b0, R3=b1)
    execute(f"IADD3 R4, P0, R0, {'-' * minus}R2, RZ", registers)
    execute(f"IADD3.X R5, R1, {'~' * minus}R3, RZ, P0, !PT", registers)
    assert long_of(registers, "R4") == (a - b if minus else a + b) % 2**64


@given(LONG)
def test_a_counter_of_64_bits_goes_down(a: int) -> None:
    registers = hold(R0=split(a)[0], R1=split(a)[1])
    execute("IADD3 R0, P0, R0, -0x1, RZ", registers)
    execute("IADD3.X R1, R1, -0x1, RZ, P0, !PT", registers)
    assert long_of(registers, "R0") == (a - 1) % 2**64


@given(WORD, WORD, LONG)
def test_wide_products(a: int, b: int, c: int) -> None:
    registers = hold(R0=a, R1=b, R2=split(c)[0], R3=split(c)[1])
    execute("IMAD.WIDE.U32 R4, R0, R1, R2", registers)
    execute("IMAD.WIDE R6, R0, R1, R2", registers)
    execute("IMAD.HI.U32 R8, R0, R1, R2", registers)
    execute("IMAD R9, R0, R1, R2", registers)
    assert long_of(registers, "R4") == (a * b + c) % 2**64
    signed = [value - 2**32 * (value >> 31) for value in (a, b)]
    assert long_of(registers, "R6") == (signed[0] * signed[1] + c) % 2**64
    assert registers.read("R8") == word((a * b + c) % 2**64 >> 32)
    assert registers.read("R9") == word(a * b + c)


@given(LONG, LONG, SHIFT)
def test_addresses_of_elements(a: int, b: int, amount: int) -> None:
    (a0, a1), (b0, b1) = split(a), split(b)
    registers = hold(R0=a0, R1=a1, R2=b0, R3=b1)
    execute(f"LEA R4, P0, R0, R2, {amount:#x}", registers)
    execute(f"LEA.HI.X R5, R0, R3, R1, {amount:#x}, P0", registers)
    assert long_of(registers, "R4") == ((a << amount) + b) % 2**64


@given(LONG, SHIFT)
def test_shifts(a: int, amount: int) -> None:
    low, high = split(a)
    registers = hold(R0=low, R1=high)
    for target, text in (
        ("R2", "SHF.L.U32 R2, R0, {}, RZ"),
        ("R3", "SHF.L.U64.HI R3, R0, {}, R1"),
        ("R4", "SHF.R.U32.HI R4, RZ, {}, R1"),
        ("R5", "SHF.R.S32.HI R5, RZ, {}, R1"),
        ("R6", "SHF.R.U64 R6, R0, {}, R1"),
    ):
        execute(text.format(hex(amount)), registers)
        expected = {
            "R2": low << amount,
            "R3": a << amount >> 32,
            "R4": high >> amount,
            "R5": (high - 2**32 * (high >> 31)) >> amount,
            "R6": a >> amount,
        }[target]
        assert registers.read(target) == word(expected), text


@given(LONG, LONG, st.sampled_from(["LT", "LE", "GT", "GE", "EQ", "NE"]), st.booleans())
def test_comparisons_of_64_bits(a: int, b: int, name: str, is_signed: bool) -> None:
    registers = hold(R0=split(a)[0], R1=split(a)[1], R2=split(b)[0], R3=split(b)[1])
    execute(f"ISETP.{name}.U32.AND P0, PT, R0, R2, PT", registers)
    execute(f"ISETP.{name}.{'' if is_signed else 'U32.'}AND.EX P1, PT, R1, R3, PT, P0", registers)
    execute(f"ISETP.{name}.{'S' if is_signed else 'U'}64.AND P2, PT, R0, R2, PT", registers)
    left, right = (value - 2**64 * (value >> 63) if is_signed else value for value in (a, b))
    expected = {
        "LT": left < right,
        "LE": left <= right,
        "GT": left > right,
        "GE": left >= right,
        "EQ": left == right,
        "NE": left != right,
    }[name]
    assert registers.predicate(Operand("predicate", "P1")).true == expected
    assert registers.predicate(Operand("predicate", "P2")).true == expected


@given(WORD, WORD, WORD, st.integers(0, 255))
def test_logic_by_a_truth_table(a: int, b: int, c: int, table: int) -> None:
    registers = execute(f"LOP3.LUT R3, R0, R1, R2, {table:#x}, !PT", hold(R0=a, R1=b, R2=c))
    expected = 0
    for bit in range(32):
        row = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | c >> bit & 1
        expected |= (table >> row & 1) << bit
    assert registers.read("R3") == word(expected)


@given(st.integers(0, 2**31 - 1), st.integers(1, 2**31 - 1))
def test_division_as_the_compiler_writes_it(a: int, b: int) -> None:
    registers = hold(R6=a, R7=b)
    for text in (
        "I2F.RP R0, R7",
        "MUFU.RCP R0, R0",
        "IADD3 R2, R0, 0xffffffe, RZ",
        "F2I.FTZ.U32.TRUNC.NTZ R3, R2",
        "HFMA2.MMA R2, -RZ, RZ, 0, 0",
        "IADD3 R4, RZ, -R3, RZ",
        "IMAD R5, R4, R7, RZ",
        "IMAD.HI.U32 R3, R3, R5, R2",
        "IMAD.HI.U32 R3, R3, R6, RZ",
        "IADD3 R4, -R3, RZ, RZ",
        "IMAD R4, R7, R4, R6",
    ):
        execute(text, registers)
    quotient, rest = (int(registers.read(name)[0]) for name in ("R3", "R4"))  # type: ignore[index]
    for _ in range(2):  # the compiler corrects the quotient up to twice
        if rest >= b:
            quotient, rest = quotient + 1, rest - b
    assert (quotient, rest) == divmod(a, b)


def test_bytes_are_permuted_and_signs_extended() -> None:
    registers = execute("PRMT R2, R0, 0x5410, R1", hold(R0=0x11112222, R1=0x33334444))
    assert registers.read("R2") == word(0x44442222)
    assert execute("PRMT R2, R0, 0x7632, R1", registers).read("R2") == word(0x33331111)
    assert execute("SGXT R3, R0, 0x3", hold(R0=0b110)).read("R3") == word(-2)
    assert execute("SGXT.U32 R3, R0, 0x3", hold(R0=0b1110)).read("R3") == word(0b110)


def test_minimum_of_a_sum() -> None:
    assert execute("VIADDMNMX R3, R0, R1, R2, PT", hold(R0=30, R1=5, R2=32)).read("R3") == word(32)
    assert execute("VIMNMX R3, R0, R1, !PT", hold(R0=30, R1=-5)).read("R3") == word(30)


# --- predicates that may be unknown


def test_what_is_not_known_stays_so_only_where_it_matters() -> None:
    assert join("AND", UNKNOWN, FALSE).known
    assert not join("AND", UNKNOWN, TRUE).known
    assert join("OR", UNKNOWN, TRUE).true.all()
    assert not join("XOR", UNKNOWN, TRUE).known
    assert (~TRUE).false.all()
    assert combine([TRUE, FALSE, UNKNOWN], 0b11110000).known  # the table is its first input
    partly = Predicate(np.array([True, False]), np.array([True, True]))
    assert not partly.known


def test_predicates_are_packed_into_a_register_and_back() -> None:
    registers = hold(R0=0)
    registers.write_predicate("P2", TRUE, np.ones(1, np.bool_))
    registers.write_predicate("P0", FALSE, np.ones(1, np.bool_))
    execute("P2R R1, PR, R0, 0x5", registers)
    assert registers.read("R1") == word(4)
    execute("R2P PR, R1, 0x4", registers)
    assert registers.predicate(Operand("predicate", "P2")).true.all()
