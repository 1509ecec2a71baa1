"""Our models as lm-eval sees them, and its tasks run on them.

In: a model, its tokenizer, names of tasks or .yaml files. Out: `TaskScore`s. The library (EleutherAI's Language Model
Evaluation Harness) is an extra, groundup[eval]; it prepares the texts and does the counting, we compute likelihoods
and write continuations. A task by name fetches its data set from the network; a .yaml file may name functions, which
are run: use those you trust.

Texts come from the harness as they stand in the data or as a chat template wrote them, nobody can tell which. Special
tokens in them are therefore read as such, as its own models for `transformers` do.
"""

import contextlib
import importlib
import importlib.util
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from groundup.errors import DataError, GroundupError, ModelError, SettingsError, nearest
from groundup.evaluate.choices import Likelihood, Pair, log_likelihoods, pair, rolling, text_ids
from groundup.generate import Sampler, write
from groundup.generate.chat import template_of
from groundup.generate.stream import start_ids
from groundup.journal import Progress
from groundup.machine import Machine
from groundup.model import config_of
from groundup.tokens.tokenizer import Tokenizer

LONGEST = 256  # new tokens where a task does not say, as in the harness
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # names a task may use for it
# a line at the margin; a group's own name stands before the tasks in it, which may be a list on the lines behind
NAMES = [re.compile(rf"^{key}:[ \t]*['\"]?([\w.:-]+)", re.MULTILINE) for key in ("group", "task")]


@dataclass(frozen=True)
class TaskScore:
    """One figure of one task: the metric with its filter as the harness names them, and how many items it is over."""

    task: str
    metric: str
    value: float
    error: float | None
    items: int


class Answers:
    """The three questions that the harness asks of a model, without the harness.

    A request is anything with `args`: (context, continuation), (text,), or (context, settings). Counted over all that
    was asked: `cut`, the requests whose context lost its beginning; `unfinished`, texts that reached their longest
    length before the model or a stop string ended them.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Tokenizer, *, batch: int = 16, machine: Machine | None = None
    ) -> None:
        super().__init__()
        self.model, self.tokens, self.batch, self.machine = model, tokenizer, batch, machine
        self.context = config_of(model).context
        self.cut = self.unfinished = 0

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """log p in nats of each continuation behind its context, and whether it is what greedy writing writes."""
        pairs = [pair(self.tokens, *request.args, special=True) for request in requests]
        found = self._scored(pairs, quiet=disable_tqdm)
        self.cut += sum(one.cut > 0 for one in found)
        return [(one.log_p, one.greedy) for one in found]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """log p in nats of each whole text, however long; see `rolling`."""
        texts = [rolling(self.tokens, request.args[0], self.context, special=True) for request in requests]
        scores = iter(self._scored([one for parts in texts for one in parts], quiet=disable_tqdm))
        return [sum(next(scores).log_p for _ in parts) for parts in texts]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The text behind each context up to one of its stop strings; what does not fit loses its beginning."""
        together = defaultdict(list)
        for number, request in enumerate(requests):
            together[repr(sorted(request.args[1].items()))].append(number)
        found = [""] * len(requests)
        with Progress("lm-eval writes", total=len(requests), unit="text", quiet=disable_tqdm) as line:
            done = 0
            for numbers in together.values():
                for row, text in self._written([requests[number].args for number in numbers]):
                    found[numbers[row]], done = text, done + 1
                    line.update(done)
        return found

    def _written(self, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[int, str]]:
        """Texts of requests that share their settings, each with its row, as they are done."""
        wish = asked[0][1]
        most = next((int(wish[name]) for name in LENGTHS if wish.get(name) is not None), LONGEST)
        if most >= self.context:
            raise ModelError(
                f"the task wants up to {most} new tokens, the model's context is {self.context}",
                "set max_gen_toks in the task's generation_kwargs, or use a model with a longer context",
            )
        room = self.context - most
        whole = [text_ids(self.tokens, text, special=True) or start_ids(self.tokens) for text, _ in asked]
        prompts = [ids[-room:] for ids in whole]
        self.cut += sum(len(ids) > room for ids in whole)
        texts = [""] * len(asked)
        stops = _stops(wish.get("until"))
        for delta in write(self.model, self.tokens, prompts, max_tokens=most, sampler=_sampler(wish), stop=stops):
            texts[delta.row] += delta.text
            if delta.finish:
                self.unfinished += delta.finish == "length"
                yield delta.row, texts[delta.row]

    def _scored(self, pairs: Sequence[Pair], *, quiet: bool) -> list[Likelihood]:
        with Progress("lm-eval scores", total=len(pairs), unit="text", quiet=quiet) as line:
            return log_likelihoods(
                self.model, pairs, batch=self.batch, machine=self.machine, watch=lambda done: line.update(done)
            )

    # what the harness asks of models that chat

    @property
    def tokenizer_name(self) -> str:
        """A name by which what was prepared for this tokenizer can be told from others."""
        return self.tokens.fingerprint

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template's text, for the record."""
        return (self.tokens.chat_template or "") if chat_template else ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as text; without the prompt to answer it ends with the last message's own words."""
        template = template_of(self.tokens)
        if template is None:
            raise SettingsError("this model has no chat template", "leave the chat template out: it continues text")
        if add_generation_prompt:
            return template.render(chat_history, generation=True)
        parts = template.segments(chat_history)
        last = max((place for place, part in enumerate(parts) if part.content), default=len(parts) - 1)
        return "".join(part.text for part in parts[: last + 1])


