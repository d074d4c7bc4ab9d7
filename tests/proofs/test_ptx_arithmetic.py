"""Opcodes without memory, against numpy, torch and exact fractions."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from proofs.ptx.errors import PtxError
from proofs.ptx.integers import multiply_high

Apply = Callable[..., Any]
F32 = st.integers(0, 2**32 - 1).map(lambda bits: float(np.array(bits, np.uint32).view(np.float32)))
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
some = settings(max_examples=25, deadline=None)


def many(elements: st.SearchStrategy[Any], count: int = 32) -> st.SearchStrategy[list[Any]]:
    return st.lists(elements, min_size=count, max_size=count)


def equal(a: Any, b: Any) -> bool:
    """Equal numbers, with all NaN equal and zeros of different sign different."""
    a, b = np.asarray(a), np.asarray(b)
    return bool((((a == b) & (np.signbit(a) == np.signbit(b))) | (np.isnan(a) & np.isnan(b))).all())


def floats(*values: float) -> Any:
    return np.array(values, np.float32)


def bf16_bits(values: Any) -> Any:
    return torch.from_numpy(np.array(values, np.float32)).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)


def from_bf16(bits: Any) -> Any:
    return (np.asarray(bits).astype(np.uint32) << np.uint32(16)).view(np.float32)


@some
@given(a=many(F32), b=many(F32))
def test_sums_and_products_are_those_of_ieee(apply: Apply, a: list[float], b: list[float]) -> None:
    x, y = np.array(a, np.float32), np.array(b, np.float32)
    with np.errstate(all="ignore"):
        for opcode, expected in (("add.f32", x + y), ("sub.f32", x - y), ("mul.rn.f32", x * y), ("div.rn.f32", x / y)):
            assert equal(apply(opcode, x, y, result=np.float32), expected), opcode


@some
@given(a=many(F32), b=many(F32), c=many(F32))
def test_fma_rounds_once(apply: Apply, a: list[float], b: list[float], c: list[float]) -> None:
    columns = [np.array(values, np.float32) for values in (a, b, c)]
    result = apply("fma.rn.f32", *columns, result=np.float32)
    for x, y, z, got in zip(*columns, result, strict=True):
        if np.isfinite([x, y, z]).all():
            exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
            assert float(got) == round_to_float(exact), (x, y, z)
        else:
            with np.errstate(all="ignore"):
                assert equal(got, np.float32(x.astype(np.float64) * y + z))


def round_to_float(exact: Fraction) -> float:
    """The fp32 number that is nearest to a fraction, ties to even, by arithmetic of integers."""
    if exact == 0:
        return 0.0
    size, exponent = abs(exact), -149
    while size / Fraction(2) ** exponent >= 2**24:
        exponent += 1
    whole = round(size / Fraction(2) ** exponent)  # rounds half to even
    value = float(whole) * 2.0**exponent
    return float(np.copysign(value if value < 2.0**128 else np.inf, 1 if exact > 0 else -1))


def test_fma_sees_what_float64_would_lose(apply: Apply) -> None:
    # a * b = 2^-24 (1 - 2^-46). Added to 1 + 2^-23 it lies just below the middle of two floats, of which the upper one
    # is even. A sum in float64 is the middle itself, and would be rounded up.
    a, b, c = floats(2**-24 * (1 + 2**-23)), floats(1 - 2**-23), floats(1 + 2**-23)
    assert apply("fma.rn.f32", a, b, c, result=np.float32)[0] == np.float32(1 + 2**-23)
    assert apply("fma.rn.f32", -a, b, -c, result=np.float32)[0] == np.float32(-1 - 2**-23)
    # Taken away from 1 + 2^-22, which is even, it leaves a little more than the middle, which would be rounded down.
    assert apply("fma.rn.f32", -a, b, floats(1 + 2**-22), result=np.float32)[0] == np.float32(1 + 2**-22)
    below = apply("fma.rn.f32", -a, b, floats(1 + 3 * 2**-23), result=np.float32)
    assert below[0] == np.float32(1 + 3 * 2**-23)
    assert apply("fma.rn.f32", a, -b, -c, result=np.float32)[0] == np.float32(-1 - 2**-23)


@some
@given(a=many(U64), b=many(U64), c=many(U64))
def test_integers_of_64_bits_are_exact(apply: Apply, a: list[int], b: list[int], c: list[int]) -> None:
    x, y, z = (np.array(values, np.uint64) for values in (a, b, c))
    signed = [v - 2**64 if v >= 2**63 else v for v in a], [v - 2**64 if v >= 2**63 else v for v in b]
    wrap = 2**64
    for opcode, expected in {
        "add.s64": [i + j for i, j in zip(a, b, strict=True)],
        "sub.s64": [i - j for i, j in zip(a, b, strict=True)],
        "mul.lo.s64": [i * j for i, j in zip(a, b, strict=True)],
        "mul.hi.u64": [i * j >> 64 for i, j in zip(a, b, strict=True)],
        "mul.hi.s64": [i * j >> 64 for i, j in zip(*signed, strict=True)],
    }.items():
        assert apply(opcode, x, y, result=np.uint64).tolist() == [v % wrap for v in expected], opcode
    expected = [(i * j + k) % wrap for i, j, k in zip(a, b, c, strict=True)]
    assert apply("mad.lo.s64", x, y, z, result=np.uint64).tolist() == expected


@some
@given(a=many(U32), b=many(U32), count=many(st.integers(0, 70)))
def test_integers_of_32_bits(apply: Apply, a: list[int], b: list[int], count: list[int]) -> None:
    x, y, places = (np.array(values, np.uint32) for values in (a, b, count))
    signed_a, signed_b = x.view(np.int32).tolist(), y.view(np.int32).tolist()
    wide = apply("mul.wide.s32", x, y, result=np.int64)
    assert wide.tolist() == [i * j for i, j in zip(signed_a, signed_b, strict=True)]
    wide = apply("mul.wide.u32", x, y, result=np.uint64)
    assert wide.tolist() == [i * j for i, j in zip(a, b, strict=True)]
    assert apply("shl.b32", x, places, result=np.uint32).tolist() == [
        (i << n) % 2**32 for i, n in zip(a, count, strict=True)
    ]
    assert apply("shr.u32", x, places, result=np.uint32).tolist() == [i >> n for i, n in zip(a, count, strict=True)]
    assert apply("shr.s32", x, places, result=np.int32).tolist() == [
        i >> n for i, n in zip(signed_a, count, strict=True)
    ]
    divisors = np.where(y == 0, np.uint32(1), y)
    quotients = apply("div.s32", x, divisors, result=np.int32).tolist()
    remainders = apply("rem.s32", x, divisors, result=np.int32).tolist()
    for i, j, quotient, remainder in zip(
        signed_a, divisors.view(np.int32).tolist(), quotients, remainders, strict=True
    ):
        assert quotient == int(Fraction(i, j)) or (i, j) == (-(2**31), -1)
        assert (remainder - (i - int(Fraction(i, j)) * j)) % 2**32 == 0


def test_fields_bytes_and_counts_of_bits(apply: Apply) -> None:
    word = np.array([0x12F4_5678], np.uint32)
    numbers = [np.array([value], np.uint32) for value in (16, 8, 0x4, 0x8)]
    assert apply("bfe.u32", word, numbers[0], numbers[1], result=np.uint32)[0] == 0xF4
    assert apply("bfe.s32", word, numbers[0], numbers[1], result=np.int32)[0] == -12
    assert apply("prmt.b32", word, word + 1, np.array([0x7532], np.uint32), result=np.uint32)[0] == 0x1256_12F4
    # The selector 0xA repeats the sign of byte 2, which is 0xF4.
    assert apply("prmt.b32", word, word, np.array([0x000A], np.uint32), result=np.uint32)[0] == 0x7878_78FF
    assert apply("popc.b32", word, result=np.uint32)[0] == bin(0x12F4_5678).count("1")
    assert apply("clz.b32", word, result=np.uint32)[0] == 3
    assert apply("brev.b32", word, result=np.uint32)[0] == int(f"{0x12F45678:032b}"[::-1], 2)
    table = np.array([0b1100_1010], np.uint32)  # a ? b : c
    chosen = apply("lop3.b32", word, ~word, numbers[2], table, result=np.uint32)[0]
    assert chosen == (0x12F4_5678 & ~0x12F4_5678 | ~0x12F4_5678 & 4) % 2**32
    assert apply("shf.l.wrap.b32", word, word, numbers[1], result=np.uint32)[0] == 0xF456_7812


@some
@given(a=many(F32))
def test_rounding_to_half_precision_is_that_of_torch(apply: Apply, a: list[float]) -> None:
    x = np.array(a, np.float32)
    for kind, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        expected = torch.from_numpy(x).to(dtype)
        got = torch.from_numpy(apply(f"cvt.rn.{kind}.f32", x, result=np.uint16).view(np.int16)).view(dtype)
        assert equal(got.float().numpy(), expected.float().numpy())
        both = apply(f"cvt.rn.{kind}x2.f32", x, x[::-1].copy(), result=np.uint32)
        high, low = (
            torch.from_numpy((both >> np.uint32(s)).astype(np.uint16).view(np.int16)).view(dtype) for s in (16, 0)
        )
        assert equal(high.float().numpy(), expected.float().numpy())
        assert equal(low.float().numpy(), expected.flip(0).float().numpy())
        towards_zero = torch.from_numpy(apply(f"cvt.rz.{kind}.f32", x, result=np.uint16).view(np.int16)).view(dtype)
        cut = towards_zero.float().numpy()
        with np.errstate(all="ignore"):
            assert (np.isnan(x) == np.isnan(cut)).all()
            assert ((np.abs(cut) <= np.abs(x)) | np.isnan(x)).all()
            nearest = expected.float().numpy()
            assert equal(cut[np.abs(nearest) <= np.abs(x)], nearest[np.abs(nearest) <= np.abs(x)])


def test_ties_of_bf16_go_to_even(apply: Apply) -> None:
    ties = floats(1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1 + 2**-8 + 2**-20, 3.3965e38)
    expected = floats(1, 1 + 2**-6, -1, 1 + 2**-7, np.inf)
    assert equal(from_bf16(apply("cvt.rn.bf16.f32", ties, result=np.uint16)), expected)
    assert equal(from_bf16(apply("cvt.rz.bf16.f32", ties, result=np.uint16))[:4], floats(1, 1 + 2**-7, -1, 1))


def test_conversions_of_integers(apply: Apply) -> None:
    word = np.array([0xFFFF_FFFE, 5], np.uint32)
    assert apply("cvt.s64.s32", word, result=np.int64).tolist() == [-2, 5]
    assert apply("cvt.u64.u32", word, result=np.uint64).tolist() == [0xFFFF_FFFE, 5]
    assert apply("cvt.u32.u64", np.array([2**32 + 7], np.uint64), result=np.uint32)[0] == 7
    assert apply("cvt.rn.f32.s32", word, result=np.float32).tolist() == [-2.0, 5.0]
    assert apply("cvt.rn.f32.u32", word, result=np.float32).tolist() == [2.0**32, 5.0]
    numbers = floats(-2.7, 2.5, np.nan, 1e20, -1e20)
    assert apply("cvt.rzi.s32.f32", numbers, result=np.int32).tolist() == [-2, 2, 0, 2**31 - 1, -(2**31)]
    assert apply("cvt.rni.s32.f32", numbers, result=np.int32).tolist()[:2] == [-3, 2]


@some
@given(a=many(F32), b=many(F32), c=many(F32))
def test_half_precision_arithmetic_rounds_once(apply: Apply, a: list[float], b: list[float], c: list[float]) -> None:
    half = [torch.tensor(values, dtype=torch.float32).to(torch.bfloat16) for values in (a, b, c)]
    x, y, z = (value.view(torch.int16).numpy().view(np.uint16) for value in half)
    total = (half[0].double() + half[1].double()).float()  # exact in float64 but for far exponents, where it is rounded
    near = (half[0].double() + half[1].double() - half[0].double() == half[1].double()).numpy()
    got = from_bf16(apply("add.bf16", x, y, result=np.uint16))
    assert equal(got[near], total.to(torch.bfloat16).float().numpy()[near])
    fused = from_bf16(apply("fma.rn.bf16", x, y, z, result=np.uint16))
    for i, j, k, result in zip(*(h.float().numpy() for h in half), fused, strict=True):
        if np.isfinite([i, j, k]).all() and np.isfinite(result):
            exact = Fraction(float(i)) * Fraction(float(j)) + Fraction(float(k))
            gap = abs(exact - Fraction(float(result)))
            bits = int(bf16_bits([result])[0])
            neighbours = from_bf16(np.array([bits - 1, bits + 1]).astype(np.uint16))
            assert all(gap <= abs(exact - Fraction(float(n))) for n in neighbours if np.isfinite(n))


def test_two_numbers_in_a_register(apply: Apply) -> None:
    one, two = bf16_bits([1.5, -2.0]).view(np.uint32), bf16_bits([0.25, 4.0]).view(np.uint32)
    assert from_bf16(apply("add.bf16x2", one, two, result=np.uint32).view(np.uint16)).tolist() == [1.75, 2.0]
    product = apply("fma.rn.bf16x2", one, two, two, result=np.uint32)
    assert from_bf16(product.view(np.uint16)).tolist() == [0.625, -4.0]
    halves = np.array([1.5, -2.0, 0.25, 4.0], np.float16).view(np.uint32)
    total = apply("sub.f16x2", halves[:1], halves[1:], result=np.uint32)
    assert total.view(np.float16).tolist() == [1.25, -6.0]
    a, b = floats(1.5, -2.0).view(np.uint64), floats(0.25, 4.0).view(np.uint64)
    assert apply("mul.rn.f32x2", a, b, result=np.uint64).view(np.float32).tolist() == [0.375, -8.0]
    assert apply("fma.rn.f32x2", a, b, b, result=np.uint64).view(np.float32).tolist() == [0.625, -4.0]
    mixed = apply("sub.rn.f32.bf16", bf16_bits([1.5]), floats(1e-6), result=np.float32)
    assert mixed[0] == np.float32(1.5) - np.float32(1e-6)
    assert apply("fma.rn.f32.bf16", bf16_bits([1.5]), bf16_bits([3.0]), floats(0.5), result=np.float32)[0] == 5.0


def test_maxima_drop_nan_unless_asked(apply: Apply) -> None:
    a, b = floats(np.nan, 1, -0.0, np.nan), floats(2, np.nan, 0.0, np.nan)
    assert equal(apply("max.f32", a, b, result=np.float32), floats(2, 1, 0.0, np.nan))
    assert equal(apply("min.f32", a, b, result=np.float32), floats(2, 1, -0.0, np.nan))
    assert equal(apply("max.NaN.f32", a, b, result=np.float32), floats(np.nan, np.nan, 0.0, np.nan))
    assert equal(apply("max.f32", a, b, b + 1, result=np.float32), floats(3, 1, 1, np.nan))


def test_signs(apply: Apply) -> None:
    a, b = floats(-0.0, 1), floats(3, -2)
    assert apply("copysign.f32", a, b, result=np.float32).tolist() == [-3, 2]
    assert equal(apply("neg.f32", a, result=np.float32), floats(0.0, -1))
    assert equal(apply("abs.f32", b, result=np.float32), floats(3, 2))
    word = np.array([5], np.uint32)
    assert apply("neg.s32", word, result=np.int32)[0] == -5
    assert apply("not.b32", word, result=np.uint32)[0] == 0xFFFF_FFFA


def test_ftz_flushes_operands_and_results(apply: Apply) -> None:
    tiny, least = float(2.0**-130), float(2.0**-126)
    assert equal(apply("mul.f32", floats(least), floats(0.25), result=np.float32), floats(2.0**-128))
    assert equal(apply("mul.ftz.f32", floats(-least, tiny), floats(0.25, 2.0**20), result=np.float32), floats(-0.0, 0))
    assert equal(apply("fma.rn.ftz.f32", floats(tiny), floats(2.0**20), floats(1), result=np.float32), floats(1))
    assert equal(apply("abs.ftz.f32", floats(-tiny), result=np.float32), floats(0))


@pytest.mark.parametrize(
    ("opcode", "function", "bound"),
    [
        ("ex2.approx.f32", np.exp2, 2.0**-22),
        ("rcp.approx.f32", lambda a: 1 / a, 2.0**-23),
        ("rsqrt.approx.f32", lambda a: 1 / np.sqrt(a), 2.0**-22.4),
        ("sqrt.approx.f32", np.sqrt, 2.0**-23),
        ("tanh.approx.f32", np.tanh, 2.0**-11),
    ],
)
def test_approximations_keep_their_bound_and_use_it(
    apply: Apply, opcode: str, function: Callable[[Any], Any], bound: float
) -> None:
    a = np.linspace(0.01, 20, 512, dtype=np.float32)
    exact = function(a.astype(np.float64))
    error = np.abs(apply(opcode, a, result=np.float32) / exact - 1)
    assert bound / 2 < error.max() < bound + 2.0**-24


def test_edges_of_approximations(apply: Apply) -> None:
    tiny, inf, nan = float(2.0**-130), np.inf, np.nan
    ex2 = floats(0, -0.0, -inf, inf, nan, 200, -140, -160)
    assert equal(apply("ex2.approx.f32", ex2, result=np.float32)[:6], floats(1, 1, 0, inf, nan, inf))
    assert apply("ex2.approx.f32", ex2, result=np.float32)[6] > 0
    assert equal(apply("ex2.approx.ftz.f32", ex2, result=np.float32)[6:], floats(0, 0))
    edges = floats(0, -0.0, inf, -1, nan, tiny)
    assert equal(apply("rsqrt.approx.ftz.f32", edges, result=np.float32), floats(inf, -inf, 0, nan, nan, inf))
    assert np.isfinite(apply("rsqrt.approx.f32", edges, result=np.float32)[5])
    assert equal(apply("lg2.approx.f32", edges, result=np.float32)[:5], floats(-inf, -inf, inf, nan, nan))
    assert equal(apply("rcp.approx.ftz.f32", floats(tiny, -inf), result=np.float32), floats(inf, -0.0))
    large = floats(2.0**127, 2.0**127)
    assert equal(apply("div.approx.f32", floats(2.0**127, inf), large, result=np.float32), floats(0, nan))
    assert abs(apply("div.full.f32", large, large, result=np.float32)[0] - 1) <= 2.0**-22


def test_comparisons_with_nan(apply: Apply, ptx: Any) -> None:
    a, b = floats(1, np.nan, 2), floats(2, 1, 2)
    expected = {"lt": [1, 0, 0], "ltu": [1, 1, 0], "ne": [1, 0, 0], "neu": [1, 1, 0], "eq": [0, 0, 1], "num": [1, 0, 1]}
    for comparison, holds in expected.items():
        output = np.zeros(32, np.uint32)
        ptx.run(
            f"""mov.u32 %r1, %tid.x;
            ld.param.b64 %rd1, [kernel_param_0]; ld.param.b64 %rd2, [kernel_param_1];
            ld.param.b64 %rd3, [kernel_param_2];
            mad.wide.u32 %rd1, %r1, 4, %rd1; mad.wide.u32 %rd2, %r1, 4, %rd2; mad.wide.u32 %rd3, %r1, 4, %rd3;
            ld.global.b32 %r2, [%rd1]; ld.global.b32 %r3, [%rd2];
            setp.{comparison}.f32 %p1, %r2, %r3;
            selp.b32 %r4, 1, 0, %p1;
            st.global.b32 [%rd3], %r4;""",
            np.resize(a, 32),
            np.resize(b, 32),
            output,
        )
        assert output[:3].tolist() == holds, comparison


@pytest.mark.parametrize("opcode", ["frobnicate.f32", "add.rz.f32", "cvt.rn.satfinite.e4m3x2.f32", "sin.approx.f32"])
def test_what_is_unknown_is_refused_by_name_and_line(apply: Apply, opcode: str) -> None:
    with pytest.raises(PtxError, match=rf"line \d+: {opcode}"):
        apply(opcode, floats(1), floats(1), result=np.float32)


def test_the_upper_half_of_products() -> None:
    a, b = np.array([2**64 - 1, 2**63 + 12345], np.uint64), np.array([2**64 - 1, 987654321987654321], np.uint64)
    assert multiply_high(a, b).tolist() == [int(i) * int(j) >> 64 for i, j in zip(a, b, strict=True)]
