"""cram works from a wheel as it does from a clone; the wheel holds recipes, tables, types and kernels."""

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from cram.files.atomic import read_json

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# The import names of packages that differ from their names on PyPI.
MODULES = {"pyyaml": "yaml", "scikit-learn": "sklearn"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the wheel. It is built from an archive of a copy, because building writes into the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if name.startswith(("cram/", "kernels/", "recipes/")) or "/" not in name:
            copy = folder / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
    pack = "import sys, setuptools.build_meta as build; build.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", pack, str(folder)], cwd=folder / "source", check=True, timeout=120)
    (archive,) = folder.glob("cram-*.tar.gz")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(archive)], check=True, timeout=120)
    (wheel,) = folder.glob("cram-*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder / "site")
    return folder / "site"


def run_python(site: Path, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run python with the packages of the wheel, in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )


def test_a_wheel_holds_everything_needed_and_no_tests(site: Path) -> None:
    names = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    recipes = {f"cram/{path.relative_to(ROOT)}" for path in (ROOT / "recipes").rglob("*.yaml")}
    kernels = {str(path.relative_to(ROOT / "kernels")) for path in (ROOT / "kernels").rglob("cram_kernels/*.py")}
    files = [path for path in (ROOT / "cram").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    sources = {str(path.relative_to(ROOT)) for path in files}
    assert recipes | kernels | sources | {"cram_kernels/py.typed"} <= names
    assert {name.split("/")[0] for name in names} == {"cram", "cram_kernels", "cram-0.1.0.dist-info"}


def test_a_run_from_a_wheel_inside_another_repository(
    site: Path, tiny_run: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    answer = run_python(site, ["-m", "cram.train", *tiny_run(tmp_path), "budget=2steps", "report.page=true"], tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    receipt = read_json(tmp_path / "run" / "receipt.json")
    assert receipt["commit"] is None  # not the commit of the repository around it
    assert {"cram", "torch", "transformers", "numpy", "datasets"} <= set(receipt["versions"])


def test_tables_and_recipes_are_found_from_a_wheel(site: Path, tmp_path: Path) -> None:
    code = (
        "import cram, cram.ablation.table, cram.config.recipe; print(cram.__file__); "
        "tables = sorted(path.stem for path in cram.ablation.table.TABLES.glob('*.yaml')); "
        "print(*cram.config.recipe.recipe_names(), *tables)"
    )
    path, names = run_python(site, ["-c", code], tmp_path).stdout.splitlines()
    assert Path(path).is_relative_to(site)
    assert names.split() == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml")) + sorted(
        path.stem for path in (ROOT / "recipes" / "ablations").glob("*.yaml")
    )


def test_every_package_is_listed() -> None:
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "cram").rglob("__init__.py")}
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    assert {".".join(folder.parts) for folder in folders} == {name for name in listed if "recipes" not in name} - {
        "cram_kernels"
    }


def test_the_pinned_versions_are_in_the_allowed_ranges() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert len(pins) == len(lines)
    assert not [
        version for version in pins.values() if Version(version).local
    ]  # a local version such as +cpu is not on PyPI
    for line in PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["test"]:
        required = Requirement(line)
        assert required.specifier.contains(pins[canonicalize_name(required.name)]), line


def test_every_package_that_is_imported_is_required() -> None:
    required = {line.split(">")[0].split(";")[0].strip() for line in PROJECT["project"]["dependencies"]}
    names = {MODULES.get(name, name.replace("-", "_")) for name in required}
    optional = {"flash_attn", "ray", "trackio", "wandb"}
    for path in (ROOT / "cram").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            imported = {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names)
            assert imported <= names | optional | {"cram", "cram_kernels"}, f"{path}: {imported - names}"


def test_no_module_needs_modules_that_windows_lacks() -> None:
    """Import every module in a new process."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "cram").rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
    ]
    missing = "import sys, importlib; sys.modules |= {'resource': None, 'fcntl': None}"
    answer = run_python(ROOT, ["-c", f"{missing}\nfor name in {modules}: importlib.import_module(name)"], ROOT)
    assert answer.returncode == 0, answer.stderr
