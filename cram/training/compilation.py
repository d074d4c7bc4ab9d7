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

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from cram.budget import Budget
from cram.config.training import CompileConfig
from cram.distributed.orders import on_all_ranks
from cram.distributed.ranks import ALONE, Ranks
from cram.errors import CramError
from cram.training.compile_check import Check, compare, warm_up
from cram.training.session import RankSession, Session

# Below this budget, compiling the blocks takes more time than it saves. How long a budget of tokens or updates takes is
# not known, and compiling is not charged to it: there the blocks are compiled.
BLOCK_SECONDS = 600.0
# From this budget on, the whole model is compiled: 12 to 18 blocks take about two minutes more than three, and a gain
# of 2% by fusing across the borders of blocks saves as much in two hours. These are estimates, not measurements.
MODEL_SECONDS = 7200.0
# Three kinds of blocks for each size of a micro-batch, which can be halved several times.
RECOMPILE_LIMIT = 64
ERROR_LENGTH = 300  # characters of a compiler's error that are shown


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
    if session.state.last_progress == 1.0 or session.parts.loader.rows_left < session.step_rows:
        return report  # nothing is left to train
    report |= {"kind": "eager", "cuda_graphs": False}
    with session.clock.account("compilation"):
        for kind in kinds_to_try(config, session.parts.device, session.clock.budget):
            if kind in report["failed"]:
                continue
            check, failure = try_kind(
                session, kind, config.cuda_graphs, 0 if session.clock.updates else config.check_updates
            )
            report["check"] = asdict(check) if check else report["check"]
            if failure is None:
                report |= {"kind": kind, "cuda_graphs": config.cuda_graphs}
                break
            report["failed"][kind] = failure
            print(f"warning: compile.kind={kind} is not used: {failure}", flush=True)
    if report["failed"] and report["kind"] == "eager":
        print("warning: training goes on eagerly, and more slowly. The receipt says so too.", flush=True)
    session.parts.work.load(executed)  # passes that only compare are no work of the run
    report["seconds"] += time.monotonic() - began
    return report


@on_all_ranks("compiling")
def try_kind(session: RankSession, kind: str, cuda_graphs: bool, updates: int) -> tuple[Check | None, str | None]:
    """Compile a kind on each rank, compare it with eager code, and undo it on all ranks if it fails on one of them.

    Args:
        updates: that are compared; 0 only warms the compiled model up.

    Returns:
        The check of this rank, if there was one, and why the compiled model cannot be used, or None.
    """
    ranks = session.ranks
    if not ranks.alone:
        _show_compilation(ranks)
    undo = compile_model(session.parts.model, kind, cuda_graphs)
    # Each rank compares its own code, with rows of its own and without any exchange.
    own = replace(session, ranks=ALONE)
    check, failure = _try_compiled(own, updates)
    session.state.micro_rows = min(ranks.gather(session.state.micro_rows))
    failures = ranks.gather(failure)
    failed = [(rank, reason) for rank, reason in enumerate(failures) if reason is not None]
    if not failed:
        return check, None
    undo()
    rank, reason = failed[0]
    return check, reason if ranks.alone else f"on rank {rank}, {reason}"


def _show_compilation(ranks: Ranks) -> None:
    """Let the other ranks see that this one compiles, also later in the run, so that it does not seem to hang."""
    states: list[str] = []

    def begin(_: Any) -> None:
        states.append(ranks.state[0])
        ranks.enter("compiling")

    def end(_: Any) -> None:
        ranks.enter(states.pop())

    handler = torch._dynamo.callback.callback_handler
    handler.clear()  # an attempt before this one has left its own
    handler.register_start_callback(begin)
    handler.register_end_callback(end)


def _try_compiled(session: RankSession, updates: int) -> tuple[Check | None, str | None]:
    """Run the compiled model, compared with eager code over some updates; 0 only warms it up.

    Returns:
        The check, if there was one, and why the compiled model cannot be used, or None.
    """
    try:
        if not updates:
            warm_up(session)
            return None, None
        check = compare(session, updates)
    except CramError:
        raise
    except Exception as error:  # a compiler may raise anything
        session.parts.model.zero_grad(set_to_none=True)
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:ERROR_LENGTH]}"
    if check.passed:
        return check, None
    return check, check.describe(session.parts.precision)
