"""Layer normalisation over the last dimension, with an optional residual sum in front of it.

    s = x + residual
    y = (s - mean(s)) / sqrt(var(s) + eps) * weight + bias

Mean and variance (biased) are over the last dimension and computed in fp32 for half-precision inputs. Backward, with
n the normalised s and g = dy * weight:

    ds = (g - mean(g) - n * mean(g * n)) / sqrt(var(s) + eps) + gradient of the returned sum
    dweight = sum over rows of dy * n,   dbias = sum over rows of dy

Each program of the backward kernel takes a run of rows and keeps fp32 sums of its own for the weight and the bias;
torch adds them up afterwards in a fixed order, so that the same input gives the same bits.

Source: arXiv:1607.06450 eq. 4, changed: the residual sum of a pre-norm block may be part of the call.
"""

from typing import Any

import torch
from torch import Tensor

from cram_kernels._dispatch import define, differentiate, differentiate_never, use_triton
from cram_kernels._launch import Settings, as_rows, empty, launch, multiprocessors, programs_for, tl, triton, whole_rows

_aten = torch.ops.aten


# --- reference


def _widened(*parts: Tensor | None, dtype: torch.dtype) -> list[Tensor | None]:
    """The tensors in fp32, or in `dtype` where that is wider."""
    wide = torch.promote_types(dtype, torch.float32)
    return [None if part is None else part.to(wide) for part in parts]


