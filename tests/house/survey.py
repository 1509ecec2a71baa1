"""Reads the source tree as syntax, never by importing it, for the house tests and for `picture.py`.

In: src/groundup. Out: its files, functions and imports. The floor table, which says who stands on whom, is here.
"""

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "groundup"

# A room may import from lower floors and from itself, never from a neighbour on its own floor.
FLOORS = {
    "errors": 0, "settings": 0,
    "text": 1, "journal": 1, "lock": 1,
    "tokens": 2,
    "report": 3, "machine": 3, "batches": 3, "figures": 3,
    "model": 4,
    "losses": 5, "optim": 5,
    "checkpoint": 6,
    "generate": 7,
    "evaluate": 8,
    "train": 9, "rollouts": 9,
    "stages": 10,
    "serve": 11, "lessons": 11,
    "commands": 12,
    "cli": 13,
    "__main__": 14,
}  # fmt: skip
SAME_FLOOR = {("settings", "errors")}  # errors stands at the very bottom: everything may raise


@dataclass(frozen=True)
class Import:
    """One import of one module: where it stands, and the full dotted name."""

    file: Path
    line: int
    target: str


@dataclass(frozen=True)
class Function:
    """One function or method: where it stands, its dotted name within the file, its syntax."""

    file: Path
    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef

    @property
    def lines(self) -> int:
        """Lines from `def` to the last statement, docstring included, decorators not."""
        return (self.node.end_lineno or self.node.lineno) - self.node.lineno + 1

    @property
    def place(self) -> str:
        """For messages and waivers: `model/gpt.py:GPT.forward`."""
        return f"{inside(self.file)}:{self.name}"


def files() -> list[Path]:
    """Every Python file of the package that can be imported, in a settled order."""
    return sorted(set(PACKAGE.rglob("*.py")) - set(scripts()))


def scripts() -> list[Path]:
    """The lessons: run from top to bottom like notebooks, never imported."""
    return sorted(path for path in PACKAGE.glob("lessons/*/*.py") if path.stem != "__init__")


def inside(file: Path) -> str:
    """The path within the package, with forward slashes everywhere."""
    return file.relative_to(PACKAGE).as_posix()


def room(file: Path) -> str:
    """The room a file belongs to: the first folder, or the file's own name; '' is the package's `__init__`."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def module(file: Path) -> str:
    """The dotted name that Python knows a file by."""
    parts = ["groundup", *file.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def syntax(file: Path) -> ast.Module:
    """The parsed file; read once per test session."""
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def functions(file: Path) -> Iterator[Function]:
    """Every function, method and nested function of a file."""

    def walk(node: ast.AST, prefix: str) -> Iterator[Function]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                if not isinstance(child, ast.ClassDef):
                    yield Function(file, name, child)
                yield from walk(child, f"{name}.")
            else:
                yield from walk(child, prefix)

    yield from walk(syntax(file), "")


def imports(file: Path, *, every_depth: bool = True) -> list[Import]:
    """All imports of a file by full name, relative ones resolved; `every_depth=False`: those that run on import."""
    found = []
    for node in ast.walk(syntax(file)) if every_depth else _at_import(syntax(file)):
        if isinstance(node, ast.Import):
            found += [Import(file, node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(file, node)
            found += [Import(file, node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def table() -> list[Import]:
    """The modules that the command line imports by name once it knows the command."""
    file = PACKAGE / "cli.py"
    strings = [
        node for node in ast.walk(syntax(file)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return [
        Import(file, node.lineno, target)
        for node in strings
        if (target := node.value.partition(":")[0]).startswith("groundup.") and " " not in target
    ]


def below(file: Path, *, every_depth: bool = True) -> list[Path]:
    """The files of ours that a file imports, the command table's modules among them; itself left out."""
    found = imports(file, every_depth=every_depth) + (table() if inside(file) == "cli.py" else [])
    return sorted({target for one in found if (target := owner(one.target)) is not None} - {file})


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: all but function bodies and blocks for type checkers."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_import(child)


def _absolute(file: Path, node: ast.ImportFrom) -> str:
    """`from ..model import gpt` in stages/pretrain.py -> `groundup.model`."""
    if not node.level:
        return node.module or ""
    package = ["groundup", *file.relative_to(PACKAGE).parts[:-1]]
    parts = package[: len(package) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def room_of(target: str) -> str | None:
    """The room a dotted name comes from; '' for a name taken from the package itself, None if it is not ours."""
    parts = [*target.split("."), ""]
    if parts[0] != "groundup":
        return None
    return parts[1] if parts[1] in FLOORS else ""


def owner(target: str) -> Path | None:
    """The file that a dotted name (a module of ours, or a name within one) comes from; None if it is not ours."""
    parts = target.split(".")
    if parts[0] != "groundup":
        return None
    for length in range(len(parts), 0, -1):
        base = PACKAGE.joinpath(*parts[1:length])
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


def tracked() -> list[Path]:
    """The files that git keeps or would keep (tracked, or new and not ignored); [] where this is no git checkout."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, encoding="utf-8").stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return sorted(path for name in listing.split("\0") if name and (path := ROOT / name).is_file())
