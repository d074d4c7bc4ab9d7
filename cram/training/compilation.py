"""Compiling the forward and backward pass, and the check that training may trust it.

`blocks` compiles each block where it stands: blocks of the same code and shapes share one compiled function, so that it
costs the first, a middle and the last block, however many there are. `model` compiles the whole forward pass at once,
which takes longer and fuses across the blocks' borders. Names in the state dict stay as they are.

Whatever must not be compiled (an evaluation, in other shapes and without gradients) runs inside `eagerly()`.

CUDA graphs: a graph's outputs lie in memory that its next replay writes over. Each forward pass of the model begins a
new step, so that a micro-batch may write where the one before it did, and nothing of a micro-batch lives longer but
its gradients: autograd would keep the first ones as `.grad` where they lie, so they are copied out; later ones are
added to these.

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

from cram.clock import Budget
from cram.config.training import CompileConfig
from cram.errors import CramError
from cram.training.gradients import accumulate
from cram.training.session import Session

# Below this, compiling the blocks takes more of the budget than it gives back. Nothing is known of how long a budget of
# tokens or updates takes, and compiling is not charged to it: there the blocks are compiled.
BLOCK_SECONDS = 600.0
# From here on the whole model is compiled: of 12 to 18 blocks that takes about two minutes more than of three, and a
# gain of 2% by fusing across the blocks' borders pays for them in two hours. Estimates, not measured.
MODEL_SECONDS = 7200.0
# Three kinds of blocks for each size of a micro-batch, which running out of memory can halve again and again.
RECOMPILE_LIMIT = 64
CHECKED_MICRO_BATCHES = 2  # one to begin the gradients, one to add to them
MESSAGE = 300  # characters of a compiler's error that are shown
WARMING_PASSES = 3  # a CUDA graph is run, recorded and replayed


@dataclass(frozen=True)
class Tolerance:
    """Largest relative difference of the loss, and of the gradient of a parameter."""

    loss: float
    gradient: float


# Compiled code rounds at other places: it may keep in fp32 what eager code stores in half precision between two
# operations. Found on a CPU in bf16, six blocks of 256: loss 3e-6, gradient 4e-3 of a decoder's, 0 of an encoder's; a
# GPU's attention adds up in an order of its own. Wrong code is off by about as much as the gradient itself.
TOLERANCES = {torch.float32: Tolerance(1e-4, 1e-3)}
HALF_TOLERANCE = Tolerance(1e-2, 1e-1)
# A gradient is compared with no less than this share of the whole model's: what is smaller is rounding.
SMALLEST_SHARE = 1e-3


@dataclass(frozen=True)
class Check:
    """The largest differences found, and the parameter with the largest one of its gradient."""

    updates: int
    loss: float
    gradient: float
    parameter: str
    passed: bool


def check_compile(config: CompileConfig, device: torch.device) -> None:
    """Errors: CramError naming the key whose value is impossible here."""
    if config.cuda_graphs and device.type != "cuda":
        raise CramError(f"compile.cuda_graphs=true needs a GPU, and the device is {device.type}: leave it out.")


def eagerly() -> Any:
    """A context in which compiled modules run as they were written, and nothing is compiled."""
    return torch.compiler.set_stance("force_eager")


def compiled_graphs() -> int:
    """How many graphs this process has compiled so far."""
    dynamo = sys.modules.get("torch._dynamo.utils")  # absent until something is compiled
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo else 0


def kinds_to_try(config: CompileConfig, device: torch.device, budget: Budget) -> tuple[str, ...]:
    """What to compile, and what instead where that fails; nothing for `eager`."""
    if config.kind == "eager" or (config.kind == "auto" and device.type != "cuda"):
        return ()
    if config.kind != "auto":
        return (config.kind,)
    if budget.clock != "wall":
        return ("blocks",)
    if budget.limit < BLOCK_SECONDS:
        return ()
    return ("model", "blocks") if budget.limit >= MODEL_SECONDS else ("blocks",)


def compile_model(model: nn.Module, kind: str, cuda_graphs: bool) -> Callable[[], None]:
    """Have a model's `blocks`, or the `model` itself, compiled in place when it is next called.

    Returns: what undoes it.
    """
    parts = list(model.get_submodule("blocks").children()) if kind == "blocks" else [model]
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, RECOMPILE_LIMIT)
    for part in parts:
        # On a CPU the model looks at what the tensors hold, which no single graph can.
        whole = next(part.parameters()).device.type == "cuda"
        part.compile(fullgraph=whole, dynamic=False, mode="reduce-overhead" if cuda_graphs else None)
    handles = _share_graph_memory(model) if cuda_graphs else []

    def undo() -> None:
        for module in (*parts, model):
            module._compiled_call_impl = None
        for handle in handles:
            handle.remove()
        torch.compiler.reset()

    return undo


def _share_graph_memory(model: nn.Module) -> list[Any]:
    """Let CUDA graphs write over what the forward pass before left, and bring the gradients away from there."""
    call = model._compiled_call_impl or model._call_impl

    def begin_step(*arguments: Any, **named: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return call(*arguments, **named)

    model._compiled_call_impl = begin_step
    return [parameter.register_hook(_take_away(parameter)) for parameter in model.parameters()]


def _take_away(parameter: nn.Parameter) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient.clone() if parameter.grad is None else gradient


def compile_session(session: Session, config: CompileConfig) -> dict[str, Any]:
    """Compile the model of a run and compare it with eager code; where that fails, say so and stay eager.

    To be called once the micro-batch is known, of a resumed run too, which is not compared again: what failed before is
    not tried, what was trusted is. All of it is charged as compilation; weights are as before, gradients gone, the
    loader has not moved.

    Returns: for the receipt, `kind` (eager, blocks or model), `cuda_graphs`, `seconds`, the `check`, and why a kind
    `failed`.
    """
    began = time.monotonic()
    found: dict[str, Any] = {"kind": "eager", "cuda_graphs": False, "seconds": 0.0, "check": None, "failed": {}}
    found |= session.state.compiled
    if session.state.last_progress == 1.0 or session.parts.loader.rows_left < session.state.micro_rows:
        return found  # there is nothing left to train
    found |= {"kind": "eager", "cuda_graphs": False}
    with session.clock.account("compilation"):
        for kind in kinds_to_try(config, session.parts.device, session.clock.budget):
            if kind in found["failed"]:
                continue
            undo = compile_model(session.parts.model, kind, config.cuda_graphs)
            check, failure = _prove(session, 0 if session.clock.updates else config.check_updates)
            found["check"] = asdict(check) if check else found["check"]
            if failure is None:
                found |= {"kind": kind, "cuda_graphs": config.cuda_graphs}
                break
            undo()
            found["failed"][kind] = failure
            print(f"warning: compile.kind={kind} is not used: {failure}", flush=True)
    if found["failed"] and found["kind"] == "eager":
        print("warning: training goes on eagerly, and more slowly. The receipt says so too.", flush=True)
    found["seconds"] += time.monotonic() - began
    return found


def _prove(session: Session, updates: int) -> tuple[Check | None, str | None]:
    """Run the compiled model: the check, if there is one, and why it cannot be used, or None."""
    try:
        if not updates:
            _warm_up(session)
            return None, None
        check = compare(session, updates)
    except CramError:
        raise
    except Exception as error:  # a compiler may raise anything
        session.parts.model.zero_grad(set_to_none=True)
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:MESSAGE]}"
    if check.passed:
        return check, None
    allowed = TOLERANCES.get(session.parts.precision, HALF_TOLERANCE)
    return check, (
        f"against eager code the loss is off by {check.loss:.1e} of it (allowed {allowed.loss:.0e}) and the gradient "
        f"of {check.parameter} by {check.gradient:.1e} (allowed {allowed.gradient:.0e})"
    )


def compare(session: Session, updates: int) -> Check:
    """Compute the same updates of each phase eagerly and compiled, from the same weights and rows, and compare.

    The gradients are compared instead of what an optimizer makes of them: it is not compiled, and AdamW's first steps
    are the signs of the gradients, rounding included. Each update moves the weights along the eager gradients, so that
    projections that begin at zero let the others' gradients through. The weights are put back bit for bit.
    """
    rows = _looked_at(session)
    parameters = dict(session.parts.model.named_parameters())
    kept = [parameter.detach().clone() for parameter in parameters.values()]
    loss, gradient, worst = 0.0, 0.0, ""
    try:
        for progress in session.parts.objective.phases * updates:
            with eagerly():
                reference, expected = _pass(session, rows, progress)
            value, found = _pass(session, rows, progress)
            loss = max(loss, _number(abs(value - reference) / max(abs(reference), 1e-9)))
            for name, difference in _differences(found, expected).items():
                if difference > gradient:
                    gradient, worst = difference, name
            _move(parameters, expected)
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(parameters.values()), kept)
        session.parts.model.zero_grad(set_to_none=True)
    allowed = TOLERANCES.get(session.parts.precision, HALF_TOLERANCE)
    return Check(updates, loss, gradient, worst, loss <= allowed.loss and gradient <= allowed.gradient)


def _looked_at(session: Session) -> Any:
    """Rows of a few whole micro-batches, which training will see again."""
    micro, left = session.state.micro_rows, session.parts.loader.rows_left
    return session.parts.loader.peek(min(CHECKED_MICRO_BATCHES * micro, left - left % micro))


def _pass(session: Session, rows: Any, progress: float) -> tuple[float, dict[str, Tensor]]:
    """Nats per predicted token, and the gradient of each parameter that has one; none is left in the model."""
    predicted, nats = accumulate(session, rows, progress)
    gradients = {name: p.grad for name, p in session.parts.model.named_parameters() if p.grad is not None}
    session.parts.model.zero_grad(set_to_none=True)
    return float(nats) / max(predicted, 1), gradients


def _differences(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """For each gradient the norm of the difference, relative to its own norm or a small share of all gradients'."""
    if found.keys() != expected.keys():
        missing = sorted(found.keys() ^ expected.keys())
        return dict.fromkeys(missing, math.inf)
    norms = torch.stack(torch._foreach_norm(list(expected.values())))
    apart = torch.stack([torch.linalg.vector_norm(found[name] - expected[name]) for name in expected])
    shares = apart / norms.clamp(min=SMALLEST_SHARE * float(torch.linalg.vector_norm(norms)))
    # Where fp16 overflows in both there is nothing to compare.
    shares = torch.where(norms.isfinite(), shares, 0.0)
    return {name: _number(share) for name, share in zip(expected, shares.tolist(), strict=True)}


def _number(difference: float) -> float:
    """A difference that is no number is larger than all."""
    return math.inf if math.isnan(difference) else difference


@torch.no_grad()
def _move(parameters: dict[str, nn.Parameter], gradients: dict[str, Tensor]) -> None:
    """A step against each gradient, of a thousandth in the root mean square."""
    for name, gradient in gradients.items():
        size = gradient.square().mean().sqrt()
        step = torch.where(size.isfinite() & (size > 0.0), gradient / size.clamp(min=1e-30), 0.0)
        parameters[name].sub_(step, alpha=1e-3)


def _warm_up(session: Session) -> None:
    """Have everything compiled that an update will call; the gradients are thrown away."""
    for progress in session.parts.objective.phases * WARMING_PASSES:
        _pass(session, _looked_at(session), progress)
