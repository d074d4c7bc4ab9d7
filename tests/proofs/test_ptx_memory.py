"""Memory, asynchronous copies, barriers and races in the machine of `proofs.ptx`."""

from typing import Any

import numpy as np
import pytest

from proofs.ptx.errors import PtxError

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


def aligned_words(count: int, start: int) -> Any:
    """Return zeros whose address is `start` above a multiple of 256."""
    memory = np.zeros(4 * count + 512, np.uint8)
    skipped = (start - memory.ctypes.data) % 256
    return memory[skipped : skipped + 4 * count].view(np.uint32)


# --- memory


def test_accesses_outside_and_unaligned_are_refused(ptx: Any) -> None:
    store = OWN + "mov.b32 %r10, 1; add.s64 %rd1, %rd1, {offset};" + STORE
    ptx.run(store.format(offset=4), words(33))
    with pytest.raises(PtxError, match=r"not aligned.*line \d+: st\.global"):
        ptx.run(store.format(offset=2), words(33))
    with pytest.raises(PtxError, match=r"4 bytes at offset 128 of array 0, which has 128 .*line \d+: st\.global"):
        ptx.run(store.format(offset=4), words(32))
    for start in range(0, 256, 32):  # wherever the array lies in a block of 256 bytes
        array = aligned_words(32, start)
        with pytest.raises(PtxError, match="offset -4 of array 0"):
            ptx.run(store.format(offset=-4), array)
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


def test_an_undefined_value_of_another_thread_is_undefined(ptx: Any) -> None:
    body = OWN + "setp.ne.u32 %p1, %r1, 5; @%p1 mov.b32 %r9, 5; shfl.sync.idx.b32 %r10, %r9, LANE, 31, -1;" + STORE
    ptx.run(body.replace("LANE", "4"), words(32))
    with pytest.raises(PtxError, match="has not written"):
        ptx.run(body.replace("LANE", "5"), words(32))


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


def test_a_buffer_that_is_read_while_a_copy_is_under_way_is_a_race(ptx: Any) -> None:
    source, output = np.arange(32, dtype=np.uint32), words(32)
    body = (
        OWN
        + """ld.param.b64 %rd5, [kernel_param_1]; setp.eq.u32 %p1, %r1, 0; bar.sync 0; EARLY
        @%p1 cp.async.cg.shared.global [ %r6 + 0 ], [ %rd5 + 0 ], 0x10; cp.async.commit_group; bar.sync 0; BETWEEN
        bar.sync 0; cp.async.wait_group 0; LATE bar.sync 0; ld.shared.b32 %r10, [%r6 + 4];"""
        + STORE
    )
    load = "ld.shared.b32 %r11, [%r6];"

    def run(place: str) -> None:
        places = ("EARLY", "BETWEEN", "LATE")
        text = body
        for name in places:
            text = text.replace(name, f"{load} bar.sync 0;" if name == place == "EARLY" else load * (name == place))
        ptx.run(text, output, source, shared=128)

    run("none")
    assert output.tolist() == [1] * 32
    run("EARLY")
    for place in ("BETWEEN", "LATE"):
        with pytest.raises(PtxError, match=r"nothing orders .* cp\.async.*ld\.shared"):
            run(place)


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


def test_a_barrier_of_a_warp_orders_its_threads_alone(ptx: Any) -> None:
    body = OWN + "st.shared.b32 [%r7], %r1; BARRIER xor.b32 %r8, %r5, DISTANCE; add.s32 %r8, %r6, %r8;"
    body += "ld.shared.b32 %r10, [%r8];" + STORE
    for barrier, distance, is_race in (
        ("bar.warp.sync -1;", 4, False),
        ("", 4, True),
        ("bar.warp.sync -1;", 128, True),
        ("bar.sync 0;", 128, False),
    ):
        text, output = body.replace("BARRIER", barrier).replace("DISTANCE", str(distance)), words(64)
        if is_race:
            with pytest.raises(PtxError, match="nothing orders"):
                ptx.run(text, output, threads=64)
        else:
            ptx.run(text, output, threads=64)
            assert output.tolist() == [i ^ distance // 4 for i in range(64)]
    with pytest.raises(PtxError, match=r"not all threads .* bar\.warp\.sync"):
        ptx.run(OWN + "setp.lt.u32 %p1, %r1, 7; @%p1 bar.warp.sync -1;", words(32))


def test_a_value_of_zero_takes_part_in_races(ptx: Any) -> None:
    body = "mov.b32 %r9, 0; st.shared.b32 [%r7], %r9; ld.shared.b32 %r10, [%r6];"
    with pytest.raises(PtxError, match="nothing orders"):
        ptx.run(OWN + body + STORE, words(64), threads=64)


def test_a_barrier_of_one_cta_orders_nothing_in_another(ptx: Any) -> None:
    body = OWN + "st.shared.b32 [%r7], %r1; setp.ne.u32 %p1, %r2, CTA; @%p1 bra $read; bar.sync 0; $read: "
    body += "xor.b32 %r8, %r5, 128; add.s32 %r8, %r6, %r8; ld.shared.b32 %r10, [%r8];" + STORE
    ptx.run(body.replace("CTA", "0"), words(64), threads=64)
    for cta in ("0", "1"):
        with pytest.raises(PtxError, match="nothing orders"):
            ptx.run(body.replace("CTA", cta), words(128), threads=64, ctas=2)


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
