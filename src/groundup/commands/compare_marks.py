"""The columns of a comparison: what rewards, a judge and people say of the answers.

In: a `Board` of answers. Out: `Column`s; those of earlier runs in the same folder stay beside new ones. Rewards give
every answer a number; a judge and people say of two answers which is better, one of them always the first model's.
"""

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from groundup import machine as machines
from groundup.commands import compare_votes
from groundup.commands.compare_answers import Asked, Board, answers_file, fingerprint
from groundup.errors import UserError
from groundup.evaluate.compare import Column, scored
from groundup.evaluate.judge.asking import Answered, Scale, prompt, scale
from groundup.evaluate.judge.bench import Bench, Verdicts
from groundup.evaluate.judge.places import OPENAI_KEY, Judge, Wish, opened
from groundup.evaluate.judge.reliability import Check
from groundup.evaluate.judge.scores import check, duel, read
from groundup.rollouts.prompts import Answer, Prompt, RewardFunction
from groundup.rollouts.rewards import parse
from groundup.settings import Compare
from groundup.settings import Judge as JudgeSettings
from groundup.text.conversations import told

SCORES, VOTES, VERDICTS = "scores.json", "votes.jsonl", "verdicts.jsonl"
PEOPLE = "people"  # the column of votes


# rewards


def check_rewards(settings: Compare, asked: Asked) -> None:
    """Raise what is wrong with a reward's name, file or folder, or the prompts, before anything is answered."""
    for spec in settings.reward:
        parse([spec], batch=settings.batch).check(_prompts(asked))


def rewarded(settings: Compare, board: Board) -> list[Column]:
    """A column for each reward; where there are several, one more for their sum, which bears the names of all.

    The sum is what ppo adds up with the same words, before it takes --unfinished off an answer that has no end.
    A reward model scores in fp32: the differences that count here may be small.
    """
    prompts = _prompts(board.asked)
    given = [
        [Answer(asked, one.text, one.ids, one.ended) for asked, one in zip(prompts, written, strict=True)]
        for written in board.answers
    ]
    machine = machines.choose(device=settings.device, dtype="fp32", threads=settings.threads)
    specs = list(dict.fromkeys(settings.reward))
    found = [scored(spec, scores(parse([spec], machine=machine, batch=settings.batch), given)) for spec in specs]
    if len(found) > 1:
        columns = zip(*(column.scores for column in found), strict=True)
        sums = [[math.fsum(values) for values in zip(*one, strict=True)] for one in columns]
        found.append(scored(" + ".join(specs), sums, "sum"))
    return found


def scores(reward: RewardFunction, given: Sequence[Sequence[Answer]]) -> list[list[float]]:
    """What the answers of each model are worth.

    Equal answers to a prompt are scored once, and so get the same to the last digit, whoever wrote them.
    """
    keys = [[(number, one.text, tuple(one.ids), one.ended) for number, one in enumerate(row)] for row in given]
    different = {key: one for names, row in zip(keys, given, strict=True) for key, one in zip(names, row, strict=True)}
    worth = dict(zip(different, reward(list(different.values())), strict=True))
    return [[worth[key] for key in row] for row in keys]


def _prompts(asked: Asked) -> list[Prompt]:
    """The prompts as rewards are given them."""
    rows = zip(asked.rows, asked.questions, strict=True)
    return [Prompt(question.messages, question.expected, row.where) for row, question in rows]


# a judge


def is_server(judge: str) -> bool:
    """Whether a judge is greeted rather than loaded.

    >>> is_server("ollama:llama3"), is_server("http://127.0.0.1:8000/v1"), is_server("runs/assistant")
    (True, True, False)
    """
    return judge.startswith("ollama:") or "://" in judge


def found_judge(settings: Compare) -> Judge:
    """The judge; what is wrong with its name is told in the flags of this command."""
    named = "api_key_env" in settings.model_fields_set
    wish = Wish(
        judge=settings.judge,
        model=settings.judge_name,
        timeout=settings.timeout,
        key=settings.api_key_env if named else OPENAI_KEY,
        named=named,
        threads=settings.threads,
    )
    try:
        return opened(wish)
    except UserError as error:
        what, fix = (re.sub(r"--name\b", "--judge-name", words) for words in (error.what, error.fix))
        raise type(error)(what, fix) from None


