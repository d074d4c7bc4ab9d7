"""The machine itself: its text, the order of execution, and threads of a warp that work together."""

from typing import Any

import numpy as np
import pytest

from proofs.ptx.errors import PtxError
from proofs.ptx.parser import Address, Immediate, Register, Vector, parse

# %rd1 becomes the address of the thread's own element of the first array, of 4 bytes.
OWN = """mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x;
ld.param.b64 %rd2, [kernel_param_0];
mad.lo.s32 %r4, %r2, %r3, %r1;
mad.wide.u32 %rd1, %r4, 4, %rd2;
shl.b32 %r5, %r1, 2;
mov.b32 %r6, global_smem;
add.s32 %r7, %r6, %r5;
"""
STORE = "st.global.b32 [%rd1], %r10;"


def words(count: int) -> Any:
    return np.zeros(count, np.uint32)


# --- text


def test_operands_are_read(ptx: Any) -> None:
    program = parse(ptx.text("@!%p1 ld.global.v2.b32 {%r1, %r2}, [ %rd1 + -8 ]; mov.b32 %r3, 0f3F800000;", 1, 64))
    load, move, _ = program.instructions
    assert (load.guard, load.negated, load.line) == (Register("%p1", 1), True, 14)
    assert load.operands == (
        Vector((Register("%r1", 32), Register("%r2", 32))),
        Address(Register("%rd1", 64), -8),
    )
    assert move.operands == (Register("%r3", 32), Immediate(0x3F800000))
    assert (program.threads, program.parameters, program.target) == (64, ("u64",), "sm_90a")


def test_what_cannot_be_read_is_named_by_line(ptx: Any) -> None:
    with pytest.raises(ValueError, match="line 14 has an operand"):
        parse(ptx.text("mov.b32 %x3, 0;", 1, 32))
    with pytest.raises(ValueError, match="line 14 is not an instruction"):
        parse(ptx.text("???;", 1, 32))


# --- order of execution


