"""Public names are exact, load on first use, and are documented; so is every public function, class and method."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import groundup
import survey

PUBLIC = [
    "GPT",
    "GroundupError",
    "ModelConfig",
    "Sampler",
    "Tokenizer",
    "UserError",
    "__version__",
    "classify",
    "dpo",
    "generate_text",
    "gpt2_tokenizer",
    "instruct",
    "load",
    "load_tokenizer",
    "ppo",
    "pretrain",
    "reward",
    "save_model",
    "train_tokenizer",
]


def test_public_names_are_exact():
    assert sorted(groundup.__all__) == PUBLIC
    assert dir(groundup) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_loads_and_has_an_example(name: str):
    value = getattr(groundup, name)
    if isinstance(value, str):
        return
    assert value.__doc__, f"groundup.{name} has no docstring"
    assert ">>>" in value.__doc__, f"the docstring of groundup.{name} has no example"


def test_a_public_name_stays_what_it_is():
    """Importing `groundup.x` binds that module to the name `x` of the package: a function `x` would be hidden."""
    program = """
import groundup, types
for _ in range(2):
    found = {name: getattr(groundup, name) for name in groundup.__all__}
hidden = [name for name, value in found.items() if isinstance(value, types.ModuleType)]
assert not hidden, f"public names that turn into modules once they are loaded: {hidden}"
"""
    path = f"import sys; sys.path.insert(0, {str(survey.PACKAGE.parent)!r})"
    done = subprocess.run([sys.executable, "-c", path + program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_public_name_says_what_there_is():
    with pytest.raises(AttributeError, match="pretrain"):
        _ = groundup.pretrian


def test_the_version_is_written_once():
    text = (survey.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert groundup.__version__ not in text
    assert "groundup.__version__" in text
    assert f"[{groundup.__version__}]" in (survey.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", survey.files(), ids=survey.inside)
def test_a_file_says_what_it_is(file: Path):
    assert ast.get_docstring(survey.syntax(file)), f"{survey.inside(file)} has no docstring: what enters, what leaves"


def public_definitions(file: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    """Public functions and classes of a file, and public methods of public classes."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in survey.syntax(file).body:
        if not isinstance(node, kinds) or node.name.startswith("_"):
            continue
        yield f"{survey.inside(file)}:{node.lineno}: {node.name}", node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, kinds) and not inner.name.startswith("_") and not _repeats(inner):
                    yield f"{survey.inside(file)}:{inner.lineno}: {node.name}.{inner.name}", inner


def _repeats(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """A setter, overload or override, documented where its name first stands; or a line `...` of a protocol."""
    if [ast.unparse(statement) for statement in node.body] == ["..."]:
        return True
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    return any(text.endswith((".setter", ".deleter", "overload", "override")) for text in decorators)


def test_public_definitions_are_documented():
    bare = [place for file in survey.files() for place, node in public_definitions(file) if not ast.get_docstring(node)]
    assert not bare, "no docstring:\n" + "\n".join(bare)


def test_functions_are_fully_annotated():
    offenders = []
    for file in survey.files():
        for function in survey.functions(file):
            missing = missing_annotations(function.node)
            if missing:
                offenders.append(f"{function.place}: no type for {', '.join(missing)}")
    assert not offenders, "\n".join(offenders)


def missing_annotations(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    missing = [one.arg for one in named if one and one.annotation is None and one.arg not in {"self", "cls"}]
    return missing + (["the result"] if node.returns is None else [])


def test_missing_annotations_are_found():
    node = ast.parse("def f(self, a, b: int, *c, d=1, **e: str):\n    pass").body[0]
    assert isinstance(node, ast.FunctionDef)
    assert missing_annotations(node) == ["a", "d", "c", "the result"]
