"""The machine itself: order of execution, memory, barriers, and what it refuses."""

from typing import Any

import numpy as np
import pytest

from proofs.ptx.errors import PtxError
from proofs.ptx.integers import multiply_high
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


# --- memory


def test_accesses_outside_and_unaligned_are_refused(ptx: Any) -> None:
    store = OWN + "mov.b32 %r10, 1; add.s64 %rd1, %rd1, {offset};" + STORE
    ptx.run(store.format(offset=4), words(33))
    with pytest.raises(PtxError, match=r"not aligned.*line \d+: st\.global"):
        ptx.run(store.format(offset=2), words(33))
    with pytest.raises(PtxError, match=r"4 bytes at offset 128 of array 0, which has 128 .*line \d+: st\.global"):
        ptx.run(store.format(offset=4), words(32))
    with pytest.raises(PtxError, match="offset -4 of array 0"):
        ptx.run(store.format(offset=-4), words(32))
    with pytest.raises(PtxError, match="belongs to no tensor"):
        ptx.run(store.format(offset=1 << 42), words(32))
    with pytest.raises(PtxError, match="8 bytes at offset 4 of array 0 are not aligned"):
        ptx.run(OWN + "ld.global.v2.b32 {%r10, %r11}, [%rd1];" + STORE, words(64))
    with pytest.raises(PtxError, match="shared memory"):
        ptx.run(OWN + "st.shared.b32 [%r7 + 4], %r1;", words(32), shared=128)


def test_what_was_not_written_may_not_be_used(ptx: Any) -> None:
    with pytest.raises(PtxError, match="has not written"):
        ptx.run(OWN + STORE, words(32))
    partly = OWN + "setp.lt.u32 %p1, %r1, 3; @%p1 mov.b32 %r9, 5; add.s32 %r10, %r9, 1;"
    with pytest.raises(PtxError, match="has not written"):
        ptx.run(partly + STORE, words(32))
    output = words(32)
    ptx.run(partly + "@%p1 " + STORE, output)
    ptx.run(partly + "selp.b32 %r10, %r10, 1, %p1;" + STORE, output)
    assert output.tolist() == [6] * 3 + [1] * 29
    with pytest.raises(PtxError, match="has not written"):
        ptx.run(OWN + "setp.lt.u32 %p1, %r9, 3; @%p1 bra $end;\n$end:\n", words(32))


def test_asynchronous_copies_come_when_they_are_waited_for(ptx: Any) -> None:
    source, output = np.arange(64, dtype=np.uint32), words(64)
    body = (
        OWN
        + """shl.b32 %r8, %r1, 4; add.s32 %r9, %r6, %r8; cvt.u64.u32 %rd4, %r8; ld.param.b64 %rd5, [kernel_param_1];
        add.s64 %rd5, %rd5, %rd4; setp.lt.u32 %p1, %r1, 8; setp.lt.u32 %p2, %r1, 6; selp.b32 %r11, 16, 0, %p2;
        @%p1 cp.async.cg.shared.global [ %r9 + 0 ], [ %rd5 + 0 ], 0x10, %r11;
        cp.async.commit_group;
        @%p1 cp.async.cg.shared.global [ %r9 + 128 ], [ %rd5 + 128 ], 0x10, %r11;
        cp.async.commit_group;
        cp.async.wait_group WAIT;
        bar.sync 0;
        ld.shared.b32 %r10, [%r7 + FROM];"""
        + STORE
    )
    # Bytes behind the valid ones are 0, here all 16 of two threads.
    expected = [i if i < 24 else 0 for i in range(32)]
    ptx.run(body.replace("WAIT", "1").replace("FROM", "0"), output[:32], source, shared=256)
    assert output[:32].tolist() == expected
    ptx.run(body.replace("WAIT", "0").replace("FROM", "128"), output[:32], source, shared=256)
    assert output[:32].tolist() == [i + 32 if i < 24 else 0 for i in range(32)]
    ptx.run(body.replace("WAIT", "1").replace("FROM", "128"), output[:32], source, shared=256)
    assert output[:32].tolist() == [0xFFFFFFFF] * 32  # not there yet


def test_bytes_are_extended_by_zeros_or_by_their_sign(ptx: Any) -> None:
    source, output = np.array([0x80, 0x7F] * 16, np.uint8), words(32)
    body = OWN + "ld.param.b64 %rd3, [kernel_param_1]; cvt.u64.u32 %rd4, %r1; add.s64 %rd3, %rd3, %rd4;"
    ptx.run(body + "ld.global.u8 %rs1, [%rd3]; cvt.u32.u16 %r10, %rs1;" + STORE, output, source)
    assert output.tolist() == [0x80, 0x7F] * 16
    ptx.run(body + "ld.global.s8 %rs1, [%rd3]; cvt.s32.s16 %r10, %rs1;" + STORE, output, source)
    assert output.view(np.int32).tolist() == [-128, 127] * 16
    ptx.run(body + "mov.b16 %rs1, 0x1234; st.global.b8 [%rd3], %rs1;", output, source)
    assert source.tolist() == [0x34] * 32


