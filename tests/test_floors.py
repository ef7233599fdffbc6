"""The architecture, held by reading the source: imports go down only, low floors stay light, files and functions small.

The list of floors is the map of the system. A module's rank is (floor, position in its row), a total order, so cycles
between stops are impossible; inside a package the files may stand in any order that has no cycle.
"""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"
PACKAGE = "windlass"

FLOORS = (
    ("errors", "units", "settings", "packaged_model"),
    ("facts",),
    ("planner",),
    ("memory", "kernels"),
    ("model",),
    ("engine",),
    ("jobs", "economics"),
    ("names", PACKAGE, "server", "cli", "__main__"),  # the package's own __init__ is a door too: it opens on the engine
)
RANKS = {stop: (floor, place) for floor, row in enumerate(FLOORS) for place, stop in enumerate(row)}

# Who may not import whom, though the order alone would let them.
WALLS = (
    ("memory", "planner"),  # a probe returns facts; the planner consumes them
    ("kernels", "planner"),
    ("model", "planner"),
    ("server", "memory"),  # a door holds an engine
    ("server", "kernels"),
    ("cli", "memory"),
    ("cli", "kernels"),
)

LIGHT_FLOORS = 3  # floors 0 to 2 plan on any laptop
HEAVY = {"torch", "transformers", "accelerate", "safetensors", "tokenizers", "huggingface_hub", "triton"}

# Functions that may import, so that help is instant and Ctrl-C is heard: by a statement, or by a computed name.
IMPORTING_FUNCTIONS = {
    (PACKAGE, "__getattr__"),
    (f"{PACKAGE}.__main__", "main"),
    (f"{PACKAGE}.kernels.cuda.backend", "load_kernels"),  # Triton, where a device is used and only there
    (f"{PACKAGE}.jobs.arrow", "load_arrow"),  # pyarrow, where a Parquet file is named and only there
    (f"{PACKAGE}.model.guidance", "load_guidance"),  # llguidance, where an answer must have a form and only there
}
LATE = f"{PACKAGE}.cli.late"  # `late("engine.llm")` is an import of windlass.engine.llm like any other here

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
EMPTY_FILE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
EMPTY_CLASS_ENDINGS = ("Manager", "Helper", "Handler", "Factory", "Mixin", "Processor")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, for every module of the package."""
    names = {}
    for path in sorted((SOURCE / PACKAGE).rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def nodes(module: str, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree_of(module)) if isinstance(node, kinds))


def imported_names(node: ast.Import | ast.ImportFrom) -> list[str]:
    """What an import statement may load, dotted: `from a import b` is a.b where that is a module, else a."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules() else base for alias in node.names]


def imports(module: str) -> list[str]:
    """Everything a module imports, wherever it does: at the top, in a function, for typing only, or late."""
    stated = [name for node in nodes(module, ast.Import, ast.ImportFrom) for name in imported_names(node)]
    return stated + [f"{PACKAGE}.{ast.literal_eval(call.args[0])}" for call in late_calls(module)]


def late_calls(module: str) -> list[ast.Call]:
    return [node for node in nodes(module, ast.Call) if isinstance(node.func, ast.Name) and node.func.id == "late"]


def own_imports(module: str) -> list[str]:
    return [name for name in imports(module) if name.split(".")[0] == PACKAGE]


def stop_of(module: str) -> str:
    """The stop on the floors that a module belongs to: `windlass.facts.plan` -> `facts`."""
    return module.split(".")[1] if "." in module else module


def violations(find: Callable[[str], Iterator[str]]) -> list[str]:
    return [f"{module}: {violation}" for module in modules() for violation in find(module)]


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function with its dotted place in the file."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, Function | ast.ClassDef):
            name = f"{prefix}{child.name}"
            if isinstance(child, Function):
                yield name, child
            yield from functions(child, f"{name}.")
        else:
            yield from functions(child, prefix)


def test_every_module_stands_on_a_floor() -> None:
    assert [f"{m} stands on no floor: place it on purpose" for m in modules() if stop_of(m) not in RANKS] == []


def test_imports_go_down_typing_and_function_imports_included() -> None:
    def upward(module: str) -> Iterator[str]:
        for target in own_imports(module):
            below = RANKS.get(stop_of(target), (len(FLOORS), 0)) < RANKS[stop_of(module)]
            if not below and stop_of(target) != stop_of(module):
                yield f"imports {target}, which is not below it"

    assert violations(upward) == []


def test_no_import_crosses_a_wall() -> None:
    def crossing(module: str) -> Iterator[str]:
        for target in own_imports(module):
            if (stop_of(module), stop_of(target)) in WALLS:
                yield f"imports {target} across a wall"

    assert violations(crossing) == []


