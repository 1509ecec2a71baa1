"""Small parts: function and file sizes, nesting, parameters; nothing unfinished, nothing swallowed."""

import ast
import re

import survey

LINES_PER_FUNCTION = 60
LINES_PER_FILE = 400
NESTING = 3
PARAMETERS = 6

# "file:function" or "file" -> the reason it may be larger. A waiver that is no longer needed fails the tests too.
WAIVERS = {
    "train/loop.py:steps": "the contract every stage calls; what may vary is named at the call",
    "generate/stream.py:generate_text": "text in, text out in one call: every knob of sampling by name, with a default",
    "generate/stream.py:write": "the streaming twin of generate_text; all but model, tokenizer and prompts are named",
    "tokens/making.py:byte_level_json": "a vocabulary in its parts, each named at the call by other formats",
    "batches/loader.py:Loader.__init__": "the line of samples in its parts; all but the source are named at the call",
    "evaluate/scoring.py:scores": "conversations in, numbers out in one call; how they are read is named at the call",
    "generate/decode.py:generate": "the contract of decoding; all but model and prompts are named at the call",
}

BLOCKS = (ast.For, ast.AsyncFor, ast.While, ast.If, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)


def nesting(node: ast.AST, depth: int = 0) -> int:
    """How many blocks the deepest statement stands in; `elif` adds none, nested functions count for themselves."""
    deepest = depth
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        is_elif = (
            isinstance(node, ast.If) and isinstance(child, ast.If) and child in node.orelse and len(node.orelse) == 1
        )
        deepest = max(deepest, nesting(child, depth + (isinstance(child, BLOCKS) and not is_elif)))
    return deepest


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters a caller may give: all but self and cls."""
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    starred = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return sum(argument.arg not in {"self", "cls"} for argument in named) + len(starred)


def offences() -> dict[str, list[str]]:
    """Everything too large: place -> what is too large about it."""
    found: dict[str, list[str]] = {}
    for file in [*survey.files(), *survey.scripts()]:
        lines = len(file.read_text(encoding="utf-8").splitlines())
        if lines > LINES_PER_FILE:
            found.setdefault(survey.inside(file), []).append(f"{lines} lines, at most {LINES_PER_FILE}")
        for function in survey.functions(file):
            limits = (
                ("lines", function.lines, LINES_PER_FUNCTION),
                ("levels of nesting", nesting(function.node), NESTING),
                ("parameters", parameters(function.node), PARAMETERS),
            )
            too_much = [f"{count} {what}, at most {limit}" for what, count, limit in limits if count > limit]
            if too_much:
                found.setdefault(function.place, []).extend(too_much)
    return found


def test_functions_and_files_are_small():
    unwaived = [f"{place}: {'; '.join(what)}" for place, what in offences().items() if place not in WAIVERS]
    assert not unwaived, "make these smaller, or give a reason in WAIVERS:\n" + "\n".join(unwaived)


def test_waivers_are_needed_and_reasoned():
    stale = sorted(set(WAIVERS) - set(offences()))
    assert not stale, f"no longer needed, remove: {stale}"
    assert all(len(reason.split()) >= 4 for reason in WAIVERS.values()), "a waiver needs a reason in words"


def test_the_rulers_measure_what_they_say():
    node = ast.parse(
        "def f(self, a, /, b, *rest, c=1, **more):\n"
        "    if a:\n        pass\n    elif b:\n        for x in c:\n            with x:\n                pass\n"
    ).body[0]
    assert isinstance(node, ast.FunctionDef)
    assert nesting(node) == 3  # if, for, with: the elif is no level of its own
    assert parameters(node) == 5  # a, b, rest, c, more


def test_nothing_is_swallowed():
    offenders = []
    for file in survey.files():
        for node in ast.walk(survey.syntax(file)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
            silent = all(isinstance(statement, ast.Pass) for statement in node.body)
            if node.type is None or (broad and silent):
                offenders.append(f"{survey.inside(file)}:{node.lineno}: name the exception, and do something about it")
    assert not offenders, "\n".join(offenders)


def test_nothing_is_left_unfinished():
    unfinished = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X]|NotImplementedError)\b")
    offenders = [
        f"{survey.inside(file)}:{number}: {line.strip()}"
        for file in survey.files()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if unfinished.search(line)
    ]
    assert not offenders, "\n".join(offenders)


def test_input_is_checked_by_errors_not_by_assert():
    """`python -O` removes assert statements, and a person learns nothing from one; types may be narrowed by them."""
    offenders = [
        f"{survey.inside(file)}:{node.lineno}: {ast.unparse(node)}"
        for file in survey.files()
        for node in ast.walk(survey.syntax(file))
        if isinstance(node, ast.Assert) and not _narrows_a_type(node.test)
    ]
    assert not offenders, "\n".join(offenders)


def _narrows_a_type(test: ast.expr) -> bool:
    """`assert x is not None` and `assert isinstance(x, T)` speak to the type checker."""
    text = ast.unparse(test)
    return text.startswith("isinstance(") or text.endswith("is not None") or text.startswith("callable(")


def test_no_room_for_odds_and_ends():
    banned = {"utils", "util", "helpers", "helper", "common", "misc", "shared"}
    offenders = [
        survey.inside(file)
        for file in survey.files()
        if banned & set(file.relative_to(survey.PACKAGE).with_suffix("").parts)
    ]
    assert not offenders, f"a helper lives in the room it helps: {offenders}"