def test_hints_for_the_cache_change_nothing(ptx: Any) -> None:
    output = np.arange(32, dtype=np.uint32)
    body = """createpolicy.fractional.L2::evict_first.b64 %rd5, 1.0;
    ld.global.L1::evict_last.L2::cache_hint.b32 {%r10}, [%rd1], %rd5; add.s32 %r10, %r10, 1;
    st.global.L1::evict_first.b32 [%rd1], {%r10};"""
    ptx.run(OWN + body, output)
    assert output.tolist() == list(range(1, 33))
    with pytest.raises(PtxError, match=r"does not know this access.*ld\.global\.L3::hint"):
        ptx.run(OWN + "ld.global.L3::hint.b32 %r10, [%rd1];", output)


def test_the_upper_part_of_an_undefined_pair_may_stay_undefined(ptx: Any) -> None:
    output = words(32)
    body = """mov.b32 %r11, 0f3F800000; mov.b64 %rd5, {%r11, %r12};
    add.f32x2 %rd6, %rd5, %rd5; mov.b64 {%r10, %r13}, %rd6;"""
    ptx.run(OWN + body + STORE, output)
    assert output.view(np.float32).tolist() == [2.0] * 32
    ptx.run(OWN + body + "st.global.b32 [%rd1], %r13;", output)  # what leaks out is a NaN
    assert np.isnan(output.view(np.float32)).all()
    with pytest.raises(PtxError, match="has not written"):
        ptx.run(OWN + "mov.b64 %rd5, {%r11, %r12}; st.global.b64 [%rd2], %rd5;", output)


# --- barriers and races

EXCHANGE = (
    OWN
    + "st.shared.b32 [%r7], %r1; BARRIER xor.b32 %r8, %r5, 128; add.s32 %r8, %r6, %r8; ld.shared.b32 %r10, [%r8];"
    + STORE
)


def test_a_missing_barrier_is_a_race(ptx: Any) -> None:
    output = words(64)
    ptx.run(EXCHANGE.replace("BARRIER", "bar.sync 0;"), output, threads=64)
    assert output.tolist() == [i ^ 32 for i in range(64)]
    with pytest.raises(
        PtxError, match=r"nothing orders .* shared memory: line \d+: st\.shared.*; line \d+: ld\.shared"
    ):
        ptx.run(EXCHANGE.replace("BARRIER", ""), output, threads=64)
    # A thread may read before the barrier what it wrote itself, and threads may write the same value.
    ptx.run(OWN + "st.shared.b32 [%r7], %r1; ld.shared.b32 %r10, [%r7];" + STORE, output, threads=64)
    ptx.run(OWN + "mov.b32 %r10, 1; st.shared.b32 [%r6], %r10;" + STORE, output, threads=64)
    with pytest.raises(PtxError, match="nothing orders"):
        ptx.run(OWN + "st.shared.b32 [%r6], %r1;", output, threads=64)


def test_a_read_before_a_write_of_another_thread_is_a_race_in_global_memory(ptx: Any) -> None:
    body = OWN + "ld.global.b32 %r11, [%rd2]; BARRIER add.s32 %r10, %r11, 1;" + STORE
    output = words(64)
    ptx.run(body.replace("BARRIER", "bar.sync 0;"), output, threads=64)
    assert output.tolist() == [1] * 64
    with pytest.raises(
        PtxError, match=r"nothing orders accesses to byte 0 of array 0: line \d+: ld\.global.*st\.global"
    ):
        ptx.run(body.replace("BARRIER", ""), output, threads=64)
    with pytest.raises(PtxError, match="nothing orders"):  # of two CTAs, which no barrier orders
        ptx.run(body.replace("BARRIER", "bar.sync 0;"), words(128), threads=64, ctas=2)


def test_a_barrier_that_a_part_of_a_warp_reaches_is_refused(ptx: Any) -> None:
    body = OWN + "setp.lt.u32 %p1, %r1, 40; @%p1 bra $end; bar.sync 0;\n$end:\nmov.b32 %r10, 1; bar.sync 0;" + STORE
    with pytest.raises(PtxError, match="a part of a warp waits"):
        ptx.run(body, words(64), threads=64)


def test_warps_may_wait_at_different_places(ptx: Any) -> None:
    """The warps meet at two barriers of one number, which stand at different places."""
    body = """setp.lt.u32 %p1, %r1, 32; @%p1 bra $low;
    st.shared.b32 [%r7], %r1; bar.sync 0; mov.b32 %r10, 9; bra.uni $end;
    $low: bar.sync 0; ld.shared.b32 %r10, [%r7 + 128];
    $end: """
    output = words(64)
    ptx.run(OWN + body + STORE, output, threads=64)
    assert output.tolist() == [i + 32 for i in range(32)] + [9] * 32


def test_the_upper_half_of_products() -> None:
    a, b = np.array([2**64 - 1, 2**63 + 12345], np.uint64), np.array([2**64 - 1, 987654321987654321], np.uint64)
    assert multiply_high(a, b).tolist() == [int(i) * int(j) >> 64 for i, j in zip(a, b, strict=True)]