def test_threads_part_and_meet_again(ptx: Any) -> None:
    """Collatz: every thread needs another number of rounds. The shuffle behind needs them all."""
    output = words(64)
    ptx.run(
        OWN
        + """mov.b32 %r10, 0; add.s32 %r11, %r1, 1;
        $loop: setp.eq.s32 %p1, %r11, 1;
        @%p1 bra $done;
        and.b32 %r12, %r11, 1; setp.eq.b32 %p2, %r12, 0;
        add.s32 %r10, %r10, 1;
        @%p2 bra $even;
        mad.lo.s32 %r11, %r11, 3, 1;
        bra.uni $loop;
        $even: shr.u32 %r11, %r11, 1;
        bra.uni $loop;
        $done: shfl.sync.bfly.b32 %r13, %r10, 1, 31, -1;
        shl.b32 %r13, %r13, 16; or.b32 %r10, %r10, %r13;"""
        + STORE,
        output,
        threads=64,
    )

    def rounds(number: int) -> int:
        return 0 if number == 1 else 1 + rounds(number // 2 if number % 2 == 0 else 3 * number + 1)

    assert output.tolist() == [rounds(i + 1) | rounds((i ^ 1) + 1) << 16 for i in range(64)]


def test_threads_that_leave_a_loop_wait_for_those_in_it(ptx: Any) -> None:
    output = words(32)
    ptx.run(
        OWN
        + """mov.b32 %r10, 0;
        $loop: add.s32 %r10, %r10, 1; setp.lt.u32 %p1, %r10, %r1; @%p1 bra $loop;
        shfl.sync.idx.b32 %r10, %r10, 31, 31, -1;"""
        + STORE,
        output,
    )
    assert output.tolist() == [31] * 32


def test_guards_leave_other_threads_alone(ptx: Any) -> None:
    output = words(32)
    ptx.run(
        OWN + "setp.lt.u32 %p1, %r1, 5; mov.b32 %r10, 7; @%p1 mov.b32 %r10, 8; @!%p1 add.s32 %r10, %r10, %r1;" + STORE,
        output,
    )
    assert output.tolist() == [8] * 5 + [7 + i for i in range(5, 32)]


def test_threads_return_one_by_one(ptx: Any) -> None:
    output = words(128)
    ptx.run(
        OWN + "mov.b32 %r10, 3; setp.gt.u32 %p1, %r1, 40; @%p1 ret; bar.sync 0;" + STORE, output, threads=64, ctas=2
    )
    assert output.reshape(2, 64).tolist() == [[3] * 41 + [0] * 23] * 2


def test_many_ctas_see_their_own_number_and_memory(ptx: Any) -> None:
    output = words(1000 * 32)
    ptx.run(
        OWN
        + """st.shared.b32 [%r7], %r4; bar.sync 0; xor.b32 %r8, %r5, 124; add.s32 %r8, %r6, %r8;
        ld.shared.b32 %r10, [%r8];"""
        + STORE,
        output,
        ctas=1000,
        shared=128,
    )
    assert (output.reshape(1000, 32)[:, ::-1].reshape(-1) == np.arange(32_000)).all()


# --- warps


@pytest.mark.parametrize(
    ("mode", "b", "c", "source"),
    [
        ("bfly", 3, 31, lambda i: i ^ 3),
        ("up", 2, 0, lambda i: i - 2 if i >= 2 else i),
        ("down", 2, 31, lambda i: i + 2 if i < 30 else i),
        ("idx", 5, 31, lambda i: 5),
        ("idx", 5, 0x181F, lambda i: i // 8 * 8 + 5),  # segments of 8
        ("down", 1, 0x1C1F, lambda i: i + 1 if i % 4 < 3 else i),  # segments of 4
    ],
)
def test_shuffles(ptx: Any, mode: str, b: int, c: int, source: Any) -> None:
    output = words(32)
    ptx.run(OWN + f"add.s32 %r9, %r1, 100; shfl.sync.{mode}.b32 %r10|%p1, %r9, {b}, {c}, -1;" + STORE, output)
    assert output.tolist() == [100 + source(i) for i in range(32)]


def test_a_shuffle_without_all_its_threads_is_refused(ptx: Any) -> None:
    body = "setp.lt.u32 %p1, %r1, 7; mov.b32 %r10, 0; @%p1 shfl.sync.bfly.b32 %r10, %r1, 1, 31, -1;"
    with pytest.raises(PtxError, match=r"not all threads of a warp .* shfl\.sync"):
        ptx.run(OWN + body + STORE, words(32))


def test_votes_and_reductions(ptx: Any) -> None:
    output = words(64)
    body = """setp.eq.u32 %p1, %r1, 33; vote.sync.any.pred %p2, %p1, -1; selp.b32 %r10, 256, 0, %p2;
    vote.sync.ballot.b32 %r11, %p1, -1; or.b32 %r10, %r10, %r11; redux.sync.max.u32 %r12, %r1, -1;
    shl.b32 %r12, %r12, 16; or.b32 %r10, %r10, %r12;"""
    ptx.run(OWN + body + STORE, output, threads=64)
    assert output.tolist() == [31 << 16] * 32 + [63 << 16 | 256 | 2] * 32


def test_small_matrices(ptx: Any) -> None:
    """Rows of eight entries of 16 bits, of which each thread gets two, and from the transposed load two of a column."""
    output, loads = words(64), {"": 0, ".trans": 1}
    for suffix in loads:
        ptx.run(
            OWN
            + f"""shl.b32 %r8, %r1, 1; shl.b32 %r9, %r8, 16; or.b32 %r9, %r9, %r8; add.s32 %r9, %r9, 65536;
            st.shared.b32 [%r7], %r9; bar.sync 0;
            and.b32 %r11, %r1, 7; shl.b32 %r11, %r11, 4; add.s32 %r11, %r11, %r6;
            ldmatrix.sync.aligned.m8n8.x1{suffix}.shared.b16 {{%r10}}, [%r11];"""
            + STORE,
            output[:32],
        )
        entries = output[:32].view(np.uint16).reshape(8, 4, 2).reshape(8, 8)
        matrix = np.arange(64).reshape(8, 8)
        assert (entries == (matrix.T if suffix else matrix)).all()


@pytest.mark.parametrize("suffix", ["", ".trans"])
def test_small_matrices_are_stored_as_they_are_loaded(ptx: Any, suffix: str) -> None:
    output = words(32)
    ptx.run(
        OWN
        + f"""and.b32 %r11, %r1, 7; shl.b32 %r11, %r11, 4; add.s32 %r11, %r11, %r6;
        shl.b32 %r8, %r1, 1; shl.b32 %r9, %r8, 16; or.b32 %r9, %r9, %r8; add.s32 %r9, %r9, 65536;
        stmatrix.sync.aligned.m8n8.x1{suffix}.shared.b16 [%r11], {{%r9}}; bar.sync 0; ld.shared.b32 %r10, [%r7];"""
        + STORE,
        output,
    )
    matrix = np.arange(64).reshape(8, 8)
    assert (output.view(np.uint16).reshape(8, 8) == (matrix.T if suffix else matrix)).all()


def test_threads_that_are_here(ptx: Any) -> None:
    output = words(32)
    ptx.run(OWN + "setp.lt.u32 %p1, %r1, 5; mov.b32 %r10, 0; @%p1 activemask.b32 %r10;" + STORE, output)
    assert output.tolist() == [31] * 5 + [0] * 27
