"""Files of answers, shuffled answers, judges that are checked, comparisons in both orders, verdicts that are kept."""

import gzip
import json
import math
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.errors import DataError, SettingsError, UserError
from groundup.evaluate.answers import entry
from groundup.evaluate.judge.asking import Answered, scale
from groundup.evaluate.judge.bench import Bench, Request, Verdicts
from groundup.evaluate.judge.scores import by_question, check, duel, read, score, shuffled
from groundup.evaluate.judge.server import Failed, TooLong
from groundup.text.conversations import Conversation

sys.path.insert(0, str(Path(__file__).parent))
from judge_loopback import Reader, Told, parts, right  # noqa: E402

ROWS = [Answered(f"What follows {n}?", str(n + 1), str(n + 1 + n % 2), f"entry {n} of a.json") for n in range(12)]
HUNDRED, PAIRWISE = scale("100"), scale("pairwise")


def bench(reply: Reader, path: Path | None = None, **options) -> Bench:
    return Bench(Told(reply), Verdicts(path), quiet=True, **options)


# files


def written(path: Path, content: object) -> Path:
    lines = path.suffix == ".jsonl" and isinstance(content, list)
    text = "\n".join(map(json.dumps, content)) if lines else json.dumps(content)  # type: ignore[arg-type]
    path.write_text(text, encoding="utf-8")
    return path


def test_answers_of_both_forms_are_read(tmp_path: Path):
    alpaca = [
        {"instruction": "Add.", "input": "2 + 2", "output": "4", "model_response": "5"},
        {"instruction": "Say hi.", "input": "", "output": "Hi.", "model_response": ""},
        {"instruction": "Say no.", "output": "No."},
    ]
    assert read(written(tmp_path / "a.json", alpaca)) == [
        Answered("Add.\n2 + 2", "4", "5", "entry 0 of a.json"),
        Answered("Say hi.", "Hi.", "", "entry 1 of a.json"),
        Answered("Say no.", "No.", None, "entry 2 of a.json"),
    ]
    user, assistant = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hi."}
    talk = [
        {"messages": [user, assistant], "model_response": "Ho."},
        {"messages": [user, assistant]},
        {"messages": [{"role": "system", "content": "Be brief."}, user], "model_response": "Hm."},
        {"messages": [user]},
        {"messages": [user, assistant], "model_response": None},
    ]
    assert read(written(tmp_path / "b.jsonl", talk)) == [
        Answered("Hi?", "Hi.", "Ho.", "line 1 of b.jsonl"),
        Answered("Hi?", "Hi.", None, "line 2 of b.jsonl"),  # the others have answers of a model: this one has none
        Answered("system: Be brief.\n\nuser: Hi?", "", "Hm.", "line 3 of b.jsonl"),
        Answered("Hi?", "", None, "line 4 of b.jsonl"),
        Answered("Hi?", "Hi.", None, "line 5 of b.jsonl"),
    ]
    assert read(written(tmp_path / "c.jsonl", [talk[1], talk[3]])) == [
        Answered("Hi?", "", "Hi.", "line 1 of c.jsonl", turn=True),
        Answered("Hi?", "", None, "line 2 of c.jsonl", turn=True),
    ]
    assert read(written(tmp_path / "d.jsonl", [talk[4]])) == [Answered("Hi?", "Hi.", None, "line 1 of d.jsonl")]


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0c"])
def test_only_a_line_feed_divides_lines(tmp_path: Path, end: str):
    line = json.dumps(
        {"instruction": f"a{end}b", "output": "c", "model_response": f"d{end}"}, ensure_ascii=end == "\x0c"
    )
    (tmp_path / "a.jsonl").write_bytes(f"{line}\r\n{line}\n".encode())
    found = read(tmp_path / "a.jsonl")
    assert [(row.question, row.answer, row.where[:6]) for row in found] == [
        (f"a{end}b", f"d{end}", "line 1"),
        (f"a{end}b", f"d{end}", "line 2"),
    ]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_packed_answers_are_read(tmp_path: Path, name: str):
    rows = [{"instruction": "Add.", "output": "4", "model_response": "5"}] * 2
    plain = read(written(tmp_path / name, rows))
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    assert [replace(row, where="") for row in read(tmp_path / f"{name}.gz")] == [replace(r, where="") for r in plain]
    assert [row.answer for row in plain] == ["5", "5"]


