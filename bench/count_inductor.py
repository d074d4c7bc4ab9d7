"""The kernels that torch's compiler would launch. It writes its Triton code without a GPU; launches are recorded.

The forward and backward passes are given as functions of their own, in torch's own operations, with what a forward pass
would keep as further inputs. Losses are those of each row, as ours are.
"""

import importlib.util
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import kernel_cases
from bench.bounds import GPUS
from bench.count_cases import SCALE
from bench.kernel_cases import DTYPES, HEADS, SEQ_LEN, KernelCase
from bench.peer_launches import JitLaunch, Recorded, fake, fake_properties, without_memory
from cram_kernels._triton import triton

aten = torch.ops.aten
_numbers = count()  # of the files that hold generated kernels


# --- the functions


def _norm_forward(x: Tensor, weight: Tensor) -> Any:
    return aten.native_layer_norm(x, [x.shape[-1]], weight, None, 1e-5)


def _norm_backward(grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor) -> Any:
    return aten.native_layer_norm_backward(grad, x, [x.shape[-1]], mean, rstd, weight, None, [True, True, False])


def _sum_forward(x: Tensor, residual: Tensor, weight: Tensor) -> Any:
    s = x + residual
    return s, *_norm_forward(s, weight)


def _sum_backward(grad: Tensor, grad_sum: Tensor, s: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor) -> Any:
    grad_s, grad_weight, _ = _norm_backward(grad, s, mean, rstd, weight)
    return grad_s + grad_sum, grad_weight


def _masked_softmax(x: Tensor, mask: Tensor) -> Tensor:
    return torch.softmax(torch.where(mask, x * SCALE, float("-inf")), -1)


def _softmax_backward(grad: Tensor, shares: Tensor, scale: float) -> Any:
    grad_x = aten._softmax_backward_data(grad, shares, -1, shares.dtype)
    return grad_x if scale == 1 else grad_x * scale


def _loss_forward(logits: Tensor, target: Tensor) -> Any:
    x = logits.float()
    largest = x.amax(-1, keepdim=True)
    log_sum = (x - largest).exp().sum(-1, keepdim=True).log()
    picked = x.gather(1, target.unsqueeze(1))
    return torch.where(target == -100, 0.0, (largest + log_sum - picked).squeeze(1)), largest, log_sum


def _loss_backward(grad: Tensor, logits: Tensor, target: Tensor, largest: Tensor, log_sum: Tensor) -> Any:
    shares = (logits.float() - largest - log_sum).exp()
    column = torch.arange(logits.shape[1], device=logits.device)
    scale = torch.where(target == -100, 0.0, grad).unsqueeze(1)
    return ((shares - (column == target.unsqueeze(1)).float()) * scale).to(logits.dtype)


def _loss_both(logits: Tensor, target: Tensor) -> Any:
    losses, largest, log_sum = _loss_forward(logits, target)
    return losses, _loss_backward(torch.ones_like(losses), logits, target, largest, log_sum)


def _gated_backward(grad: Tensor, x: Tensor, silu: bool) -> Any:
    a, b = x.chunk(2, -1)
    grad_gate = grad * b
    if silu:  # torch's own decomposition of silu_backward works in place, which is not traced here
        share = a.float().sigmoid()
        grad_a = (grad_gate.float() * share * (1 + a.float() * (1 - share))).to(a.dtype)
    else:
        grad_a = aten.gelu_backward(grad_gate, a)
    return torch.cat((grad_a, grad * (F.silu(a) if silu else F.gelu(a))), -1)


