"""A reward from a file of one's own: what it is given, and in words how it can fail."""

import sys

import pytest

from groundup.errors import DataError, SettingsError
from groundup.rollouts.prompts import Answer, Prompt
from groundup.rollouts.rewards import parse

PROMPT = Prompt(({"role": "user", "content": "add", "input": "1, 2", "learn": True},), "3", "line 4")
ANSWERS = [Answer(PROMPT, "3", [7, 8], True), Answer(PROMPT, "four", [9], False)]


def written(folder, text):
    path = folder / "my.py"
    path.write_text(text, encoding="utf-8")
    return f"{path}:score"


def test_it_is_given_messages_texts_and_right_answers(tmp_path):
    spec = written(
        tmp_path,
        "def score(prompts, responses, references):\n"
        "    assert prompts == [[{'role': 'user', 'content': 'add\\n1, 2', 'input': '1, 2'}]] * 2\n"
        "    assert responses == ['3', 'four']\n"
        "    return [float(a == b) for a, b in zip(responses, references)]\n",
    )
    found = parse([f"0.5*{spec}"]).apart(ANSWERS)
    assert found.total == [0.5, 0.0] and found.parts == {"score": [1.0, 0.0]}
    assert [path.name for path in tmp_path.iterdir()] == ["my.py"]  # no bytecode beside it


def test_it_finds_what_lies_beside_it_and_nobody_else_does(tmp_path):
    """One module is imported as the file is read, the other as the function runs: it yields, and so runs late."""
    (tmp_path / "beside_at_first.py").write_text("WORTH = 2.0\n", encoding="utf-8")
    (tmp_path / "beside_later.py").write_text("WORTH = 0.5\n", encoding="utf-8")
    spec = written(
        tmp_path,
        "import beside_at_first\n"
        "def score(prompts, responses, references):\n"
        "    import beside_later\n"
        "    yield from [beside_at_first.WORTH, beside_later.WORTH]\n",
    )
    before, writes_none = list(sys.path), sys.dont_write_bytecode
    rewards = parse([spec])
    assert sys.path == before
    assert rewards(ANSWERS) == [2.0, 0.5]
    assert sys.path == before and sys.dont_write_bytecode == writes_none
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beside_at_first.py", "beside_later.py", "my.py"]


def test_a_file_that_fails_leaves_the_path_as_it_was(tmp_path):
    before = list(sys.path)
    with pytest.raises(SettingsError):
        parse([written(tmp_path, "1 / 0\n")])
    rewards = parse([written(tmp_path, "def score(p, r, t):\n    import sys\n    del sys.path[0]\n    return 1 / 0\n")])
    with pytest.raises(DataError):
        rewards(ANSWERS)
    assert sys.path == before


def test_what_it_is_given_is_its_own(tmp_path):
    parse([written(tmp_path, "def score(p, r, t):\n    p[0][0]['content'] = 'spoiled'\n    return [0, 0]\n")])(ANSWERS)
    assert PROMPT.messages[0]["content"] == "add"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    x = 1\n    return [1 / 0 for _ in r]\n", "failed at line 3 with ZeroDivisionError: division by zero"),
        ("    raise SystemExit(3)\n", "failed at line 2 with SystemExit: 3"),
        ("    yield 1.0\n    yield [][0]\n", "failed at line 3 with IndexError"),
        ("    return None\n", "gave None, not a list"),
        ("    return [float('nan')] * len(r)\n", "gave nan for the answer to line 4"),
        ("    return [1.0]\n", "gave 1 numbers for 2 answers"),
    ],
)
def test_failures_in_words(body, said, tmp_path):
    rewards = parse([written(tmp_path, f"def score(p, r, t):\n{body}")])
    with pytest.raises(DataError) as caught:
        rewards(ANSWERS)
    assert said in caught.value.what and f"score ({tmp_path / 'my.py'}, line 1)" in caught.value.what


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def scores(p, r, t):\n    return []\n", "did you mean 'scores'"),
        ("score = 3\n", "score of "),
        ("def score(:\n", "SyntaxError: invalid syntax at line 1"),
        ("\nimport no_such_thing_at_all\n", "ModuleNotFoundError: No module named 'no_such_thing_at_all' at line 2"),
        ("", "has no function 'score'"),
    ],
)
def test_files_that_cannot_be_used(text, said, tmp_path):
    with pytest.raises(SettingsError) as caught:
        parse([written(tmp_path, text)])
    assert said in str(caught.value)


def test_a_file_without_its_function_is_said(tmp_path):
    spec = written(tmp_path, "def score(p, r, t):\n    return [0] * len(r)\n").removesuffix(":score")
    with pytest.raises(SettingsError, match="names no function"):
        parse([spec])
