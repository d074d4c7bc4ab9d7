"""Faults put into kernels on purpose, each of which the machine must find.

A fault is an edit of the compiled text, or of the kernel's source before it is compiled.
"""

import importlib.util
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cram_kernels import _layer_norm_kernels
from cram_kernels._settings import Target
from proofs.ptx.campaign import run_case, run_on_cpu
from proofs.ptx.cases import TOLERANCES, Case, Check, draw
from proofs.ptx.errors import PtxError
from proofs.ptx.loss_cases import PLAIN, check_linear_cross_entropy
from proofs.ptx.parser import parse
from proofs.ptx.row_cases import check_gated, check_layer_norm, check_layer_norm_backward, check_softmax
from proofs.ptx.run import Code, run_launch
from proofs.ptx.text_checks import find_in_place

Edit = Callable[[str], str]


@dataclass(frozen=True)
class Mutant:
    """A fault in compiled text.

    Attributes:
        name: what is wrong.
        edit: puts the fault into the text.
        call: the checks of a call of the kernel.
        found_by: a part of the message that must come.
    """

    name: str
    edit: Edit
    call: Callable[[], Any]
    found_by: str


def replace(pattern: str, replacement: str, which: slice = slice(None)) -> Edit:
    """Return an edit of some matches of a pattern, all by default.

    Raises:
        ValueError: by the edit, where the pattern does not match: a fault that is not put in cannot be found.
    """

    def edit(text: str) -> str:
        matches = list(re.finditer(pattern, text))[which]
        if not matches:
            raise ValueError(f"{pattern} does not match the text")
        for match in reversed(matches):
            text = text[: match.start()] + match.expand(replacement) + text[match.end() :]
        return text

    return edit


FIRST, LAST = slice(1), slice(-1, None)
BARRIER = r"\tbar\.sync \t0;\n"
WAIT = r"cp\.async\.wait_group\s+\w+"
GUARDED_STORE = r"@%p\d+ (st\.global[^;]*;)"


def remove_barriers_before_store(text: str, behind: str = "") -> str:
    """Remove the barriers between the first load and the first store in place, and put something behind the store."""
    load, store = find_in_place(parse(text))
    lines = text.splitlines()
    for number in range(load.line, store.line - 1):
        lines[number] = re.sub(r"^\s*bar\..*", "", lines[number])
    lines[store.line - 1] += behind
    return "\n".join(lines) + "\n"


def list_mutants() -> list[Mutant]:
    """Return the faults in compiled text, with the call that must find each."""
    norm_100, norm_768 = (partial(check_layer_norm, "bf16", width, "weight") for width in (100, 768))
    loss_100, loss_5003 = (partial(check_linear_cross_entropy, "bf16", classes, PLAIN) for classes in (100, 5003))
    norm_backward = partial(check_layer_norm_backward, "bf16", 768, 37, "weight")
    softmax = partial(check_softmax, "bf16", (3, 33_000), "")
    swiglu = partial(check_gated, "swiglu", "bf16", 257)
    load, outside = r"@%p\d+ (ld\.global)", "bytes at offset .* of "
    barrier_behind = partial(remove_barriers_before_store, behind=" bar.sync 0;")
    no_order, no_barrier = "nothing orders accesses to byte", "no barrier stands between"
    return [
        Mutant("loads without their masks", replace(load, r"\1"), norm_100, f"{outside}(x|weight)_ptr"),
        Mutant(
            "the last load without its mask", replace(load, r"\1", LAST), norm_100, f"{outside}(x|weight)_ptr|off by"
        ),
        Mutant("stores without their masks", replace(GUARDED_STORE, r"\1"), norm_100, f"{outside}|{no_order}"),
        Mutant("the last store without its mask", replace(GUARDED_STORE, r"\1", LAST), norm_100, f"{outside}y_ptr"),
        Mutant(
            "a mask of one too many", replace(r"setp\.lt\.([su]\d\d)", r"setp.le.\1"), norm_100, f"off by|{outside}"
        ),
        Mutant("a store that never happens", replace(GUARDED_STORE, "", FIRST), norm_768, "not written|off by inf"),
        Mutant("no barrier before a store in place", remove_barriers_before_store, loss_100, no_barrier),
        Mutant("a barrier behind a store in place", barrier_behind, loss_100, no_barrier),
        Mutant("no barriers in a long row in place", replace(BARRIER, ""), loss_5003, no_barrier),
        Mutant("no barrier in a reduction", replace(BARRIER, "", FIRST), softmax, f"{no_order} .* of shared memory"),
        Mutant(
            "no wait for copies", replace(WAIT, "cp.async.wait_group 0x40"), norm_backward, "off by|has not written"
        ),
        Mutant("no barrier behind copies", replace(rf"({WAIT};\s*){BARRIER}", r"\1"), norm_backward, no_order),
        Mutant(
            "stores that truncate",
            replace(r"cvt\.rn\.(bf16(?:x2)?)\.f32", r"cvt.rz.\1.f32"),
            norm_768,
            "does not round to the nearest",
        ),
        Mutant("a wrong sign", replace(r"add\.f32", "sub.f32", FIRST), swiglu, "off by"),
        Mutant(
            "a shuffle with another thread",
            replace(r"(shfl\.sync\.bfly\.b32 \t%r\d+, %r\d+), 4", r"\1, 8"),
            norm_768,
            "off by",
        ),
        Mutant(
            "an address of 32 bits",
            replace(r"ld\.param\.b64 (\t%rd\d+, \[\w+_param_0\];)", r"ld.param.b32 \1"),
            norm_768,
            "belongs to no tensor",
        ),
    ]


def find_fault(mutant: Mutant, arch: int = 90) -> str:
    """Run a mutant. Returns the problem that was found, or nothing."""
    case = Case("mutant", mutant.name, "bf16", mutant.call)
    (outcome,) = run_case(case, [arch], lambda code: Code(mutant.edit(code.ptx), code.shared))
    return outcome.problem


# --- a fault in the source: row offsets of 32 bits


def run_far_rows(make_narrow: bool, arch: int = 90) -> str:
    """Run layer_norm on rows 2^30 elements apart, which are 2^31 and more elements from the first.

    Args:
        make_narrow: whether the kernel computes its row numbers in 32 bits, a fault.
        arch: compute capability.

    Returns:
        The problem that was found, or nothing.
    """
    source = Path(_layer_norm_kernels.__file__).read_text()
    narrow = source.replace(".to(tl.int64)", "") if make_narrow else source
    if make_narrow and narrow == source:
        raise ValueError("the kernel has no offsets of 64 bits")
    rows = torch.empty(3, (1 << 30) + 16, dtype=torch.bfloat16)  # 6 GiB of which three pages are touched
    x = rows[:, :100]
    x.copy_(draw(3, 100, dtype="bf16"))
    with tempfile.TemporaryDirectory() as folder:
        module = _load(Path(folder) / f"far_rows_{'narrow' if make_narrow else 'wide'}.py", narrow)
        try:
            with run_on_cpu(lambda launch: _run(launch, arch), Target(arch, 1)):
                y = module.launch_layer_norm_forward(x, None, None, None, 1e-5)[0]
        except PtxError as error:
            return str(error)
        finally:
            del sys.modules[module.__name__]
    expected = torch.nn.functional.layer_norm(x.double(), (100,))
    check = Check("y", y, expected, TOLERANCES["bf16"])
    return f"y is off by {check.deviation:.1e}" if check.deviation > check.tolerance else ""


def _run(launch: Any, arch: int) -> None:
    run_launch(launch, arch)


def _load(path: Path, source: str) -> Any:
    """Write a module and import it."""
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