def test_what_respond_writes_is_read(tmp_path: Path):
    """The very objects that `groundup respond` puts into its files, of both forms."""
    add = Conversation(({"role": "user", "content": "Add.", "input": "2 + 2"}, {"role": "assistant", "content": "4"}))
    brief = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi?"})
    rows = [entry(add, "5"), entry(add, "5", alpaca=False), entry(Conversation(brief), "Hm.")]
    found = read(written(tmp_path / "a.json", rows))
    assert [(row.question, row.expected, row.answer) for row in found] == [
        ("Add.\n2 + 2", "4", "5"),
        ("Add.\n2 + 2", "4", "5"),
        ("system: Be brief.\n\nuser: Hi?", "", "Hm."),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[", "a.json is no JSON: Expecting value in line 1, column 2"),
        ("a.json", "[" * 100_000, "a.json is no JSON"),
        ("a.json", "", "holds no answers"),
        ("a.json", "[]", "holds no answers"),
        ("a.json", "[3]", "entry 0 of a.json is no object but 3"),
        ("a.json", '[{"q": "x"}]', "entry 0 of a.json has none of the fields of a conversation; it has: q"),
        ("a.json", '[{"instruction": "x", "output": "y", "model_response": 3}]', "'model_response' of entry 0 .* is 3"),
        ("a.json", '[{"instruction": "x", "model_response": "\\ud800"}]', "'model_response' of entry 0 .* not text"),
        ("a.jsonl", '{"instruction": "x"}\n\n{"instr', "line 3 of a.jsonl is no JSON"),
        ("a.jsonl", "9" * 9000, "line 1 of a.jsonl is no JSON that can be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, name: str, content: str, message: str):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read(path)


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(DataError, match="cannot read .*none.json: No such file"):
        read(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b'[{"instruction": "\xe9"}]')
    with pytest.raises(DataError, match="cannot read .*latin.json: it is not UTF-8"):
        read(tmp_path / "latin.json")


def test_questions_find_each_other():
    rows = [Answered(question, "", str(n), "") for n, question in enumerate("abac", 1)]
    others = [Answered(question, "", str(n), "") for n, question in enumerate("acad", 5)]
    found = [(one.answer, other.answer) for one, other in by_question(rows, others)]
    assert found == [("1", "5"), ("3", "7"), ("4", "6")]


# shuffled answers


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=12), st.integers(2, 12), st.integers(0, 5))
def test_no_question_keeps_its_answer(answers, size, seed):
    rows = [Answered(f"q{n}", answer, None, "") for n, answer in enumerate(answers)]
    if len(set(answers)) < 2:
        with pytest.raises(DataError, match="cannot be checked"):
            shuffled(rows, size=size, seed=seed)
        return
    good, bad = shuffled(rows, size=size, seed=seed)
    assert len(good) == len(bad) == min(size, len(rows)) == len({row.question for row in good})
    assert [row.question for row in good] == [row.question for row in bad]
    assert all(row.answer == row.expected for row in good) and all(row.answer != row.expected for row in bad)
    assert {row.answer for row in bad} <= {row.expected for row in good}
    assert (good, bad) == shuffled(rows, size=size, seed=seed)


def test_a_check_needs_expected_answers():
    with pytest.raises(DataError, match="1 of 3 rows have an expected answer") as raised:
        shuffled(
            [Answered(word, expected, None, "") for word, expected in (("a", "x"), ("b", ""), ("c", " "))],
            size=9,
            seed=0,
        )
    assert "--no-check" in raised.value.fix
    with pytest.raises(SettingsError, match="cannot be checked by 1 answer") as small:
        shuffled(ROWS, size=1, seed=0)
    assert "--check-size 2" in small.value.fix


# the judge, judged


def by_length(prompt: str) -> str:
    """A judge that knows nothing: the longer, the better."""
    _, _, answer = parts(prompt)
    return json.dumps({"score": min(100, len(answer))})


def test_a_judge_that_knows_is_fit():
    for name in ("100", "rubric", "pairwise"):
        found = check(bench(right), ROWS, scale(name), size=100, seed=1)
        assert found.area == 1.0 and found.fit and found.good == found.bad == 12 and found.unusable == 0


def test_a_judge_that_says_always_the_same_is_unfit():
    for reply in ('{"score": 5}', '{"better": "A"}'):
        chosen = PAIRWISE if "better" in reply else scale("rubric")
        found = check(bench(lambda prompt, reply=reply: reply), ROWS, chosen, size=100, seed=1)
        assert found.area == 0.5 and not found.fit


def test_a_judge_that_is_wrong_is_worse_than_none():
    def wrong(prompt: str) -> str:
        return '{"score": 0}' if '"score": 100' in right(prompt) else '{"score": 100}'

    assert check(bench(wrong), ROWS, HUNDRED, size=100, seed=1).area == 0.0


def test_the_check_of_a_judge_by_hand():
    """Expected answers are one to four letters long; the judge counts letters, and each answer is another's too."""
    rows = [Answered(letter, letter * n, None, "") for n, letter in enumerate("abcd", 1)]
    found = check(bench(by_length), rows, HUNDRED, size=4, seed=0)
    assert found.area == 0.5  # both sides hold 1 2 3 4


def test_the_check_draws_as_many_as_wished():
    assert check(bench(right), ROWS, HUNDRED, size=5, seed=1).good == 5


# scores


def test_scores_of_a_file():
    asked = bench(right)
    found = score(asked, "a.json", ROWS, HUNDRED, seed=3)
    assert found.each == [100.0 if row.answer == row.expected else 0.0 for row in ROWS]
    assert found.mean[0] == 50.0 and found.median == 50.0 and found.unusable == 0 and found.repeats is None
    assert asked.cost.asked == 12 and (asked.cost.read, asked.cost.written, asked.cost.uncounted) == (84, 24, 0)


def test_what_cannot_be_read_is_asked_for_once_more_and_is_never_a_score():
    asked = bench(lambda prompt: right(prompt) if "one JSON object: no other word" in prompt else "Well, 7 or 8.")
    assert score(asked, "a", ROWS, HUNDRED, seed=1).unusable == 0 and len(asked.judge.prompts) == 24
    assert asked.cost.read == 12 * 2 * 7  # both requests were paid for
    never = bench(lambda prompt: "no" if "follows 3?" in prompt else right(prompt))
    found = score(never, "a", ROWS, HUNDRED, seed=1)
    assert found.each[3] is None and found.unusable == 1 and len(found.usable) == 11
    assert found.reasons[3] == "no choice of the scale in 'no'" and found.reasons[4] == ""
    assert found.mean[0] == pytest.approx(sum(found.usable) / 11)


def test_tokens_that_are_not_told_are_unknown_not_zero():
    asked = Bench(Told(right, counts=(None, None)), Verdicts(), quiet=True)
    score(asked, "a", ROWS[:3], HUNDRED, seed=1)
    assert (asked.cost.read, asked.cost.uncounted) == (0, 3)


def test_repeats_use_other_seeds_and_are_compared():
    turns = iter([80, 90] * 12)
    asked = bench(lambda prompt: json.dumps({"score": next(turns)}))
    found = score(asked, "a", ROWS, HUNDRED, seed=5, repeats=2)
    assert set(asked.judge.seeds) == {5, 6} and found.each == [85.0] * 12
    repeats = found.repeats
    assert repeats is not None and (repeats.pairs, repeats.equal, repeats.difference) == (12, 0.0, 10.0)
    assert repeats.alpha == pytest.approx(1 - (12 * 200 / 24) / (2 * 144 * 100 / (24 * 23)))


def test_equal_questions_are_asked_once():
    asked = bench(right)
    found = score(asked, "a", [ROWS[0], ROWS[1], ROWS[0]], HUNDRED, seed=1)
    assert len(asked.judge.prompts) == 2 and found.each[0] == found.each[2]


def test_a_question_without_end_is_not_sent():
    asked = bench(right)
    found = score(asked, "a", [ROWS[0], replace(ROWS[1], answer="x" * 200_000)], HUNDRED, seed=1)
    assert found.each == [100.0, None] and "200," in found.reasons[1] and len(asked.judge.prompts) == 1


# comparisons


def pairs_of(count: int) -> list[tuple[Answered, Answered]]:
    """The first file is right where the second is wrong, the other way round, both right, both wrong; and again."""
    rows = []
    for n in range(count):
        good, other = n % 4 in (0, 2), n % 4 in (1, 2)
        row = Answered(f"question {n}", "yes", None, "")
        rows.append((replace(row, answer="yes" if good else "no"), replace(row, answer="yes" if other else "never")))
    return rows


def test_a_duel_by_hand():
    found = duel(bench(right), pairs_of(8), PAIRWISE, seed=1)
    assert found.shares == [1.0, 0.0, 0.5, 0.5] * 2 and found.counts == (2, 2, 4, 0)
    assert found.disagreed == 0 and found.mean[0] == 0.5 and found.first == 0.5


def test_a_judge_that_likes_what_stands_first_makes_only_ties():
    found = duel(bench(lambda prompt: '{"better": "A"}'), pairs_of(8), PAIRWISE, seed=1)
    assert found.counts == (0, 0, 8, 0) and found.first == 1.0
    assert (found.disagreed, found.same) == (6, 2)  # two pairs say "yes" in both files: nobody was asked


def test_equal_answers_tie_unasked_and_say_nothing_of_the_judge():
    asked = bench(lambda prompt: '{"better": "A"}')
    row = Answered("q", "yes", "yes", "")
    found = duel(asked, [(row, row), (row, replace(row, answer=" yes\n"))], PAIRWISE, seed=1, repeats=2)
    assert found.counts == (0, 0, 2, 0) and (found.disagreed, found.same) == (0, 2) and not asked.judge.prompts
    assert math.isnan(found.first) and found.repeats is None


def test_both_orders_are_asked_and_one_alone_is_no_verdict():
    asked = bench(lambda prompt: "?" if parts(prompt)[2] == "never" else right(prompt))
    found = duel(asked, pairs_of(4), PAIRWISE, seed=1)
    assert found.shares == [None, 0.0, 0.5, None] and found.counts == (0, 1, 1, 2) and found.reasons[0]
    orders = {tuple(parts(prompt)[2:]) for prompt in asked.judge.prompts if parts(prompt)[0] == "question 1"}
    assert orders == {("no", "yes"), ("yes", "no")}


# verdicts that are kept, judges that fail


def test_a_judging_that_was_cut_off_goes_on(tmp_path: Path):
    path, kept = tmp_path / "out" / "verdicts.jsonl", 0

    def mortal(prompt: str) -> str:
        nonlocal kept
        kept += 1
        if kept > 5:
            raise KeyboardInterrupt
        return right(prompt)

    with pytest.raises(KeyboardInterrupt):
        score(bench(mortal, path), "a", ROWS, HUNDRED, seed=1)
    content = path.read_bytes()
    assert content.count(b"\n") == 5
    path.write_bytes(content[:-9])  # the fifth line was not whole on disk
    again = bench(right, path)
    found = score(again, "a", ROWS, HUNDRED, seed=1)
    assert (again.cost.known, again.cost.asked) == (4, 8)
    assert found.each == score(bench(right), "a", ROWS, HUNDRED, seed=1).each
    silent = bench(lambda prompt: Failed("nobody should be asked"), path)
    assert score(silent, "a", ROWS, HUNDRED, seed=1).each == found.each and silent.cost.asked == 0


def test_another_judge_scale_or_seed_is_another_question(tmp_path: Path):
    path = tmp_path / "verdicts.jsonl"
    score(bench(right, path), "a", ROWS, HUNDRED, seed=1)
    for change in ("identity", "scale", "seed", "rubric"):
        asked = bench(right, path)
        if change == "identity":
            asked.judge.identity = "told 2"
        chosen = scale("rubric") if change == "scale" else HUNDRED
        chosen = scale("rubric", rubric="1 bad, 5 good") if change == "rubric" else chosen
        score(asked, "a", ROWS, chosen, seed=2 if change == "seed" else 1)
        assert asked.cost.asked == 12, change


def test_a_file_of_verdicts_that_says_nonsense_is_not_believed(tmp_path: Path):
    path = tmp_path / "verdicts.jsonl"
    first = bench(right, path)
    score(first, "a", ROWS[:6], HUNDRED, seed=1)
    lines = path.read_text(encoding="utf-8").splitlines()
    values = ["1e999", "-5", "true", '"100"', "[1]", "101"]
    spoilt = [
        line.replace(f'"value": {json.loads(line)["value"]}', f'"value": {value}')
        for line, value in zip(lines, values, strict=True)
    ]
    path.write_text("\n".join(["[]", "3", "{}", "\x00", *spoilt]) + "\n", encoding="utf-8")
    again = bench(right, path)
    score(again, "a", ROWS[:6], HUNDRED, seed=1)
    assert again.cost.known == 0 and again.cost.asked == 6


def test_one_question_that_fails_does_not_stop_the_others():
    asked = bench(lambda prompt: Failed("too long") if "follows 4?" in prompt else right(prompt))
    found = score(asked, "a", ROWS, HUNDRED, seed=1)
    assert found.each[4] is None and found.reasons[4] == "too long" and len(found.usable) == 11


def test_three_failures_in_a_row_stop_and_say_why():
    asked = bench(lambda prompt: right(prompt) if "follows 0?" in prompt else Failed("503 busy"))
    with pytest.raises(UserError, match="the judge told failed 3 times in a row: 503 busy") as raised:
        score(asked, "a", ROWS, HUNDRED, seed=1)
    assert raised.value.fix.startswith("look at what it was told;")
    assert len(asked.judge.prompts) == 4
    with pytest.raises(UserError, match="failed at its only question"):
        score(bench(lambda prompt: Failed("gone")), "a", ROWS[:1], HUNDRED, seed=1)


def test_questions_that_are_too_long_are_unusable_and_stop_nothing():
    asked = bench(lambda prompt: TooLong("5,000 tokens") if "follows 11?" not in prompt else right(prompt))
    found = score(asked, "a", ROWS, HUNDRED, seed=1)
    assert found.each[:11] == [None] * 11 and found.each[11] is not None and found.reasons[0] == "5,000 tokens"
    alone = score(bench(lambda prompt: TooLong("5,000 tokens")), "a", ROWS[:1], HUNDRED, seed=1)
    assert alone.each == [None]


def test_known_verdicts_tell_what_they_cost_and_what_was_left_out(tmp_path: Path):
    path = tmp_path / "verdicts.jsonl"
    first = bench(right, path)
    first.judge.left_out = frozenset({"temperature"})
    score(first, "a", ROWS, HUNDRED, seed=1)
    again = bench(right, path)  # it has not met the refusal of the server yet
    score(again, "a", ROWS, HUNDRED, seed=1)
    assert again.left_out == {"temperature"} and again.cost.asked == again.cost.read == 0
    assert (again.cost.known, again.cost.known_read, again.cost.known_written) == (12, 84, 24)


def test_what_failed_before_is_asked_again_and_stops_nothing(tmp_path: Path):
    def odd(prompt: str) -> str | Exception:
        return Failed("too long") if any(f"follows {n}?" in prompt for n in (1, 3, 5, 7, 9)) else right(prompt)

    path = tmp_path / "verdicts.jsonl"
    first = score(bench(odd, path), "a", ROWS, HUNDRED, seed=1)
    asked = bench(odd, path)
    assert score(asked, "a", ROWS, HUNDRED, seed=1).each == first.each and asked.cost.asked == 5
    assert score(bench(right, path), "a", ROWS, HUNDRED, seed=1).unusable == 0


def test_side_by_side_is_the_same_as_one_after_the_other():
    met = threading.Barrier(4, timeout=20)

    def together(prompt: str) -> str:
        met.wait()  # four at a time, or nobody gets on
        return right(prompt)

    asked = bench(together, at_once=4)
    assert score(asked, "a", ROWS, HUNDRED, seed=1).each == score(bench(right), "a", ROWS, HUNDRED, seed=1).each
    assert asked.cost.asked == 12


def test_an_error_in_a_thread_comes_out():
    def broken(prompt: str) -> str:
        raise ZeroDivisionError("a fault of ours")

    with pytest.raises(ZeroDivisionError):
        score(bench(broken, at_once=3), "a", ROWS, HUNDRED, seed=1)


def test_a_judge_of_ours_is_asked_once_whatever_the_seed():
    asked = bench(right)
    asked.judge.ours = True
    requests = [Request(ROWS[0], scale("100", digits=True), seed) for seed in (1, 2, 3)]
    asked.ask(requests, title="")
    assert len(asked.judge.prompts) == 1
