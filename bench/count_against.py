"""Counts the kernels of another checkout, in a process of its own, with the machinery of this one."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from cram.errors import CramError

HERE = Path(__file__).resolve().parents[1]


def read_against(path: Path, words: list[str]) -> list[dict[str, Any]]:
    """Return the counts of another checkout, or those of a file that `out=` wrote.

    Args:
        path: folder of the checkout, or the file.
        words: what to count, as words of the command.

    Raises:
        CramError: if the path is neither, or the other checkout cannot be counted.
    """
    if path.is_file():
        return list(json.loads(path.read_text())["counts"])
    if not (path / "kernels" / "cram_kernels").is_dir():
        raise CramError(f"against={path} is neither a checkout of this project nor a file of counts.")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts.json"
        run = "from bench.count_against import count_this; count_this()"
        search = os.pathsep.join((str(HERE), str(path / "kernels")))
        result = subprocess.run(
            [sys.executable, "-c", run, *words, "providers=[ours]", f"out={out}"],
            env=os.environ | {"PYTHONPATH": search, "PYTHONSAFEPATH": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if not out.exists():
            reason = (result.stderr.strip() or "no reason given").splitlines()[-1]
            raise CramError(f"against={path} could not be counted: {reason}")
        return list(json.loads(out.read_text())["counts"])


def count_this() -> None:
    """Count with the kernels that come first on Python's path. They may be from before the file of launch settings."""
    package = importlib.import_module("cram_kernels")
    # Not by `find_spec`: an installed finder would look for the file in the checkout that is installed.
    if not (Path(package.__path__[0]) / "_settings.py").exists():
        _stand_in_for_settings()
    from bench.count_kernels import main

    sys.exit(main(sys.argv[1:]))


def _stand_in_for_settings() -> None:
    """Give older kernels what the recording of launches needs: their launches then record their number of programs."""
    from cram_kernels import _launch

    class Target(NamedTuple):
        capability: int
        multiprocessors: int

    settings = ModuleType("cram_kernels._settings")
    settings.Target = Target  # type: ignore[attr-defined]
    settings.LaunchSettings = _launch.LaunchSettings  # type: ignore[attr-defined]
    sys.modules["cram_kernels._settings"] = settings
    _record_programs(_launch)


def _record_programs(module: ModuleType) -> None:
    """Make the older `launch` record the number of programs, and the older launchers see a GPU's multiprocessors."""
    state: dict[str, Any] = {"launches": None, "multiprocessors": 4}

    def launch(kernel: Any, programs: int, *arguments: Any, settings: Any, **constants: Any) -> None:
        constants |= {"ROWS": settings.rows, "BLOCK": settings.block}
        settings = SimpleNamespace(rows=settings.rows, block=settings.block, warps=settings.warps, stages=1)
        state["launches"].append(
            SimpleNamespace(
                kernel=kernel, programs=programs, arguments=arguments, constants=constants, settings=settings
            )
        )

    @contextmanager
    def record_launches(target: Any) -> Any:
        state["launches"], state["multiprocessors"] = [], target.multiprocessors
        yield state["launches"]

    module.record_launches = record_launches  # type: ignore[attr-defined]
    replaced = {"launch": launch, "count_multiprocessors": lambda _: state["multiprocessors"]}
    for name, part in list(sys.modules.items()):
        for function, new in replaced.items():
            if name.startswith("cram_kernels.") and hasattr(part, function):
                setattr(part, function, new)
