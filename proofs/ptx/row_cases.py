"""Cases of layer_norm, softmax, the gated activations and rope."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

import cram_kernels  # noqa: F401 (registers the ops)
from proofs.ptx.cases import DTYPES, TOLERANCES, WIDTHS, Case, Check, draw, set_hard_values

_ops: Any = torch.ops.cram
FEW_ROWS = 5


# --- layer_norm


def check_layer_norm(
    dtype: str, width: int, options: str, values: str = "", residual_dtype: str = "", eps: float = 1e-5
) -> Iterable[Check]:
    """Check y, the sum, mean and deviation of the forward pass."""
    x = set_hard_values(draw(FEW_ROWS, width, dtype=dtype), values)
    residual = draw(FEW_ROWS, width, dtype=residual_dtype or dtype, seed=1) if "residual" in options else None
    weight = 1 + draw(width, seed=2) if "weight" in options else None
    bias = draw(width, seed=3) if "bias" in options else None
    y, s, mean, rstd = _ops.layer_norm(x, residual, weight, bias, eps)
    result_dtype = dtype if residual is None else _wider(dtype, residual_dtype or dtype)
    if residual is not None:
        yield Check("sum", s, x.double() + residual.double(), TOLERANCES[result_dtype])
    rows = (x if residual is None else s).double()  # what is normalised is the rounded sum
    exact_mean = rows.mean(-1)
    exact_rstd = 1 / (rows.var(-1, correction=0) + eps).sqrt()
    normalised = (rows - exact_mean[:, None]) * exact_rstd[:, None]
    expected = normalised * (1 if weight is None else weight.double()) + (0 if bias is None else bias.double())
    # Of one element the mean is the element, up to the error of a division, and the deviation is that of eps.
    scale = float((rows.abs() * exact_rstd[:, None]).max()) if width == 1 else None
    # The mean of rows at 10,000 is known to 1e-3 when it is rounded once, and a variance of 1e-40 is subnormal, which
    # leaves it 16 bits. The README promises 5e-5 of y.
    tolerance = max(TOLERANCES[result_dtype], 5e-5 if values in ("offset", "tiny") else 0)
    yield Check("y", y, expected, tolerance, scale)
    finite = rows.isfinite().all(-1)  # of other rows y is NaN, whatever the mean
    yield Check("mean", mean[finite], exact_mean[finite], TOLERANCES["fp32"], float(rows[finite].abs().max()))
    yield Check(
        "rstd", rstd[finite], exact_rstd[finite], tolerance if values in ("offset", "tiny") else TOLERANCES["fp32"]
    )


def _wider(first: str, second: str) -> str:
    wide = torch.promote_types(DTYPES[first], DTYPES[second])
    return next(name for name, dtype in DTYPES.items() if dtype == wide)


def check_layer_norm_backward(dtype: str, width: int, rows: int, options: str, values: str = "") -> Iterable[Check]:
    """Check the gradients. The kernel is given the mean and the deviation, rounded to fp32."""
    s = set_hard_values(draw(rows, width, dtype=dtype), values)
    grad_y = set_hard_values(draw(rows, width, dtype=dtype, seed=1), "apart" if values == "apart" else "")
    grad_sum = draw(rows, width, dtype=dtype, seed=2) if "sum" in options else None
    weight = 1 + draw(width, seed=3) if "weight" in options else None
    bias = draw(width, seed=4) if "bias" in options else None
    mean = s.double().mean(-1, keepdim=True)
    rstd = 1 / (s.double().var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    statistics = mean.flatten().float(), rstd.flatten().float()
    grads = _ops.layer_norm_backward(grad_y, grad_sum, s, weight, bias, *statistics, "frozen" not in options)
    normalised = (s.double() - mean) * rstd
    scaled = grad_y.double() * (1 if weight is None else weight.double())
    product_mean = (scaled * normalised).mean(-1, keepdim=True)
    grad_s = (scaled - scaled.mean(-1, keepdim=True) - normalised * product_mean) * rstd
    # Of one element the gradient is 0, up to the error of a division that is multiplied by the deviation.
    scale = float((scaled.abs() * rstd).max()) if width == 1 else None
    yield Check("grad_s", grads[0], grad_s + (0 if grad_sum is None else grad_sum.double()), TOLERANCES[dtype], scale)
    if weight is not None and "frozen" not in options:
        expected = (grad_y.double() * normalised).sum(0)
        # The sum of one column of zeros has the errors of its terms.
        largest = float((grad_y.double().abs() * rstd).max()) if width == 1 else None
        # Half-precision rows are taken from a mean near 100 that was rounded to fp32, which is off by 4e-6 at most.
        tolerance = 2e-5 if values == "offset" and dtype != "fp32" else TOLERANCES["fp32"]
        yield Check("grad_weight", grads[1], expected, tolerance, largest)
    if bias is not None and "frozen" not in options:
        yield Check("grad_bias", grads[2], grad_y.double().sum(0), TOLERANCES["fp32"], _term_scale(grad_y))


def _term_scale(terms: Tensor) -> float:
    """Return the largest sum of sizes in a column: errors of a sum are shares of it."""
    return float(terms.double().abs().sum(0).max())


def layer_norm_cases(dtype: str) -> Iterator[Case]:
    """Yield all options at all widths, then hard values."""
    for residual, weight, bias in product(("", "residual "), ("", "weight "), ("", "bias")):
        options = f"{residual}{weight}{bias}".strip()
        for width in WIDTHS:
            call = partial(check_layer_norm, dtype, width, options)
            quick = (width, options) in ((100, "weight"), (768, "residual weight bias"))
            yield Case("layer_norm_forward", f"{FEW_ROWS}x{width} {options}".strip(), dtype, call, quick)
    for values, width in product(("offset", "nan", "inf", "apart"), (100, 768)):
        for options in ("weight bias", "residual weight"):
            call = partial(check_layer_norm, dtype, width, options, values)
            yield Case("layer_norm_forward", f"{FEW_ROWS}x{width} {options}, {values}", dtype, call)
    for values in ("tiny", "zero") if dtype != "fp16" else ("zero",):  # 1e-20 is 0 in fp16
        call = partial(check_layer_norm, dtype, 768, "weight", values, eps=0.0)
        yield Case("layer_norm_forward", f"{FEW_ROWS}x768 weight, {values}, eps 0", dtype, call)
    for other in set(DTYPES) - {dtype}:
        if dtype == "fp32" or "fp32" in (dtype, other):
            call = partial(check_layer_norm, dtype, 768, "residual weight", "", other)
            yield Case("layer_norm_forward", f"{FEW_ROWS}x768 {other} residual, weight", dtype, call)
    options_of_backward = ("", "weight", "weight bias", "bias", "weight bias frozen")
    for grad_sum, options in product(("", "sum "), options_of_backward):
        for width in WIDTHS:
            # More tiles of rows than a GPU of one multiprocessor has programs.
            rows = 150 if width <= 257 else 37
            call = partial(check_layer_norm_backward, dtype, width, rows, grad_sum + options)
            quick = (width, grad_sum + options) in ((100, "weight"), (768, "sum weight bias"))
            yield Case("layer_norm_backward", f"{rows}x{width} {grad_sum}{options}".strip(), dtype, call, quick)
    for values in ("offset", "nan", "inf", "apart"):
        call = partial(check_layer_norm_backward, dtype, 768, 37, "sum weight bias", values)
        yield Case("layer_norm_backward", f"37x768 sum weight bias, {values}", dtype, call)


# --- softmax


def check_softmax(
    dtype: str, shape: tuple[int, ...], masked: str, values: str = "", scale: float = 0.37
) -> Iterable[Check]:
    """Check the shares of scale * x, over all positions or those of a mask that is shared as `masked` says."""
    width = shape[-1]
    x = draw(*shape, dtype=dtype, scale=4.0)
    x = set_hard_values(x.view(-1, width), values).view(shape)
    mask = None
    if masked:
        mask_shape = {"heads": (shape[0], 1, *shape[2:]), "rows": (shape[0], 1, 1, width), "all": shape}[masked]
        mask = torch.rand(mask_shape, generator=torch.Generator().manual_seed(1)) < 0.6
        mask[0, 0, 0] = False  # a row of which nothing is kept
    got = _ops.softmax(x, scale, mask)
    scores = scale * x.double()
    kept = torch.ones(shape, dtype=torch.bool) if mask is None else mask.expand(shape)
    expected = torch.softmax(scores.masked_fill(~kept, float("-inf")), -1)
    # scale * x is rounded before the largest is taken away, as in torch. At 3,700 that is off by 1.2e-4 each.
    tolerance = max(TOLERANCES[dtype], 2.5e-4 if values == "offset" and scale != 1 else 0)
    yield Check("p", got, expected.masked_fill(~kept.any(-1, keepdim=True), 0.0), tolerance)


def check_softmax_backward(dtype: str, rows: int, width: int, values: str = "") -> Iterable[Check]:
    """Check the gradient, from shares in the dtype of x."""
    p = torch.softmax(draw(rows, width, scale=2.0), -1).to(DTYPES[dtype])
    p, grad_p, scale = set_hard_values(p, values), draw(rows, width, dtype=dtype, seed=1), 0.37
    got = _ops.softmax_backward(grad_p, p, scale)
    wide, wide_grad = p.double(), grad_p.double()
    expected = scale * wide * (wide_grad - (wide_grad * wide).sum(-1, keepdim=True))
    # Of one element the gradient is the difference of two equal numbers.
    yield Check("grad_x", got, expected, TOLERANCES[dtype], float(wide_grad.abs().max()) if width == 1 else None)


def softmax_cases(dtype: str) -> Iterator[Case]:
    """Yield rows that are held whole and rows that are not, without and with masks of all layouts, and hard values."""
    for width in (*WIDTHS, 8193, 33_000):
        rows = FEW_ROWS if width < 8192 else 3
        quick = width in (100, 33_000)
        call = partial(check_softmax, dtype, (rows, width), "")
        yield Case("softmax_forward", f"{rows}x{width}", dtype, call, quick)
        backward = partial(check_softmax_backward, dtype, rows, width)
        yield Case("softmax_backward", f"{rows}x{width}", dtype, backward, quick=width == 100)
    for width, masked in product((1, 100, 257, 1024, 33_000), ("heads", "rows", "all")):
        shape = (2, 3, 5, width) if width < 8192 else (1, 2, 2, width)
        about = f"{'x'.join(map(str, shape))} mask of {masked}"
        quick = (width, masked) in ((100, "heads"), (33_000, "heads"))
        yield Case("softmax_forward", about, dtype, partial(check_softmax, dtype, shape, masked), quick)
    for width, values in product((100, 33_000), ("offset", "nan", "inf", "apart")):
        call = partial(check_softmax, dtype, (3, width), "", values)
        yield Case("softmax_forward", f"3x{width}, {values}", dtype, call)
    for width in (100, 33_000):
        call = partial(check_softmax, dtype, (3, width), "", "offset", 1.0)
        yield Case("softmax_forward", f"3x{width}, offset, scale 1", dtype, call)
    for width, values in product((100, 33_000), ("nan", "apart")):
        call = partial(check_softmax_backward, dtype, 3, width, values)
        yield Case("softmax_backward", f"3x{width}, {values}", dtype, call)


# --- gated activations


def check_gated(name: str, dtype: str, half: int, values: str = "") -> Iterable[Check]:
    """Check act(first half) * second half."""
    x = set_hard_values(draw(FEW_ROWS, 2 * half, dtype=dtype, scale=2.0), values)
    first, second = x.double().chunk(2, -1)
    got = getattr(_ops, name)(x)
    yield Check("y", got, _activate(name, first) * second, TOLERANCES[dtype])


def _activate(name: str, x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x) if name == "geglu" else torch.nn.functional.silu(x)


def check_gated_backward(name: str, dtype: str, half: int) -> Iterable[Check]:
    """Check the gradient of both halves."""
    x, grad_y = draw(FEW_ROWS, 2 * half, dtype=dtype, scale=2.0), draw(FEW_ROWS, half, dtype=dtype, seed=1)
    with torch.enable_grad():
        wide = x.double().requires_grad_()
        first, second = wide.chunk(2, -1)
        (expected,) = torch.autograd.grad(_activate(name, first) * second, wide, grad_y.double())
    got = getattr(_ops, f"{name}_backward")(grad_y, x)
    yield Check("grad_x", got, expected, TOLERANCES[dtype])


def gated_cases(dtype: str) -> Iterator[Case]:
    """Yield both activations at all widths."""
    for name, half in product(("geglu", "swiglu"), WIDTHS):
        about, quick = f"{name} {FEW_ROWS}x2x{half}", half == 257
        yield Case("gated_forward", about, dtype, partial(check_gated, name, dtype, half), quick)
        yield Case("gated_backward", about, dtype, partial(check_gated_backward, name, dtype, half), quick)
    for name, values in product(("geglu", "swiglu"), ("nan", "inf", "apart")):
        call = partial(check_gated, name, dtype, 100, values)
        yield Case("gated_forward", f"{name} {FEW_ROWS}x2x100, {values}", dtype, call)


# --- rope


def check_rope(dtype: str, tokens: int, heads: tuple[int, int], half: int, layout: str, sign: int) -> Iterable[Check]:
    """Check rotated queries and keys, from tensors of their own or from parts of one projection."""
    lead, head_dim = 2, 2 * half
    if layout == "parts":
        both = draw(lead, tokens, sum(heads), head_dim, dtype=dtype)
        q, k = both[:, :, : heads[0]], both[:, :, heads[0] :]
    else:
        q, k = (draw(lead, tokens, count, head_dim, dtype=dtype, seed=seed) for seed, count in enumerate(heads))
    angle = 3 * draw(lead, tokens, half, seed=5)
    cos, sin = angle.cos(), angle.sin()
    if layout == "shared angles":
        cos, sin = cos[:1], sin[:1]
    op = _ops.rope if sign == 1 else _ops.rope_backward
    for name, x, got in zip("qk", (q, k), op(q, k, cos, sin), strict=True):
        first, second = x.double().chunk(2, -1)
        wide_cos, wide_sin = cos.double().unsqueeze(-2), sign * sin.double().unsqueeze(-2)
        expected = torch.cat([first * wide_cos - second * wide_sin, second * wide_cos + first * wide_sin], -1)
        yield Check(name, got, expected, TOLERANCES[dtype])


def rope_cases(dtype: str) -> Iterator[Case]:
    """Yield heads of several sizes and numbers, in both directions and all layouts."""
    for half, heads in product((1, 3, 32, 64, 129), ((3, 3), (5, 2))):
        for layout, sign in (("", 1), ("parts", -1), ("shared angles", 1)):
            call = partial(check_rope, dtype, 7, heads, half, layout, sign)
            about = f"2x7x{heads[0]}+{heads[1]}x{2 * half} {sign:+} {layout}".strip()
            yield Case("rope", about, dtype, call, quick=(half, heads, sign) == (32, (5, 2), 1))