def _rope_backward(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Any:
    return kernel_cases.rope(q, k, cos, -sin)


def find_function(case: KernelCase, direction: str) -> tuple[Callable[..., Any], list[Tensor]] | None:
    """Return a function and its fake inputs for one direction of a case, or None; within `record_jit`."""
    x, grad, other = (fake(case.rows, case.width, dtype=DTYPES[case.dtype]) for _ in range(3))
    weight, mean, rstd = fake(case.width), fake(case.rows, 1), fake(case.rows, 1)
    target, numbers = fake(case.rows, dtype=torch.int64), fake(case.rows)
    wide = fake(case.rows, 2 * case.width, dtype=DTYPES[case.dtype])
    heads = (case.rows // SEQ_LEN, SEQ_LEN, HEADS, case.width // HEADS)
    scores = x.view(-1, HEADS, SEQ_LEN, case.width) if case.op == "softmax+mask" else x
    mask = fake(len(scores), 1, SEQ_LEN, case.width, dtype=torch.bool) if case.op == "softmax+mask" else x
    if case.op == "rope":
        angles = [fake(*heads[:2], heads[3] // 2) for _ in range(2)]
        inputs = [x.view(heads), grad.view(heads), *angles]
        return kernel_cases.rope if direction == "forward" else _rope_backward, inputs
    found: dict[str, tuple[Callable[..., Any], list[Tensor]]] = {
        "layer_norm forward": (_norm_forward, [x, weight]),
        "layer_norm backward": (_norm_backward, [grad, x, mean, rstd, weight]),
        "layer_norm+residual forward": (_sum_forward, [x, other, weight]),
        "layer_norm+residual backward": (_sum_backward, [grad, other, x, mean, rstd, weight]),
        "softmax forward": (kernel_cases.softmax, [x]),
        "softmax backward": (partial(_softmax_backward, scale=1.0), [grad, x]),
        "softmax+mask forward": (_masked_softmax, [scores, mask]),
        "softmax+mask backward": (partial(_softmax_backward, scale=SCALE), [grad, x]),
        "cross_entropy forward": (_loss_forward, [x, target]),
        "cross_entropy backward": (_loss_backward, [numbers, x, target, mean, rstd]),
        "linear_cross_entropy forward": (_loss_both, [x, target]),
        "geglu forward": (kernel_cases.geglu, [wide]),
        "geglu backward": (partial(_gated_backward, silu=False), [grad, wide]),
        "swiglu forward": (kernel_cases.swiglu, [wide]),
        "swiglu backward": (partial(_gated_backward, silu=True), [grad, wide]),
    }
    return found.get(f"{case.op} {direction}")


# --- their code, and its launches


class _Captured(Exception):
    """Ends the compilation when the code is there."""


def generate_code(function: Callable[..., Any], inputs: list[Tensor], arch: int) -> str:
    """Return the Python code, with Triton kernels in it, that torch's compiler makes of a function.

    Raises:
        RuntimeError: if it makes none.
    """
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.graph import GraphLowering
    from torch.fx.experimental.proxy_tensor import make_fx

    codes: list[str] = []

    def capture(graph: Any, *_: Any, **__: Any) -> Any:
        wrapper, _kernels = graph.codegen()
        codes.append(wrapper.value)
        raise _Captured

    def returning_tuple(*tensors: Tensor) -> tuple[Any, ...]:
        result = function(*tensors)
        return result if isinstance(result, tuple) else (result,)

    problem = None
    with torch.no_grad(), stand_in_for_driver(arch), config.patch(fx_graph_cache=False):
        graph = make_fx(returning_tuple, decomposition_table=select_decomp_table())(*inputs)
        with patch.object(GraphLowering, "_compile_to_module", capture):
            try:
                compile_fx_inner(graph, inputs)
            except Exception as error:  # torch wraps what `capture` raises
                problem = error
    if not codes:
        raise RuntimeError("torch's compiler made no code") from problem
    return codes[0]


class _NoDevice:
    """Stands for `torch.cuda.device`."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


@contextmanager
def stand_in_for_driver(arch: int) -> Iterator[None]:
    """Give torch's compiler a driver of Triton and the properties of a GPU."""
    from torch._inductor.runtime import triton_helpers
    from torch._inductor.runtime.hints import DeviceProperties
    from triton.backends.compiler import GPUTarget

    gpu, told = GPUS[arch], fake_properties(arch)
    properties = DeviceProperties(
        "cuda", 0, gpu.multiprocessors, arch, told.major, told.regs_per_multiprocessor, 32 * gpu.warps, 1024, 32
    )
    driver = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", arch, 32),
        get_current_device=lambda: 0,
        get_active_torch_device=lambda: torch.device("cuda", 0),
        is_active=lambda: True,
    )
    answers: list[tuple[Any, str, Any]] = [
        (DeviceProperties, "create", lambda _: properties),
        (triton_helpers, "set_driver_to_gpu", lambda: None),
        (torch.cuda, "device", _NoDevice),
        (torch.cuda, "_DeviceGuard", lambda _: nullcontext()),
        (torch.cuda, "_lazy_init", lambda: None),
        (torch.cuda, "get_rng_state", lambda *_: torch.empty(16, dtype=torch.uint8)),
        (torch.cuda, "set_rng_state", lambda *_: None),
        (triton.runtime.driver, "_active", driver),
    ]
    with ExitStack() as stack:
        stack.callback(_forget_triton)  # last of all: what is found here is not true afterwards
        for place, name, answer in answers:
            stack.enter_context(patch.object(place, name, answer, create=True))
        _forget_triton()
        yield


def _forget_triton() -> None:
    """Make torch look again whether Triton works here, which it looks up once in a process."""
    from torch.utils import _triton

    for answer in vars(_triton).values():
        if hasattr(answer, "cache_clear"):
            answer.cache_clear()


def run_code(code: str, inputs: list[Tensor], arch: int, recorded: Recorded) -> None:
    """Run generated code on fake tensors, and record what its kernels would be launched with."""
    compiler = SimpleNamespace(
        triton=lambda name, source, **_: _GeneratedKernel(name, source, recorded), wait=lambda _: None
    )
    code = re.sub(r"^from torch\._C import .* as get_raw_stream$", "", code, flags=re.MULTILINE)
    code = re.sub(r"^empty_strided_p2p = .*$", "", code, flags=re.MULTILINE)
    names: dict[str, Any] = {"__name__": "generated", "get_raw_stream": lambda _: 0}
    with ExitStack() as stack:
        stack.enter_context(stand_in_for_driver(arch))
        stack.enter_context(patch("torch._inductor.async_compile.AsyncCompile", lambda: compiler))
        # Without CUDA, torch cannot slice a fake tensor of a GPU in the usual way.
        stack.enter_context(patch.object(Tensor, "__getitem__", _slice))
        exec(compile(code, "generated", "exec"), names)
        names |= {
            "copy_if_misaligned": lambda tensor: tensor,
            "assert_size_stride": lambda *_: None,
            "empty_strided_cuda": _allocate,
            "reinterpret_tensor": lambda tensor, size, stride, offset: tensor.as_strided(size, stride, offset),
        }
        names["call"](list(inputs))


def _slice(tensor: Tensor, part: slice) -> Tensor:
    start, stop, _ = part.indices(tensor.shape[0])
    return tensor.narrow(0, start, stop - start)


def _allocate(size: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(size, stride, dtype=dtype, device="cuda")


class _GeneratedKernel:
    """A generated kernel, which records its launches: one alternative for each configuration that would be tried."""

    def __init__(self, name: str, source: str, recorded: Recorded) -> None:
        with tempfile.TemporaryDirectory() as folder:  # Triton reads the source of a kernel from its file, at once
            path = Path(folder) / f"generated_{next(_numbers)}.py"
            path.write_text(source)
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None:
                raise RuntimeError(f"{path} cannot be imported")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        self.tuner, self.recorded = getattr(module, name), recorded

    def run(self, *arguments: Any, stream: int) -> None:
        """Record a launch."""
        from torch._inductor.runtime.triton_heuristics import GridExpr

        del stream
        kernel = self.tuner.fn
        alternatives = []
        for config in self.tuner.configs:
            given = dict(zip(kernel.arg_names, arguments, strict=False))
            values = {name: without_memory(value) for name, value in (given | config.kwargs).items()}
            values = {name: value for name, value in values.items() if name in kernel.arg_names}
            grid = GridExpr.from_meta(self.tuner.inductor_meta, config).eval_slow(given | config.kwargs)
            options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
            alternatives.append(JitLaunch(kernel, (*grid, 1, 1, 1)[:3], values, options))
        self.recorded.append(alternatives)


def find_call(case: KernelCase, direction: str, arch: int, recorded: Recorded) -> Callable[[], None] | None:
    """Return the call that records the launches of torch's compiler for one direction of a case, or None."""
    found = find_function(case, direction)
    if found is None:
        return None
    function, inputs = found
    code = generate_code(function, inputs, arch)
    return partial(run_code, code, inputs, arch, recorded)
