"""The C++ kernels for CPU tensors: compiled on this machine when the first one is needed, and how they are called.

The sources are in `cpu/`. They are compiled by `c++` (the environment variable CXX names another compiler, and may give
it arguments) for this processor, in about two seconds, into a folder of the user's cache, from where later processes
load them. Where there is no such folder, each process compiles for itself. A machine without a compiler takes the
reference implementations. The kernels split their rows over as many threads as torch uses.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

SOURCES = Path(__file__).with_name("cpu")
# NaN and infinities count, so `-ffast-math` is out of the question. Neither errno nor signals are of use here.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno", "-fno-trapping-math")
LIBRARY_FLAGS = ("-fopenmp", "-shared", "-fPIC")
DTYPES = {torch.float32: 0, torch.bfloat16: 1}  # as `Dtype` in cpu/rows.h
COMPILE_SECONDS = 120.0  # after which a compiler counts as broken


@functools.cache
def load_library() -> ctypes.CDLL | None:
    """Return the compiled kernels; None where they cannot be compiled here, for example for lack of a compiler."""
    compiler = _find_compiler()
    if compiler is None or platform.system() != "Linux" or platform.machine() != "x86_64":
        return None
    try:
        name = f"{_fingerprint(compiler)}.so"
        with _folder(name) as folder:
            file = folder / name
            if not file.exists():
                _compile(compiler, file)
            return ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError):
        return None


def _find_compiler() -> list[str] | None:
    """Return the command of the compiler, with the arguments that CXX gives it; None where it does not exist."""
    try:
        words = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    except ValueError:  # a quotation that does not end
        return None
    return words if shutil.which(words[0]) else None


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    """Yield the folder of a library of this name, or a temporary one where nothing can be kept for this user."""
    try:
        folder = _cache_folder()
        usable = (folder / name).exists() or os.access(folder, os.W_OK)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        usable = False
    if usable:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)  # a library that is loaded stays so when its file is deleted


def _cache_folder() -> Path:
    """Return the folder of compiled kernels, which belongs to the user alone."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "cram_kernels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _fingerprint(compiler: list[str]) -> str:
    """Return a hash of all that the compiled kernels depend on: sources, flags, compiler and processor."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True, timeout=COMPILE_SECONDS).stdout
    processor = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")][:1]
    settings = repr((compiler[1:], FLAGS, processor)).encode()
    parts = [*(file.read_bytes() for file in sorted(SOURCES.iterdir())), settings, version]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _compile(compiler: list[str], file: Path) -> None:
    """Compile all sources into one file. Several processes may do so at once, and each renames a whole file."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        output = Path(folder) / file.name
        sources = [str(source) for source in sorted(SOURCES.glob("*.cpp"))]
        command = [*compiler, *FLAGS, *LIBRARY_FLAGS, *sources, "-o", str(output)]
        subprocess.run(command, capture_output=True, check=True, timeout=COMPILE_SECONDS)
        output.replace(file)


def call(name: str, *arguments: Tensor | float | None) -> None:
    """Call a kernel with the arguments of its C++ function except the last one, the number of threads.

    Args:
        name: of the function, without `cram_`.
        *arguments: tensors, whose addresses are passed, None for a null pointer, int and float numbers.
    """
    library = load_library()
    assert library is not None, "`use_cpu_kernels` decides first"
    function = getattr(library, f"cram_{name}")
    function.restype = None
    function(*(_convert(argument) for argument in arguments), ctypes.c_int64(torch.get_num_threads()))


def _convert(argument: Tensor | float | None) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_double:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.c_double(argument)


def dtype_code(dtype: torch.dtype) -> int:
    """Return the number by which the kernels know a dtype."""
    return DTYPES[dtype]
