"""Programs of machine code are followed correctly: jumps, accesses, and the clock."""

import pytest

from bench.sass.machine import Latencies, Machine, Parameter
from bench.sass.memory import GlobalMemory, TensorInfo
from bench.sass.program import Program
from tests.bench.sass_code import assemble, write


def run(program: Program, *parameters: Parameter, tensors: tuple[TensorInfo, ...] = (), warps: int = 1) -> Machine:
    """Run the program at place 3 of the grid."""
    machine = Machine(program, warps, list(parameters), list(tensors), (3, 0, 0), Latencies(dram=1000, l2=200))
    machine.run()
    return machine


def test_a_loop_runs_as_often_as_its_argument_says() -> None:
    program = assemble(
        "MOV R0, RZ",
        ".L_x_0:\n",
        "IADD3 R0, R0, 0x1, RZ",
        "ISETP.LT.AND P0, PT, R0, c[0x0][0x210], PT",
        "@P0 BRA `(.L_x_0)",
        "EXIT",
    )
    trace = run(program, Parameter(0x210, 7, 4), warps=2).trace
    assert trace.opcodes == {"MOV": 2, "IADD3": 14, "ISETP.LT.AND": 14, "BRA": 14, "EXIT": 2}


def test_threads_part_and_meet_again() -> None:
    program = assemble(
        "S2R R0, SR_TID.X",
        "ISETP.GE.AND P0, PT, R0, 0x20, PT",
        "@P0 BRA `(.L_x_0)",
        "IADD3 R1, R0, 0x1, RZ",
        "IADD3 R1, R0, 0x1, RZ",
        ".L_x_0:\n",
        "LOP3.LUT P1, RZ, R0, 0x1, RZ, 0xc0, !PT",
        "@P1 EXIT",
        "MOV R2, RZ",
        "EXIT",
    )
    trace = run(program, warps=2).trace
    assert trace.opcodes["IADD3"] == 2  # by the first warp alone
    assert trace.opcodes["LOP3.LUT"] == 2  # both warps together
    assert trace.opcodes["MOV"] == 2  # half of the threads of each


ROWS = TensorInfo("rows", 8192, 8192, integers=False, itemsize=2)


def load_program(offset: str = "") -> Program:
    """Return a program whose threads load 16 bytes each, wait for them, and store them."""
    return assemble(
        "S2R R0, SR_TID.X",
        "S2R R1, SR_CTAID.X",
        "IMAD R0, R1, 0x20, R0",
        "IMAD.WIDE.U32 R2, R0, 0x10, c[0x0][0x210]",
        "ISETP.LT.AND P0, PT, R0, c[0x0][0x218], PT",
        write(f"@P0 LDG.E.128 R4, desc[UR4][R2.64{offset}]", sets=0),
        write("FADD R4, R4, R4", waits=1),
        write(f"@P0 STG.E.128 desc[UR4][R2.64{offset}], R4"),
        "EXIT",
    )


def test_bytes_sectors_and_waiting() -> None:
    limit = 3 * 32 + 10  # ten threads of program 3
    machine = run(
        load_program(), Parameter(0x210, GlobalMemory.base(0), 8), Parameter(0x218, limit, 4), tensors=(ROWS,)
    )
    loads = machine.memory.loads["rows"]
    assert (loads.requested, loads.wide, loads.first, loads.sectors) == (160, 160, 160, 160)
    assert machine.memory.stores["rows"].requested == 160
    assert machine.trace.dram_waits == 1
    assert machine.trace.most_in_flight == 160
    assert machine.trace.cycles == pytest.approx(1000 + 5 + 3)  # 5 instructions, the wait, 3 instructions
    assert not machine.trace.unknown