def test_files_of_one_package_import_each_other_without_a_cycle() -> None:
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, "a cycle: " + " -> ".join((*path[path.index(module) :], module))
        if module not in finished:
            for target in own_imports(module):
                if target in modules():
                    visit(target, (*path, module))
            finished.add(module)

    for module in modules():
        visit(module, ())


def test_imports_are_absolute_and_never_computed() -> None:
    def hidden(module: str) -> Iterator[str]:
        for node in nodes(module, ast.ImportFrom):
            if node.level:
                yield f"line {node.lineno} is a relative import"
        for node in nodes(module, ast.Name, ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in {"import_module", "__import__"} and module != LATE:
                yield f"line {node.lineno} imports by {name}"
        for call in late_calls(module):
            if not isinstance(call.args[0], ast.Constant) or f"{PACKAGE}.{call.args[0].value}" not in modules():
                yield f"line {call.lineno} imports late what is no module's name"

    assert violations(hidden) == []


def test_functions_do_not_import_outside_the_allow_list() -> None:
    def lazy(module: str) -> Iterator[str]:
        for name, function in functions(tree_of(module)):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom) and (module, name) not in IMPORTING_FUNCTIONS:
                    yield f"{name} imports on line {node.lineno}; move it to the top"

    assert violations(lazy) == []


def test_low_floors_do_not_name_torch_and_its_kin() -> None:
    def heavy(module: str) -> Iterator[str]:
        if RANKS[stop_of(module)][0] < LIGHT_FLOORS:
            yield from (f"imports {name}" for name in imports(module) if name.split(".")[0] in HEAVY)

    assert violations(heavy) == []


@pytest.mark.parametrize("stop", [stop for row in FLOORS[:LIGHT_FLOORS] for stop in row])
def test_importing_a_low_floor_loads_no_torch(stop: str) -> None:
    names = [module for module in modules() if stop_of(module) == stop]
    program = f"import sys\nfor name in {names!r}: __import__(name)\nprint(sorted({HEAVY!r} & set(sys.modules)))"
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False)
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")


def test_only_settings_reads_the_environment() -> None:
    def reading(module: str) -> Iterator[str]:
        if module != f"{PACKAGE}.settings":
            for node in nodes(module, ast.Attribute, ast.alias):
                name = node.attr if isinstance(node, ast.Attribute) else node.name
                if name in {"environ", "getenv", "putenv"}:
                    yield f"line {node.lineno} uses os.{name}; read it in settings.py"

    assert violations(reading) == []


def test_every_module_with_code_says_why_it_exists() -> None:
    def silent(module: str) -> Iterator[str]:
        if tree_of(module).body and ast.get_docstring(tree_of(module)) is None:
            yield "has no docstring"

    assert violations(silent) == []


def test_files_stay_under_400_lines() -> None:
    sizes = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in modules().items()}
    assert {module: size for module, size in sizes.items() if size > MAX_FILE_LINES} == {}


def test_functions_stay_under_60_lines() -> None:
    def long(module: str) -> Iterator[str]:
        for name, function in functions(tree_of(module)):
            size = (function.end_lineno or function.lineno) - function.lineno + 1
            if size > MAX_FUNCTION_LINES:
                yield f"{name} has {size} lines"

    assert violations(long) == []


def test_no_file_or_class_has_an_empty_name() -> None:
    def empty(module: str) -> Iterator[str]:
        if module.split(".")[-1].strip("_") in EMPTY_FILE_NAMES:
            yield "says nothing of what is in it"
        for node in nodes(module, ast.ClassDef):
            if node.name.endswith(EMPTY_CLASS_ENDINGS):
                yield f"class {node.name} says nothing of what it is"

    assert violations(empty) == []


def test_no_hasattr_and_no_global() -> None:
    def loose(module: str) -> Iterator[str]:
        for node in nodes(module, ast.Name, ast.Global):
            if isinstance(node, ast.Global):
                yield f"line {node.lineno} declares a global"
            elif node.id == "hasattr":
                yield f"line {node.lineno} asks hasattr"

    assert violations(loose) == []


def test_every_dataclass_of_the_facts_is_frozen() -> None:
    def is_dataclass(decorator: ast.expr) -> bool:
        named = decorator.func if isinstance(decorator, ast.Call) else decorator
        return ast.unparse(named) in {"dataclass", "dataclasses.dataclass"}

    def thawed(module: str) -> Iterator[str]:
        if stop_of(module) == "facts":
            for node in nodes(module, ast.ClassDef):
                decorators = [decorator for decorator in node.decorator_list if is_dataclass(decorator)]
                if decorators and "frozen=True" not in ast.unparse(decorators[0]):
                    yield f"dataclass {node.name} is not frozen"

    assert violations(thawed) == []