def adapter(model: nn.Module, tokenizer: Tokenizer, *, batch: int = 16, machine: Machine | None = None) -> Any:
    """An `lm_eval.api.model.LM` for a model of ours, to be handed to lm-eval's own functions.

    Raises SettingsError where the library is not installed.

    >>> lm = adapter(model, tokenizer)  # doctest: +SKIP
    >>> lm_eval.simple_evaluate(lm, tasks=["arc_easy"], limit=100)  # doctest: +SKIP
    """
    base = _library("lm_eval.api.model").LM
    return type("Groundup", (Answers, base), {})(model, tokenizer, batch=batch, machine=machine)


def available() -> None:
    """Raise SettingsError where lm-eval is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        what = "--lm-eval needs the lm-eval library, which is not installed"
        raise SettingsError(what, 'pip install "groundup[eval]"')


def run(lm: Any, tasks: Sequence[str], *, limit: int | None = None) -> list[TaskScore]:
    """The figures of tasks of lm-eval: known by name, or described in .yaml files.

    limit: only the first so many items of each. No generator of random numbers is set. Raises SettingsError for a task
    that is not known, DataError where the harness fails, with its reason.
    """
    managers = _library("lm_eval.tasks")
    evaluator = _library("lm_eval.evaluator")
    files = [Path(task) for task in tasks if task.endswith((".yaml", ".yml"))]
    names = [_name_in(Path(task)) if Path(task) in files else task for task in tasks]
    with _quietly():
        known = managers.TaskManager(
            include_path=[str(file.parent) for file in files] or None, include_defaults=len(files) < len(tasks)
        )
        for name in names:
            if name not in known.all_tasks:
                raise SettingsError(f"lm-eval knows no task '{name}'", nearest(name, known.all_tasks[:10_000]))
        try:
            answer = evaluator.simple_evaluate(
                model=lm,
                tasks=names,
                limit=limit,
                task_manager=known,
                bootstrap_iters=1000,
                log_samples=False,
                random_seed=None,
                numpy_random_seed=None,
                torch_random_seed=None,
            )
        except GroundupError:
            raise
        except Exception as error:  # whatever a task does: its data, its functions, its templates
            what = f"lm-eval could not run {', '.join(tasks)}: {type(error).__name__}: {error}"
            raise DataError(what, "check the task file, its data, and the network for data sets by name") from error
    return _scores(answer)


def _scores(answer: Mapping[str, Any]) -> list[TaskScore]:
    """The harness's table as figures: "acc,none" is a metric and its filter, "acc_stderr,none" its error."""
    found = []
    for task, figures in answer["results"].items():
        items = int(answer.get("n-samples", {}).get(task, {}).get("effective", 0))
        for key, value in figures.items():
            metric, comma, way = key.partition(",")
            if not comma or metric.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            error = figures.get(f"{metric}_stderr,{way}")
            name = metric if way == "none" else f"{metric} ({way})"
            found.append(
                TaskScore(task, name, float(value), float(error) if isinstance(error, int | float) else None, items)
            )
    return found


def _library(name: str) -> ModuleType:
    """A module of lm-eval; it is looked for only when it is asked for."""
    available()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SettingsError(f"lm-eval cannot be used: {error}", 'pip install --upgrade "groundup[eval]"') from None


def _name_in(file: Path) -> str:
    """What a task file calls itself; the rest of it is for the harness to read."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the task file {file}: {error}", "give a .yaml file of lm-eval") from None
    found = next((match for name in NAMES if (match := name.search(text))), None)
    if found is None:
        raise DataError(f"{file} names no task", "a task of lm-eval has a line such as  task: my_task")
    return found[1]


def _stops(until: Any) -> list[str]:
    stops = [until] if isinstance(until, str) else list(until or [])
    return [stop for stop in stops if stop]


def _sampler(wish: Mapping[str, Any]) -> Sampler:
    """Greedy unless the task wants a draw."""
    temperature = float(wish.get("temperature") or 0)
    if wish.get("do_sample") is False or not temperature:
        return Sampler(temperature=0)
    return Sampler(temperature=temperature, top_k=int(wish.get("top_k") or 0), top_p=float(wish.get("top_p") or 1))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The harness tells every step of its work; here only what may be wrong is told."""
    log = logging.getLogger("lm_eval")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
