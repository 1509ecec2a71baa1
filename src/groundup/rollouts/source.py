"""Batches of a policy's own answers, without end: what the training loop draws from when a model learns from rewards.

In: who takes part, prompts, settings. Out: `Rollouts`, which makes a rollout when the last one is used up and knows its
place to the batch; `Examples`, what an epoch is and what a batch costs, without writing anything.

One rollout is R answers: R / group prompts with `group` answers each. It is passed over `passes` times, each time in an
order of its own. Prompts come in epochs, every one once, in an order that is computed from seed and epoch. A resumed
run goes on with the very answers that the killed one had: they, and the price of distance, are in `state`.

With several processes each would answer its share of the prompts, and what `collect` computes over the whole rollout
(whitening, the notes, the price) would have to be summed over them. Until then a run is one process.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from groundup.batches.batch import Batch
from groundup.batches.loader import permuted
from groundup.batches.windows import Numbers
from groundup.errors import CheckpointError, SettingsError
from groundup.generate.chat import ending
from groundup.rollouts import figures
from groundup.rollouts.answers import spoken
from groundup.rollouts.buffer import PAD, Rollout, placed
from groundup.rollouts.coefficient import Coefficient
from groundup.rollouts.collect import Actors, collect, seed_of
from groundup.rollouts.prompts import Prompt, Prompts
from groundup.settings import Ppo
from groundup.text.conversations import told as messages_told
from groundup.tokens.turns import lead

FIXED = ("seed", "prompts", "algorithm", "responses", "group", "passes")  # of the state: what cannot change
SHOWN = 3  # prompts of a rollout that a person is shown
LONG = 200  # characters of a prompt or an answer that a person is shown, at most
OWN = "rollout."  # begins the names of its tensors in the state: "prompts" alone is a fingerprint


def told(text: str) -> None:
    """Say something to the person, beside the results."""
    print(f"answers   {text}", file=sys.stderr, flush=True)


class Rollouts:
    """Batches of `micro` answers (batches.Batches): tokens of a policy with what they were worth, for `losses.policy`.

    The policy answers when the last rollout is used up, in the state it has then. `rollout` is the present one,
    `number` how many there were, `cursor` how many answers of it were drawn, `price` what distance costs next time.

    `say` is told once, if all answers of a rollout are cut. Raises SettingsError where a rollout cannot be divided as
    asked, ModelError for a reference that reads other ids, DataError for prompts without what the rewards compare with.

    >>> batches = Rollouts(actors, asked, settings, micro=4)  # doctest: +SKIP
    >>> next(iter(batches)).notes["reward"]  # doctest: +SKIP
    0.25
    """

    def __init__(
        self, actors: Actors, asked: Prompts, settings: Ppo, *, micro: int, say: Callable[[str], None] = told
    ) -> None:
        _check(actors, settings, micro)
        actors.check()
        actors.rewards.check(asked.prompts)
        self.actors, self.asked, self.settings, self.micro = actors, asked, settings, micro
        self.price = Coefficient(settings.kl, settings.kl_target)
        self.number = self.cursor = 0
        self.rollout: Rollout | None = None
        self._say, self._said = say, False

    def __iter__(self) -> Iterator[Batch]:
        while True:
            if self.rollout is None or self.cursor >= self._drawn:
                self._collect()
            rows, batch = self._rows(), self.rollout
            # before the yield: whoever holds a batch and asks for the state is told the place behind that batch
            self.cursor += self.micro
            assert batch is not None
            yield batch.batch(rows)

    @property
    def _drawn(self) -> int:
        """Answers that are drawn of a rollout before it is used up."""
        return self.settings.responses * self.settings.passes

    def _collect(self) -> None:
        """The next rollout, in tensors of its own: a checkpoint may still be writing those of the last."""
        self.rollout = collect(
            self.actors,
            self.asked.chosen(self._prompts(self.number)),
            self.settings,
            number=self.number,
            price=self.price.value,
            rows=self.micro,
        )
        self.number, self.cursor = self.number + 1, 0
        notes = self.rollout.notes
        self.price = self.price.after(notes.get("kl", 0.0))
        remark = figures.unended(notes, self.settings.response_tokens)
        if remark and not self._said:
            self._say(remark)
            self._said = True

    def _prompts(self, number: int) -> list[int]:
        """Which prompts rollout `number` answers."""
        each, known = self.settings.responses // self.settings.group_size, len(self.asked)
        epochs, places = np.divmod(np.arange(number * each, (number + 1) * each), known)
        return [int(row) for row in permuted(places, epochs, size=known, seed=self.settings.seed)]

    def _rows(self) -> Numbers:
        """Which answers of the rollout come next (B,): every pass has an order of its own."""
        count = self.settings.responses
        passes, places = np.divmod(np.arange(self.cursor, self.cursor + self.micro), count)
        return permuted(places, passes, size=count, seed=seed_of(self.settings.seed, self.number - 1))

    def samples(self) -> str:
        """What a person may read of the present rollout: three of its prompts, an answer to each, what that came to.

        The number is what is learnt from: the sum of the rewards, with what an unfinished answer loses. "" where there
        is no rollout, as in a resumed run that will make its next one.
        """
        rollout = self.rollout
        if rollout is None:
            return ""
        shown = [
            f"{_short(_asked(prompt), end=True)}\n-> {_short(self._text(row))}  ({float(rollout.scores[row]):.3g})"
            for row, prompt in self._firsts()
        ]
        return "\n\n".join(shown)

    def _firsts(self) -> list[tuple[int, Prompt]]:
        """The first answer's number to each of the first prompts of the present rollout, with the prompt."""
        chosen = self._prompts(self.number - 1)[:SHOWN]
        return [(place * self.settings.group_size, self.asked.prompts[row]) for place, row in enumerate(chosen)]

    def _text(self, row: int) -> str:
        """An answer of the present rollout as a person reads it."""
        rollout, actors = self.rollout, self.actors
        assert rollout is not None
        prompt, answer = (
            part[row, : int(sizes[row])].tolist()
            for part, sizes in ((rollout.prompts, rollout.prompt_sizes), (rollout.answers, rollout.sizes))
        )
        closing = ending(actors.tokenizer, actors.template)
        return spoken(closing, prompt, answer, lead(actors.tokenizer, actors.template).strip())

    def state(self) -> dict[str, Any]:
        """The place: numbers and words; and, unless it is used up, the present rollout, as tensors by name."""
        place = {"number": self.number, "cursor": self.cursor, "price": self.price.value, **self._fixed()}
        if self.rollout is None or self.cursor >= self._drawn:
            return place
        tensors = {f"{OWN}{name}": value for name, value in self.rollout.tensors().items()}
        return place | {"notes": self.rollout.notes, **tensors}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on behind the last batch drawn when `state` was taken; raises CheckpointError where it does not fit.

        The size of a micro-batch may be another.
        """
        for name, here in self._fixed().items():
            if state.get(name) != here:
                raise CheckpointError(
                    f"the run was saved with {name} = {state.get(name)}, here it is {here}",
                    "resume with the prompts, template and settings of the run, or start a new one",
                )
        numbers = [state.get(name) for name in ("number", "cursor")]
        price = state.get("price")
        if not all(isinstance(value, int) and value >= 0 for value in numbers) or not isinstance(price, int | float):
            raise CheckpointError(
                f"the saved place in the rollouts is {numbers}, the price of distance {price!r}",
                "the state is damaged: use another one",
            )
        number, cursor = (int(value or 0) for value in numbers)
        rollout = None
        if number and cursor < self._drawn:
            tensors = {name.removeprefix(OWN): value for name, value in state.items() if name.startswith(OWN)}
            rollout = Rollout.of(tensors, state.get("notes", {}), count=self.settings.responses)
        self.number, self.cursor, self.rollout = number, cursor, rollout
        self.price = Coefficient(float(price), self.settings.kl_target)

    def _fixed(self) -> dict[str, Any]:
        """What a resumed run must agree in."""
        settings = self.settings
        found = (settings.seed, self.asked.fingerprint, settings.algorithm, settings.responses, settings.group_size,
                 settings.passes)  # fmt: skip
        return dict(zip(FIXED, found, strict=True))


def _check(actors: Actors, settings: Ppo, micro: int) -> None:
    for name, size in (("batch", settings.batch), ("micro_batch", micro), ("group", settings.group_size)):
        if settings.responses % size:
            raise SettingsError(
                f"{settings.responses} responses cannot be divided by {name} {size}",
                "choose a multiple of --batch and of --group for --responses",
            )
    if settings.algorithm == "ppo" and not hasattr(actors.policy, "values"):
        raise SettingsError(
            f"ppo needs a policy with values, and {type(actors.policy).__name__} has none",
            "put it into an ActorCritic, or choose --algorithm grpo",
        )


def _asked(prompt: Prompt) -> str:
    """The last thing that was said to the policy."""
    return str(messages_told(prompt.messages[-1:])[0]["content"]) if prompt.messages else ""


def _short(text: str, *, end: bool = False) -> str:
    """The beginning of a text, or its end, on one line.

    >>> _short("who  has\\nit?"), len(_short("a" * 999))
    ('who has it?', 200)
    """
    words = " ".join(text.split())
    if len(words) <= LONG:
        return words
    return "…" + words[1 - LONG :] if end else words[: LONG - 1] + "…"


class Examples:
    """What an epoch is, and batches of its usual size that cost what real ones do (batches.windows.Source).

    An epoch is every prompt answered `group` times, each answer learnt from `passes` times. The answers here are the
    longest there can be, of filler alone; nothing is written, no model is asked, no random number drawn.

    >>> from groundup.rollouts.prompts import Prompt
    >>> settings = Ppo(response_tokens=3, passes=2, algorithm="grpo", group=4)
    >>> examples = Examples(Prompts([Prompt(())] * 2, [[5, 6], [7]]), settings)
    >>> len(examples), examples.lengths[:2].tolist(), examples.batch(np.array([0, 1])).tokens.tolist()
    (16, [4, 3], [[5, 6, 0, 0], [7, 0, 0, 0]])
    """

    endless = False

    def __init__(self, asked: Prompts, settings: Ppo) -> None:
        self.asked, self.settings = asked, settings
        sizes = np.array([len(ids) for ids in asked.ids], dtype=np.int64)
        self.lengths: Numbers = np.resize(sizes + settings.response_tokens - 1, len(self))  # inputs of each row

    def __len__(self) -> int:
        return len(self.asked) * self.settings.group_size * self.settings.passes

    def batch(self, indices: Numbers) -> Batch:
        """Numbers (B,) -> a batch as `Rollouts` makes it, with advantages of 1."""
        asked = [self.asked.ids[int(index) % len(self.asked)] for index in indices]
        shape = (len(asked), self.settings.response_tokens)
        sizes = torch.tensor([len(ids) for ids in asked])
        prompts = torch.full((len(asked), int(sizes.max())), PAD)
        for row, ids in enumerate(asked):
            prompts[row, : len(ids)] = torch.tensor(ids)
        grpo = self.settings.algorithm == "grpo"
        more = ["ref_logp"] if grpo else ["old_values", "returns"]
        fields = {"advantage": torch.ones(shape)} | {name: torch.zeros(shape) for name in ("old_logp", *more)}
        answers = torch.full(shape, PAD)
        made = placed([prompts, answers], [sizes, torch.full((len(asked),), shape[1])], fields)
        if grpo:
            made.fields["kl_coefficient"] = torch.full((len(asked),), self.settings.kl)
        return made
