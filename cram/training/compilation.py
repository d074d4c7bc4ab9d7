"""Compiling the forward and backward pass, and comparing compiled code with eager code before it is trusted.

`blocks` compiles each block in place. Blocks of the same code and shapes share one compiled function, so that only the
first, a middle and the last block cost time, however many there are. `model` compiles the whole forward pass at once,
which takes longer and fuses across the borders of blocks. Names in the state dict stay as they are.

Code that must not be compiled, such as an evaluation with other shapes and without gradients, runs inside
`cram.training.gradients.eagerly`.

CUDA graphs: the outputs of a graph lie in memory that its next replay overwrites. Each forward pass of the model begins
a new step, so that a micro-batch may overwrite the memory of the one before. Only the gradients live longer than a
micro-batch. Autograd would keep the first gradients as `.grad` in that memory, so they are copied out of it; later
gradients are added to the copies.

Source: https://docs.pytorch.org/tutorials/recipes/regional_compilation.html
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cram.budget import Budget
from cram.config.training import CompileConfig
from cram.errors import CramError
from cram.training.gradients import accumulate, eagerly, seed_dropout
from cram.training.session import Session

# Below this budget, compiling the blocks takes more time than it saves. How long a budget of tokens or updates takes is
# not known, and compiling is not charged to it: there the blocks are compiled.
BLOCK_SECONDS = 600.0
# From this budget on, the whole model is compiled: 12 to 18 blocks take about two minutes more than three, and a gain
# of 2% by fusing across the borders of blocks saves as much in two hours. These are estimates, not measurements.
MODEL_SECONDS = 7200.0
# Three kinds of blocks for each size of a micro-batch, which can be halved several times.
RECOMPILE_LIMIT = 64
CHECKED_MICRO_BATCHES = 2  # one that creates the gradients, one that adds to them
ERROR_LENGTH = 300  # characters of a compiler's error that are shown
WARMUP_PASSES = 3  # a CUDA graph is run, recorded and replayed


@dataclass(frozen=True)
class Tolerance:
    """The largest relative differences that are allowed: of the loss, and of the gradient of a parameter."""

    loss: float
    gradient: float


# Compiled code rounds at other places: it may keep in fp32 what eager code stores in half precision between two
# operations. Measured on a CPU in bf16, six blocks of 256: 3e-6 for the loss; for gradients 4e-3 of a decoder, 0 of an
# encoder. Attention on a GPU adds up in another order. Wrong code differs by about as much as the gradient itself.
TOLERANCES = {torch.float32: Tolerance(1e-4, 1e-3)}
HALF_TOLERANCE = Tolerance(1e-2, 1e-1)
# A gradient is compared relative to its norm, or to this share of the norm of all gradients if that is larger.
SMALLEST_SHARE = 1e-3


@dataclass(frozen=True)
class Check:
    """The largest differences between compiled and eager code, and the parameter whose gradient differs most."""

    updates: int
    loss: float
    gradient: float
    parameter: str
    passed: bool


def check_compile(config: CompileConfig, device: torch.device) -> None:
    """Check the keys of compilation for a device.

    Raises:
        CramError: naming a key whose value is impossible on the device.
    """
    if config.cuda_graphs and device.type != "cuda":
        raise CramError(f"compile.cuda_graphs=true needs a GPU, and the device is {device.type}: leave it out.")


def compiled_graphs() -> int:
    """Count the graphs that this process has compiled so far."""
    dynamo = sys.modules.get("torch._dynamo.utils")  # absent until something is compiled
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo else 0


def kinds_to_try(config: CompileConfig, device: torch.device, budget: Budget) -> tuple[str, ...]:
    """List what to compile, and what to try next if that fails; empty for `eager`."""
    if config.kind == "eager" or (config.kind == "auto" and device.type != "cuda"):
        return ()
    if config.kind != "auto":
        return (config.kind,)
    if budget.clock != "wall":
        return ("blocks",)
    if budget.limit < BLOCK_SECONDS:
        return ()
    return ("model", "blocks") if budget.limit >= MODEL_SECONDS else ("blocks",)


def compile_model(model: Any, kind: str, cuda_graphs: bool) -> Callable[[], None]:
    """Compile the `blocks` of a model, or the `model` itself, in place, when it is called next.

    Returns:
        A function that undoes it.
    """
    from torch._inductor import config as inductor

    parts = list(model.get_submodule("blocks").children()) if kind == "blocks" else [model]
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, RECOMPILE_LIMIT)
    # Dropout leaves out the same as in eager code, which compiled code is compared with.
    inductor.fallback_random = True

    def compile_part(part: nn.Module) -> None:
        # On a CPU the model reads values of tensors, which a single graph cannot do.
        whole = next(part.parameters()).device.type == "cuda"
        part.compile(fullgraph=whole, dynamic=False, mode="reduce-overhead" if cuda_graphs else None)

    for part in parts:
        compile_part(part)
    if kind == "blocks":
        model.new_block_hook = compile_part
    handles = _share_graph_memory(model) if cuda_graphs else []

    def undo() -> None:
        for module in (*parts, model):
            module._compiled_call_impl = None
        model.new_block_hook = None
        for handle in handles:
            handle.remove()
        torch.compiler.reset()

    return undo


def _share_graph_memory(model: nn.Module) -> list[Any]:
    """Let CUDA graphs reuse the memory of the forward pass before, and copy the gradients out of that memory."""
    call = model._compiled_call_impl or model._call_impl

    def begin_step(*arguments: Any, **named: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return call(*arguments, **named)

    model._compiled_call_impl = begin_step
    return [parameter.register_hook(_copy_first_gradient(parameter)) for parameter in model.parameters()]


def _copy_first_gradient(parameter: nn.Parameter) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient.clone() if parameter.grad is None else gradient


def compile_session(session: Session, config: CompileConfig) -> dict[str, Any]:
    """Compile the model of a run and compare it with eager code. If that fails, warn and stay eager.

    The micro-batch must be known already. A resumed run is not compared again: a kind that failed before is not tried,
    one that passed is trusted. The time is charged as compilation. Afterwards the weights are as before, there are no
    gradients, and the loader has not moved.

    Returns:
        For the receipt: `kind` (eager, blocks or model), `cuda_graphs`, `seconds`, the `check`, and `failed`: the
        reason by kind.
    """
    began = time.monotonic()
    executed = session.parts.work.state()
    report: dict[str, Any] = {"kind": "eager", "cuda_graphs": False, "seconds": 0.0, "check": None, "failed": {}}
    report |= session.state.compiled
    if session.state.last_progress == 1.0 or session.parts.loader.rows_left < session.state.micro_rows:
        return report  # nothing is left to train
    report |= {"kind": "eager", "cuda_graphs": False}
    with session.clock.account("compilation"):
        for kind in kinds_to_try(config, session.parts.device, session.clock.budget):
            if kind in report["failed"]:
                continue
            undo = compile_model(session.parts.model, kind, config.cuda_graphs)
            check, failure = _try_compiled(session, 0 if session.clock.updates else config.check_updates)
            report["check"] = asdict(check) if check else report["check"]
            if failure is None:
                report |= {"kind": kind, "cuda_graphs": config.cuda_graphs}
                break
            undo()
            report["failed"][kind] = failure
            print(f"warning: compile.kind={kind} is not used: {failure}", flush=True)
    if report["failed"] and report["kind"] == "eager":
        print("warning: training goes on eagerly, and more slowly. The receipt says so too.", flush=True)
    session.parts.work.load(executed)  # passes that only compare are no work of the run
    report["seconds"] += time.monotonic() - began
    return report


def _try_compiled(session: Session, updates: int) -> tuple[Check | None, str | None]:
    """Run the compiled model, compared with eager code over some updates; 0 only warms it up.

    Returns:
        The check, if there was one, and why the compiled model cannot be used, or None.
    """
    try:
        if not updates:
            _warm_up(session)
            return None, None
        check = compare(session, updates)
    except CramError:
        raise
    except Exception as error:  # a compiler may raise anything
        session.parts.model.zero_grad(set_to_none=True)
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:ERROR_LENGTH]}"
    if check.passed:
        return check, None
    allowed = TOLERANCES.get(session.parts.precision, HALF_TOLERANCE)
    return check, (
        f"against eager code the loss is off by {check.loss:.1e} of it (allowed {allowed.loss:.0e}) and the gradient "
        f"of {check.parameter} by {check.gradient:.1e} (allowed {allowed.gradient:.0e})"
    )


def compare(session: Session, updates: int) -> Check:
    """Compute the same updates of each phase eagerly and compiled, from the same weights and rows, and compare.

    The gradients are compared, not the weights after an optimizer: the optimizer is not compiled, and the first steps
    of AdamW are the signs of the gradients, which rounding can flip. Each update moves the weights along the eager
    gradients, because projections that begin at zero block the gradients of other weights. The weights are put back
    bit for bit.
    """
    rows = _rows_to_check(session)
    parameters = dict(session.parts.model.named_parameters())
    weights = [parameter.detach().clone() for parameter in parameters.values()]
    loss, gradient, worst = 0.0, 0.0, ""
    try:
        for progress in session.parts.objective.phases * updates:
            with eagerly():
                reference, expected = _pass(session, rows, progress)
            value, gradients = _pass(session, rows, progress)
            loss = max(loss, _nan_to_infinity(abs(value - reference) / max(abs(reference), 1e-9)))
            for name, difference in _differences(gradients, expected).items():
                if difference > gradient:
                    gradient, worst = difference, name
            _move(parameters, expected)
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(parameters.values()), weights)
        session.parts.model.zero_grad(set_to_none=True)
    allowed = TOLERANCES.get(session.parts.precision, HALF_TOLERANCE)
    return Check(updates, loss, gradient, worst, loss <= allowed.loss and gradient <= allowed.gradient)


def _rows_to_check(session: Session) -> Any:
    """Look at the rows of a few whole micro-batches. Training takes them later."""
    joined = max(map(session.parts.objective.rows_joined, session.parts.objective.phases))
    micro, left = session.state.micro_rows * joined, session.parts.loader.rows_left
    return session.parts.loader.peek(min(CHECKED_MICRO_BATCHES * micro, left - left % micro))


def _pass(session: Session, rows: Any, progress: float) -> tuple[float, dict[str, Tensor]]:
    """Compute nats per predicted token and the gradients by parameter, and leave no gradient in the model."""
    seed_dropout(session)
    predicted, nats = accumulate(session, rows, progress)
    gradients = {name: p.grad for name, p in session.parts.model.named_parameters() if p.grad is not None}
    session.parts.model.zero_grad(set_to_none=True)
    return float(nats) / max(predicted, 1), gradients


def _differences(gradients: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Compute the norm of each difference, relative to the norm of the gradient or a small share of all gradients."""
    if gradients.keys() != expected.keys():
        missing = sorted(gradients.keys() ^ expected.keys())
        return dict.fromkeys(missing, math.inf)
    norms = torch.stack(torch._foreach_norm(list(expected.values())))
    apart = torch.stack([torch.linalg.vector_norm(gradients[name] - expected[name]) for name in expected])
    shares = apart / norms.clamp(min=SMALLEST_SHARE * float(torch.linalg.vector_norm(norms)))
    # Where fp16 overflows in both, there is nothing to compare.
    shares = torch.where(norms.isfinite(), shares, 0.0)
    return {name: _nan_to_infinity(share) for name, share in zip(expected, shares.tolist(), strict=True)}


def _nan_to_infinity(difference: float) -> float:
    """Count NaN as infinite, so that it is larger than every tolerance."""
    return math.inf if math.isnan(difference) else difference


@torch.no_grad()
def _move(parameters: dict[str, nn.Parameter], gradients: dict[str, Tensor]) -> None:
    """Move each parameter against its gradient, by 0.001 in the root mean square."""
    for name, gradient in gradients.items():
        size = gradient.square().mean().sqrt()
        step = torch.where(size.isfinite() & (size > 0.0), gradient / size.clamp(min=1e-30), 0.0)
        parameters[name].sub_(step, alpha=1e-3)


def _warm_up(session: Session) -> None:
    """Run everything that an update will call, so that it is compiled, and throw the gradients away."""
    for progress in session.parts.objective.phases * WARMUP_PASSES:
        _pass(session, _rows_to_check(session), progress)
