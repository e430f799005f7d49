"""The floors of ARCHITECTURE.md: imports run one way, and the engine loads no more than it needs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import sharedgrad as sg

PACKAGE = Path(sg.__file__).parent
ARCHITECTURE = Path(__file__).parents[1] / "ARCHITECTURE.md"


def floors() -> list[set[str]]:
    """The floors of ARCHITECTURE.md from the bottom up: names at the beginning of a line, up to two spaces."""
    section = ARCHITECTURE.read_text("utf-8").split("## The floors")[1]
    lines = [line for line in section.split("```")[1].splitlines() if line and not line.startswith(" ")]
    return [set(line.split("  ")[0].split(", ")) for line in reversed(lines)]


FLOOR = {name: number for number, names in enumerate(floors()) for name in names}
READERS_NEED = {"errors", "geometry", "randomness", "parameter", "data"}
COMPILED = "sharedgrad.kernels.native._native"  # no Python file: a part of its package
HEAVY = ["torch", "sklearn", "scipy", "matplotlib", "PIL", "rich", "click", "pooch", "safetensors"]


def module_name(path: Path) -> str:
    parts = ["sharedgrad", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor_name(module: str) -> str:
    """The file or folder of the package that a module belongs to."""
    return [*module.split("."), "sharedgrad"][1]


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"))


@cache
def imports(module: str, inside_functions: bool = True) -> tuple[tuple[str, str], ...]:
    """(module, name) of every import that is carried out; the name is empty for ``import module``."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not inside_functions:
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((source, alias.name) for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    return tuple(walk(parsed(module)))


def own_imports(module: str) -> set[str]:
    """The modules of this package that a module imports."""
    found = set()
    for source, name in imports(module):
        if source.split(".")[0] != "sharedgrad" or (f"{source}.{name}" == COMPILED and module.startswith(source)):
            continue
        found.add(f"{source}.{name}" if f"{source}.{name}" in MODULES else source)
    return found


def test_the_imports_are_found() -> None:
    assert "sharedgrad.layers.convolution" in own_imports("sharedgrad.layers")
    assert "sharedgrad.kernels" in own_imports("sharedgrad.layers.convolution")  # from sharedgrad import kernels
    assert "sharedgrad.kernels.reference" in own_imports("sharedgrad.kernels")  # inside a function
    assert {"sharedgrad.errors", "sharedgrad.data.labels"} <= own_imports("sharedgrad.data.npz")  # relative
    assert "sharedgrad.network" not in own_imports("sharedgrad.configuration")  # for the type checker alone


def test_the_floors_are_read() -> None:
    assert floors()[0] == {"errors", "randomness"}
    assert FLOOR["parameter"] < FLOOR["kernels"] < FLOOR["uses"] < FLOOR["layers"] < FLOOR["plan"] < FLOOR["tape"]
    assert FLOOR["training"] == FLOOR["explaining"] < FLOOR["cli"]
    assert len(FLOOR) == sum(map(len, floors()))  # no name stands twice


def test_every_module_has_its_floor() -> None:
    assert {floor_name(module) for module in MODULES} <= FLOOR.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    for imported in own_imports(module):
        assert imported in MODULES, f"{module} imports {imported}, which is not there"
        own, other = floor_name(module), floor_name(imported)
        assert own == other or FLOOR[other] < FLOOR[own], f"{module} imports {imported}, which is not below it"


def test_nothing_imports_in_circles() -> None:
    TopologicalSorter({module: own_imports(module) for module in MODULES}).prepare()


@pytest.mark.parametrize("module", [module for module in MODULES if floor_name(module) == "data"])
def test_the_readers_of_data_know_nothing_of_networks(module: str) -> None:
    assert {floor_name(imported) for imported in own_imports(module)} <= READERS_NEED


@pytest.mark.parametrize("module", MODULES)
def test_libraries_are_imported_where_they_are_needed(module: str) -> None:
    """At the top of a file stand NumPy, threadpoolctl; click and torch on the floors that are loaded for them alone."""
    own = {"cli": {"click"}, "tracing": {"torch"}}.get(floor_name(module), set())
    allowed = {"sharedgrad", "numpy", "threadpoolctl"} | own
    first = {source.split(".")[0] for source, _ in imports(module, inside_functions=False)}
    assert first - set(sys.stdlib_module_names) <= allowed


def test_pytorch_is_there_to_be_traced_and_the_tests_oracle() -> None:
    for module in MODULES:
        if floor_name(module) == "tracing" and module != "sharedgrad.tracing":
            continue  # loaded by sg.trace alone
        assert not {source for source, _ in imports(module) if source.split(".")[0] == "torch"}, module


def test_importing_the_package_loads_no_optional_library() -> None:
    code = f"import sys, sharedgrad; print([name for name in {HEAVY} if name in sys.modules])"
    path = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_what_is_built_on_the_engine_is_imported_when_it_is_asked_for() -> None:
    code = """if True:
        import sys, sharedgrad
        later = ["sharedgrad.data", "sharedgrad.training"]
        print(*(name in sys.modules for name in later), "fit" in dir(sharedgrad), "data" in dir(sharedgrad))
        from sharedgrad import fit
        print(fit is sharedgrad.fit is sys.modules["sharedgrad.training"].fit, sharedgrad.data.__name__)
        print(hasattr(sharedgrad, "train"))
    """
    path = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=False)
    expected = ["False False True True", "True sharedgrad.data", "False"]
    assert (done.stdout.splitlines(), done.stderr) == (expected, "")


def _called(function: ast.expr) -> tuple[str, str]:
    """(object, method), of calls like ``np.load``."""
    owner = function.value if isinstance(function, ast.Attribute) else None
    return (owner.id, function.attr) if isinstance(owner, ast.Name) else ("", "")


def test_nothing_is_unpickled() -> None:
    for module in MODULES:
        assert not {source for source, _ in imports(module)} & {"pickle", "shelve", "joblib", "dill"}, module
        loads = [
            n for n in ast.walk(parsed(module)) if isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "load"
        ]
        for node in loads:
            if ast.unparse(node.func) == "np.load":
                assert "allow_pickle=False" in ast.unparse(node), module


@pytest.mark.parametrize("path", [*MODULES.values(), *sorted(PACKAGE.rglob("*.[ch]pp"))], ids=lambda path: path.name)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 450


@pytest.mark.parametrize("name", sg.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert (getattr(sg, name).__doc__ or "").strip()


def test_every_module_says_what_it_is_for() -> None:
    for module in MODULES:
        assert ast.get_docstring(parsed(module)), module


def test_the_public_names_are_all_there_is_in_the_package() -> None:
    names = {n for n in vars(sg) if not n.startswith("_") and f"sharedgrad.{n}" not in MODULES}
    assert names <= set(sg.__all__)
    assert all(hasattr(sg, name) for name in sg.__all__)


def test_types_are_published() -> None:
    assert (PACKAGE / "py.typed").exists()