def test_an_access_beyond_the_tensor_is_refused() -> None:
    parameters = Parameter(0x210, GlobalMemory.base(0), 8), Parameter(0x218, 1000, 4)
    with pytest.raises(ValueError, match="of rows, which has 8192"):
        run(load_program("+0x2000"), *parameters, tensors=(ROWS,))
    with pytest.raises(ValueError, match="lies in no tensor"):
        run(load_program(), Parameter(0x210, 0, 8), Parameter(0x218, 1000, 4), tensors=(ROWS,))


def test_a_second_load_comes_from_the_cache() -> None:
    once = load_program()
    twice = Program(once.instructions[:7] + once.instructions[5:7] + once.instructions[8:], once.labels)
    parameters = Parameter(0x210, GlobalMemory.base(0), 8), Parameter(0x218, 1000, 4)
    machine = run(twice, *parameters, tensors=(ROWS,))
    loads = machine.memory.loads["rows"]
    assert (loads.requested, loads.first, loads.sectors) == (1024, 512, 1024)
    assert machine.trace.dram_waits == 1
    assert machine.trace.cycles == pytest.approx(5 + 1000 + 1 + 200 + 2)


def test_groups_of_asynchronous_copies_are_waited_for() -> None:
    program = assemble(
        "S2R R0, SR_TID.X",
        "IMAD.WIDE.U32 R2, R0, 0x10, c[0x0][0x210]",
        "LDGSTS.E.BYPASS.128 [R5], desc[UR4][R2.64]",
        "LDGDEPBAR",
        "LDGSTS.E.BYPASS.128 [R5], desc[UR4][R2.64+0x1000]",
        "LDGDEPBAR",
        "DEPBAR.LE SB0, 0x1",
        "FADD R4, R4, R4",
        "EXIT",
    )
    machine = run(program, Parameter(0x210, GlobalMemory.base(0), 8), tensors=(ROWS,))
    assert machine.trace.most_in_flight == 1024
    assert machine.trace.cycles == pytest.approx(1002 + 3)  # the first group alone


def test_a_spilled_counter_is_still_known() -> None:
    program = assemble(
        "MOV R0, RZ",
        ".L_x_0:\n",
        "IADD3 R0, R0, 0x1, RZ",
        "STL [R1+0x4], R0",
        "FADD R0, R4, R4",
        "LDL.LU R0, [R1+0x4]",
        "ISETP.LT.AND P0, PT, R0, c[0x0][0x210], PT",
        "@P0 BRA `(.L_x_0)",
        "EXIT",
    )
    trace = run(program, Parameter(0x210, 5, 4)).trace
    assert trace.opcodes["FADD"] == 5
    assert not trace.unknown


def test_a_jump_on_data_is_reported() -> None:
    program = assemble("FSETP.GT.AND P0, PT, R4, RZ, PT", "@P0 BRA `(.L_x_0)", "NOP", ".L_x_0:\n", "EXIT")
    trace = run(program).trace
    assert trace.unknown == {"BRA": 1}
    assert trace.opcodes["NOP"] == 1  # as if it had not jumped


def test_integers_are_read_as_one() -> None:
    targets = TensorInfo("targets", 8192, 8192, integers=True, itemsize=8)
    program = assemble(
        "S2R R0, SR_TID.X",
        "IMAD.WIDE.U32 R2, R0, 0x8, c[0x0][0x210]",
        "LDG.E.64 R4, desc[UR4][R2.64]",
        "ISETP.NE.U32.AND P0, PT, R4, -0x64, PT",
        "ISETP.NE.U32.AND.EX P0, PT, R5, -0x1, PT, P0",
        "@P0 EXIT",
        "NOP",
        "EXIT",
    )
    machine = run(program, Parameter(0x210, GlobalMemory.base(0), 8), tensors=(targets,))
    assert "NOP" not in machine.trace.opcodes
    assert not machine.trace.unknown


def test_a_program_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.sass.machine.MOST_STEPS", 100)
    with pytest.raises(RuntimeError, match="did not end within 100"):
        run(assemble("NOP", ".L_x_0:\n", "NOP", "BRA `(.L_x_0)", "EXIT"))