def judged(settings: Compare, board: Board, judge: Judge) -> tuple[Column | None, Check | None, list[str]]:
    """The judge is judged, then every model set against the first, each pair shown in both orders.

    Returns the column, None of a judge that is unfit; the check, None where the prompts allow of none; remarks, which
    the column has as well.
    """
    rows = [read(answers_file(board.out, place)) for place in range(len(board.answers))]
    chosen, said, found = scale("pairwise", digits=judge.ours), list[str](), None
    judge.prepare(_longest(rows, chosen))
    bench = Bench(judge, Verdicts(board.out / VERDICTS))
    if len({row.expected.strip() for row in rows[0]} - {""}) > 1:
        found = check(bench, rows[0], chosen, size=JudgeSettings().check_size, seed=settings.seed)
        reach = f"{found.area:.3f} ({found.low:.3f} to {found.high:.3f})"
        said.append(f"the judge {judge.name} gave {reach} of the points to right answers rather than wrong ones")
        if not found.fit:
            return None, found, [*said, "so it is UNFIT, or its replies cannot be read: it was asked no further"]
    else:
        said.append(f"the judge {judge.name} was not judged itself: the prompts have no two different expected answers")
    duels = [
        duel(bench, list(zip(other, rows[0], strict=True)), chosen, seed=settings.seed, title=f"judge {name}")
        for other, name in zip(rows[1:], board.names[1:], strict=True)
    ]
    for name, one in zip(board.names[1:], duels, strict=True):
        if one.disagreed:
            said.append(f"{name}: in {one.disagreed:,} of the ties the judge chose by the place of the answers")
    return Column(judge.name, "judge", [one.shares for one in duels], check=found, remarks=said), found, said


def _longest(rows: Sequence[Sequence[Answered]], chosen: Scale) -> int:
    """Bytes that no question to the judge exceeds."""
    texts = [text for row in rows for one in row for text in (one.answer or "", one.expected)]
    longest = max(texts, key=lambda text: len(text.encode()))
    worst = [dataclasses.replace(one, answer=longest) for one in rows[0]]
    return max(len(prompt(one, chosen, against=longest, strict=True).encode()) for one in worst)


# people


def ask(settings: Compare, board: Board) -> None:
    """Let a person vote, until all is decided or they leave."""
    prompts, texts = _texts(board)
    compare_votes.vote(compare_votes.ballots(prompts, texts, seed=settings.seed), board.out / VOTES)


def voted(settings: Compare, board: Board) -> list[Column]:
    """The column of all votes there are; none without a vote."""
    votes = compare_votes.read(board.out / VOTES)
    if not votes:
        return []
    prompts, texts = _texts(board)
    ballots = compare_votes.ballots(prompts, texts, seed=settings.seed)
    return [Column(PEOPLE, "human", compare_votes.shares(ballots, votes, size=(len(texts) - 1, len(prompts))))]


def _texts(board: Board) -> tuple[list[str], list[list[str]]]:
    """Prompts as a person reads them, and the answers of each model."""
    prompts = []
    for question in board.asked.questions:
        messages = told(question.messages)
        alone = len(messages) == 1
        prompts.append("\n\n".join(m["content"] if alone else f"{m['role']}: {m['content']}" for m in messages))
    return prompts, [[one.text for one in written] for written in board.answers]


# earlier runs


def kept(board: Board) -> list[Column]:
    """Columns of rewards and judges from an earlier run in this folder; what is none of them is passed over.

    So are marks of other answers than those that are there now, votes, which have a file of their own, and sums: of
    which rewards they are is up to each run.
    """
    try:
        content = json.loads((board.out / SCORES).read_text(encoding="utf-8"))
        columns = [_column(one) for one in content["columns"]]
        same = content["answers"] == fingerprint(board.answers)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []
    return [column for column in columns if same and column.kind in ("reward", "judge") and _fits(column, board)]


def _column(entry: dict[str, Any]) -> Column:
    """A column as scores.json has it; raises TypeError for what is none."""
    found = Column(**entry)
    return dataclasses.replace(found, check=Check(**entry["check"])) if entry.get("check") else found


def merged(old: Sequence[Column], new: Sequence[Column]) -> list[Column]:
    """Columns of an earlier run and of this one, the newest at the end; of one name and kind only the newest."""
    known = {(column.name, column.kind) for column in new}
    return [*(column for column in old if (column.name, column.kind) not in known), *new]


def _fits(column: Column, board: Board) -> bool:
    """Whether a column has a mark for every answer of this comparison."""
    models, count = len(board.answers), len(board.asked)
    sizes = {len(one) for one in column.shares} | {len(one) for one in column.scores}
    return len(column.shares) == models - 1 and len(column.scores) in (0, models) and sizes == {count}
