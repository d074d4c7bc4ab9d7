"""The rules of the house, held by reading the sources: imports only go down, and nothing is too large."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path for room in ("cram", "kernels", "bench", "proofs", "examples") for path in (ROOT / room).rglob("*.py")
)

# Floors, the lowest first; a module imports from its own floor and below. A room stands for all in it.
GROUND = [
    "errors",
    "budget",
    "reference_time",
    "clock",
    "machine",
    "files",
    "distributed",
    "config",
    "terminal",
    "command",
    "run",
]
PARTS = ["data", "model", "optim", "objectives", "methods", "evaluation", "hub", "planner", "reporting"]
RHYTHM = ["training"]
WIRING = ["build"]
WHOLE = ["planning", "fitting", "dry_run", "ablation"]
DOORS = ["ablate", "export", "prepare", "evaluate", "plan", "train", "glue", "report"]
FLOORS = [GROUND, PARTS, RHYTHM, WIRING, WHOLE, DOORS]
FLOOR = {name: height for height, floor in enumerate(FLOORS) for name in floor}

FORBIDDEN = {
    "data": {"model", "objectives", "optim"},
    "optim": {"model", "objectives", "data"},
    "model": {"data", "objectives", "optim"},
    "methods": {"model", "objectives", "data", "optim"},
}
MOST_LINES, MOST_FUNCTION_LINES, MOST_KERNEL_LINES, MOST_DOOR_LINES = 320, 60, 90, 60


def imported(path: Path) -> set[str]:
    """Full names of the modules a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def room(module: str) -> str:
    """`cram.data.shards.loader` -> `data`; `` for `cram` itself."""
    return module.split(".")[1] if "." in module else ""


def module_name(path: Path) -> str:
    """`cram/data/token_bytes.py` -> `cram.data.token_bytes`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", sorted((ROOT / "cram").rglob("*.py")), ids=module_name)
def test_imports_only_go_down(path: Path) -> None:
    here = room(module_name(path))
    if not here:
        return
    for module in imported(path):
        there = room(module) if module.startswith("cram.") else ""
        if there:
            assert FLOOR[there] <= FLOOR[here], f"{module_name(path)} imports {module}, which is above it"
        if there and there != here:
            assert there not in FORBIDDEN.get(here, set()), f"{here} must not know {there}"


def test_there_is_no_import_circle() -> None:
    graph = {
        module_name(path): {name for name in imported(path) if name.startswith("cram.")}
        for path in (ROOT / "cram").rglob("*.py")
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail, module))
        if module in graph and module not in done:
            for below in graph[module]:
                visit(below, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def folder_of(module: str) -> str:
    """`cram.data.shards.loader` -> `data/shards`, `cram.clock` -> `clock`: what counts as one room of the map."""
    names = module.split(".")[1:]
    folder = ROOT.joinpath("cram", *names)
    return "/".join(names if folder.is_dir() or len(names) == 1 else names[:-1])


def test_there_is_no_circle_between_rooms() -> None:
    graph: dict[str, set[str]] = {}
    for path in (ROOT / "cram").rglob("*.py"):
        modules = {name for name in imported(path) if name.startswith("cram.")}
        folder = folder_of(module_name(path))
        graph.setdefault(folder, set()).update({folder_of(name) for name in modules} - {folder})

    def reachable(folder: str, visited: set[str]) -> set[str]:
        for below in graph.get(folder, set()) - visited:
            visited.add(below)
            reachable(below, visited)
        return visited

    assert [folder for folder in graph if folder in reachable(folder, set())] == []


def test_the_kernels_know_only_torch_and_triton() -> None:
    for path in (ROOT / "kernels" / "cram_kernels").glob("*.py"):
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {"cram", "transformers", "datasets", "numpy"}, path.name


def test_training_knows_its_parts_by_their_contracts() -> None:
    """The end of a run alone knows models and data: it reports on them."""
    for path in (ROOT / "cram" / "training").glob("*.py"):
        modules = {name for name in imported(path) if name.startswith("cram.")}
        concrete = (
            {"optim", "objectives"} if path.stem in ("finish", "results") else {"optim", "objectives", "model", "data"}
        )
        assert not {room(name) for name in modules} & concrete, path.name
        assert not {name for name in modules if room(name) == "methods"} - {"cram.methods.method"}, path.name


def test_torch_is_absent_from_what_help_needs() -> None:
    for path in [*(ROOT / "cram" / "config").glob("*.py"), *(ROOT / "cram" / f"{n}.py" for n in ("errors", "command"))]:
        assert not {module.split(".")[0] for module in imported(path)} & {"torch", "numpy"}, path.name


def test_no_init_files_where_they_break_the_hub_package_kernels() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert not list(ROOT.rglob("cram/**/utils.py"))


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            kernel = any("jit" in ast.unparse(mark) for mark in node.decorator_list)
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= (MOST_KERNEL_LINES if kernel else MOST_FUNCTION_LINES), f"{node.name}: {lines} lines"


@pytest.mark.parametrize("path", sorted((ROOT / "cram").rglob("*.py")), ids=module_name)
def test_no_pickle(path: Path) -> None:
    text = path.read_text()
    assert "torch.load(" not in text
    assert "torch.save(" not in text
    assert not {name.split(".")[0] for name in imported(path)} & {"pickle", "dill", "joblib"}


def test_the_formatter_is_switched_off_nowhere() -> None:
    switch = re.compile(r"# fmt: *(off|skip)")
    sources = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "findings").rglob("*.py")]
    assert [str(path.relative_to(ROOT)) for path in sources if switch.search(path.read_text())] == []


def test_doors_are_short() -> None:
    """A door reads the words, makes one call and prints."""
    doors = [path for path in (ROOT / "cram").rglob("*.py") if 'if __name__ == "__main__"' in path.read_text()]
    assert len(doors) >= 6
    for path in doors:
        assert len(path.read_text().splitlines()) <= MOST_DOOR_LINES, path.name


def raises_cram_error(function: ast.FunctionDef) -> bool:
    """Whether a function, or one that is defined inside it, raises a CramError itself."""
    raised = [ast.unparse(node.exc) for node in ast.walk(function) if isinstance(node, ast.Raise) and node.exc]
    return any(error.startswith("CramError(") for error in raised)


def public_functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """The public functions of a module, and the public methods of its public classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_docstrings_name_the_errors_of_users(path: Path) -> None:
    for function in public_functions(ast.parse(path.read_text())):
        if raises_cram_error(function):
            assert "Raises:" in (ast.get_docstring(function) or ""), f"{function.name} raises CramError"