def layer_norm_reference(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y and s (..., width) in s's dtype, s empty without a residual; mean and 1 / deviation, (rows) fp32 or wider."""
    s = x if residual is None else (x + residual).contiguous()  # a sum of permuted tensors is permuted as they are
    # The CPU's kernel takes half-precision s beside an fp32 weight and computes in fp32. Without a weight, or with one
    # in half precision, it would keep the mean in half precision too.
    mixed = s.device.type == "cpu" and s.dtype in (torch.bfloat16, torch.float16) and weight is not None
    wide_s, wide_weight, wide_bias = _widened(None if mixed else s, weight, bias, dtype=s.dtype)
    y, mean, rstd = _aten.native_layer_norm(s if mixed else wide_s, s.shape[-1:], wide_weight, wide_bias, eps)
    return y.to(s.dtype), empty(s) if residual is None else s, mean.flatten(), rstd.flatten()


def layer_norm_backward_reference(
    grad: Tensor, grad_sum: Tensor | None, s: Tensor, weight: Tensor | None, bias: Tensor | None,
    mean: Tensor, rstd: Tensor, weight_wanted: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of s, weight and bias; the latter two are empty where there is none or it is not wanted.

    Everything is widened first. From half-precision s torch's CPU kernel would sum the gradients of weight and bias
    over the rows in half precision too: they are wrong by 9 to 13% at 8192 rows of bf16.
    """
    wide_grad, wide_s, wide_weight, wide_bias = _widened(grad, s, weight, bias, dtype=s.dtype)
    wanted = [True, weight_wanted and weight is not None, weight_wanted and bias is not None]
    statistics = (part.view(*s.shape[:-1], 1) for part in (mean, rstd))
    grads = _aten.native_layer_norm_backward(
        wide_grad, wide_s, s.shape[-1:], *statistics, wide_weight, wide_bias, wanted
    )
    grad_s = grads[0].to(s.dtype) if grad_sum is None else (grads[0] + grad_sum).to(s.dtype)
    return grad_s, _like(weight, s, grads[1]), _like(bias, s, grads[2])


def _like(part: Tensor | None, s: Tensor, grad: Tensor | None) -> Tensor:
    """The gradient of the weight or the bias in its dtype, or the empty tensor where there is none."""
    return empty(s) if part is None or grad is None else grad.to(part.dtype)


# --- kernels


@triton.jit
def _layer_norm_forward_kernel(
    x_ptr, residual_ptr,  # (rows, width), rows a stride apart
    weight_ptr, bias_ptr,  # (width)
    y_ptr, sum_ptr,  # (rows, width)
    mean_ptr, rstd_ptr,  # (rows) fp32
    x_stride, residual_stride, rows, width, eps,
    HAS_RESIDUAL: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    in_width = column < width
    inside = (row < rows)[:, None] & in_width[None, :]
    place = row[:, None] * width + column[None, :]
    s = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        other = tl.load(residual_ptr + row[:, None] * residual_stride + column[None, :], mask=inside, other=0.0)
        # Rounded first, so that what is normalised is what is returned.
        rounded = (s + other.to(tl.float32)).to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + place, rounded, mask=inside)
        s = rounded.to(tl.float32)
    mean = tl.sum(s, axis=1) / width
    centred = tl.where(in_width[None, :], s - mean[:, None], 0.0)
    rstd = tl.rsqrt(tl.sum(centred * centred, axis=1) / width + eps)
    tl.store(mean_ptr + row, mean, mask=row < rows)
    tl.store(rstd_ptr + row, rstd, mask=row < rows)
    y = centred * rstd[:, None]
    if HAS_WEIGHT:
        y *= tl.load(weight_ptr + column, mask=in_width, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        y += tl.load(bias_ptr + column, mask=in_width, other=0.0).to(tl.float32)[None, :]
    tl.store(y_ptr + place, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _layer_norm_backward_kernel(
    grad_ptr, grad_sum_ptr, s_ptr,  # (rows, width), rows a stride apart
    weight_ptr,  # (width)
    mean_ptr, rstd_ptr,  # (rows) fp32
    grad_s_ptr,  # (rows, width)
    weight_parts_ptr, bias_parts_ptr,  # (programs, width) fp32
    grad_stride, grad_sum_stride, s_stride, rows, width,
    tiles,  # of ROWS rows each, for every program
    HAS_GRAD_SUM: tl.constexpr, HAS_WEIGHT: tl.constexpr, WEIGHT_WANTED: tl.constexpr, BIAS_WANTED: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    in_width = column < width
    weight = tl.full((BLOCK,), 1.0, tl.float32)
    if HAS_WEIGHT:
        weight = tl.load(weight_ptr + column, mask=in_width, other=0.0).to(tl.float32)
    weight_part = tl.zeros((BLOCK,), tl.float32)
    bias_part = tl.zeros((BLOCK,), tl.float32)
    for tile in range(0, tiles):
        row = (program * tiles + tile) * ROWS + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & in_width[None, :]
        mean = tl.load(mean_ptr + row, mask=row < rows, other=0.0)
        rstd = tl.load(rstd_ptr + row, mask=row < rows, other=0.0)
        s = tl.load(s_ptr + row[:, None] * s_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_ptr + row[:, None] * grad_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        normal = tl.where(inside, (s - mean[:, None]) * rstd[:, None], 0.0)
        if WEIGHT_WANTED:
            weight_part += tl.sum(grad * normal, axis=0)
        if BIAS_WANTED:
            bias_part += tl.sum(grad, axis=0)
        scaled = grad * weight[None, :]
        along_normal = tl.sum(scaled * normal, axis=1) / width
        along_one = tl.sum(scaled, axis=1) / width
        grad_s = (scaled - along_one[:, None] - normal * along_normal[:, None]) * rstd[:, None]
        if HAS_GRAD_SUM:
            more = tl.load(grad_sum_ptr + row[:, None] * grad_sum_stride + column[None, :], mask=inside, other=0.0)
            grad_s += more.to(tl.float32)
        place = row[:, None] * width + column[None, :]
        tl.store(grad_s_ptr + place, grad_s.to(grad_s_ptr.dtype.element_ty), mask=inside)
    if WEIGHT_WANTED:
        tl.store(weight_parts_ptr + program * width + column, weight_part, mask=in_width)
    if BIAS_WANTED:
        tl.store(bias_parts_ptr + program * width + column, bias_part, mask=in_width)


# --- launchers


def forward_settings(width: int) -> Settings:
    """Four rows of 1024, the most that stays in registers at four warps."""
    return whole_rows(width, elements=4096)


def backward_settings(width: int) -> Settings:
    """Half of the forward's: a row, its gradient, the weight and two sums are held at once."""
    return whole_rows(width, elements=2048)


def _layer_norm_forward(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = as_rows(x)
    others = rows if residual is None else as_rows(residual)
    y, s, mean, rstd = _forward_fake(x, residual, weight, bias, eps)
    settings = forward_settings(x.shape[-1])
    launch(
        _layer_norm_forward_kernel, programs_for(len(rows), settings),
        rows, others, *(rows if part is None else part.contiguous() for part in (weight, bias)), y, s, mean, rstd,
        rows.stride(0), others.stride(0), len(rows), x.shape[-1], eps, settings=settings,
        HAS_RESIDUAL=residual is not None, HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None,
        ROWS=settings.rows, BLOCK=settings.block,
    )  # fmt: skip
    return y, s, mean, rstd


def _layer_norm_backward(
    grad: Tensor, grad_sum: Tensor | None, s: Tensor, weight: Tensor | None, bias: Tensor | None,
    mean: Tensor, rstd: Tensor, weight_wanted: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    width = s.shape[-1]
    rows, grads = as_rows(s), as_rows(grad)
    sums = grads if grad_sum is None else as_rows(grad_sum)
    settings = backward_settings(width)
    tiles = programs_for(len(rows), settings)
    programs = min(tiles, 4 * multiprocessors(s.device))
    wanted = [weight_wanted and part is not None for part in (weight, bias)]
    parts = [empty(s, (programs if want else 0, width), torch.float32) for want in wanted]
    grad_s = empty(s, s.shape)
    launch(
        _layer_norm_backward_kernel, programs,
        grads, sums, rows, rows if weight is None else weight.contiguous(), mean, rstd, grad_s, *parts,
        grads.stride(0), sums.stride(0), rows.stride(0), len(rows), width, -(-tiles // max(1, programs)),
        settings=settings, HAS_GRAD_SUM=grad_sum is not None, HAS_WEIGHT=weight is not None,
        WEIGHT_WANTED=wanted[0], BIAS_WANTED=wanted[1], ROWS=settings.rows, BLOCK=settings.block,
    )  # fmt: skip
    grad_weight, grad_bias = (part.sum(0) if want else None for part, want in zip(parts, wanted, strict=True))
    return grad_s, _like(weight, s, grad_weight), _like(bias, s, grad_bias)


# --- op, fake, autograd


def _forward(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    triton_runs = use_triton(x, residual, weight, bias, held_width=x.shape[-1])
    return (_layer_norm_forward if triton_runs else layer_norm_reference)(x, residual, weight, bias, eps)


def _forward_fake(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype)
    y, s = empty(x, x.shape, dtype), empty(x, (0,) if residual is None else x.shape, dtype)
    mean, rstd = (empty(x, (x.shape[:-1].numel(),), torch.promote_types(dtype, torch.float32)) for _ in range(2))
    return y, s, mean, rstd


def _backward(*operands: Any) -> tuple[Tensor, Tensor, Tensor]:
    grad, grad_sum, s, weight, bias, *_ = operands
    triton_runs = use_triton(grad, grad_sum, s, weight, bias, held_width=s.shape[-1])
    return (_layer_norm_backward if triton_runs else layer_norm_backward_reference)(*operands)


def _backward_fake(*operands: Any) -> tuple[Tensor, Tensor, Tensor]:
    _, _, s, weight, bias, _, _, weight_wanted = operands
    weight, bias = (
        empty(part, part.shape) if weight_wanted and part is not None else empty(s) for part in (weight, bias)
    )
    return empty(s, s.shape), weight, bias


_op = define(
    "layer_norm(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, float eps)"
    " -> (Tensor, Tensor, Tensor, Tensor)", _forward, _forward_fake,
)  # fmt: skip
_backward_op = define(
    "layer_norm_backward(Tensor grad, Tensor? grad_sum, Tensor s, Tensor? weight, Tensor? bias, Tensor mean,"
    " Tensor rstd, bool weight_wanted) -> (Tensor, Tensor, Tensor)", _backward, _backward_fake,
)  # fmt: skip


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, residual, weight, bias, _ = inputs
    _, s, mean, rstd = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(mean, rstd)
    ctx.dtypes = x.dtype, None if residual is None else residual.dtype
    ctx.save_for_backward(x if residual is None else s, weight, bias, mean, rstd)


def _differentiate(ctx: Any, grad: Tensor | None, grad_sum: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    s, weight, bias, mean, rstd = ctx.saved_tensors
    x_dtype, residual_dtype = ctx.dtypes
    _, _, weight_wanted, bias_wanted, _ = ctx.needs_input_grad
    grad_s, grad_weight, grad_bias = grad_sum, None, None
    if grad is not None:  # None: the sum alone was used
        wanted = weight_wanted or bias_wanted
        grad_sum = None if residual_dtype is None else grad_sum
        grad_s, grad_weight, grad_bias = _backward_op(grad, grad_sum, s, weight, bias, mean, rstd, wanted)
    if grad_s is None:
        return None, None, None, None, None
    grad_residual = None if residual_dtype is None else grad_s.to(residual_dtype)
    return (
        grad_s.to(x_dtype), grad_residual, grad_weight if weight_wanted else None,
        grad_bias if bias_wanted else None, None,
    )  # fmt: skip


differentiate(_op, _differentiate, _save)
differentiate_never(_backward_op)


# --- public


def layer_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5,
    residual: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Layer-normalise the last dimension.

    Args:
        x: (..., width), any floating dtype.
        weight: (width) gain, or None for 1.
        bias: (width) shift, or None for 0.
        eps: added to the variance.
        residual: tensor that is added to x first; the sum has the shape and dtype that torch gives x + residual.

    Returns:
        y (..., width) in the dtype of what was normalised, also under autocast. With `residual`, the pair
        (y, s) of the normalised tensor and the sum s = x + residual. Differentiable once.

    Raises:
        ValueError: for a scalar x, or a weight or bias that is not (width).
    """
    if x.ndim == 0:
        raise ValueError("layer_norm needs a last dimension, and x is a scalar")
    for name, part in (("weight", weight), ("bias", bias)):
        if part is not None and part.shape != x.shape[-1:]:
            raise ValueError(f"{name} {tuple(part.shape)} does not fit x {tuple(x.shape)}: it must be ({x.shape[-1]},)")
    if residual is not None and residual.shape != x.shape:
        s = x + residual  # torch's broadcasting; what the kernel fuses is the sum of a block
        return _op(s, None, weight, bias, eps)[0], s
    y, s, _, _ = _op(x, residual, weight, bias, eps)
    return y if residual is None else (y, s)
