"""The answers of one rollout with all that is learnt from them, as tensors that a checkpoint can keep.

In: what was written, scored and measured (collect.py). Out: `Rollout`, of which `batch` makes batches for
`losses.policy`. Answers begin in column 0, each behind the prompt that stands in a tensor of its own, so that nothing
here depends on who is put into a batch with whom.

Shapes: R answers, L tokens of the longest prompt, N tokens of the longest answer; B rows and T places of a batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from groundup.batches.batch import Batch
from groundup.batches.windows import Numbers
from groundup.errors import CheckpointError

PAD = 0  # fills rows up: nothing learns it or looks at it, so that any id would do
IN_BATCH = {
    "logp": "old_logp", "ref_logp": "ref_logp", "values": "old_values", "advantages": "advantage", "returns": "returns",
}  # fmt: skip


@dataclass(frozen=True)
class Rollout:
    """R answers; what stands behind the end of one is 0 everywhere.

    prompts (R, L), answers (R, N): ids. prompt_sizes, sizes (R,): how many of them are real; the id that ended an
    answer counts. ended (R,) bool. scores (R,): rewards, with what an unfinished answer loses. logp (R, N): log p of
    each id under the policy that wrote it. advantages (R, N). PPO: values, returns (R, N), what the policy expected
    and what it should have. GRPO: ref_logp (R, N), log p under the reference.
    notes: figures for the journal.
    """

    prompts: Tensor
    prompt_sizes: Tensor
    answers: Tensor
    sizes: Tensor
    ended: Tensor
    scores: Tensor
    logp: Tensor
    advantages: Tensor
    notes: dict[str, float]
    ref_logp: Tensor | None = None
    values: Tensor | None = None
    returns: Tensor | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def mask(self) -> Tensor:
        """Which places (R, N) hold an id of an answer: 1.0, else 0.0."""
        return mask_of(self.sizes, self.answers.shape[1])

    def batch(self, rows: Numbers) -> Batch:
        """Answers by number (B,) -> a batch: prompt and answer of each, filled up on the right; count = ids written.

        Every number of an answer's id stands where that id is the target. `notes` go with it.
        """
        index = torch.from_numpy(rows)
        each = {name: value[index] for own, name in IN_BATCH.items() if (value := getattr(self, own)) is not None}
        made = placed([self.prompts[index], self.answers[index]], [self.prompt_sizes[index], self.sizes[index]], each)
        if self.ref_logp is not None:
            made.fields["kl_coefficient"] = torch.full((len(index),), self.notes["kl_coefficient"])
        made.notes = dict(self.notes)
        return made

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {each.name: value for each in fields(self) if isinstance(value := getattr(self, each.name), Tensor)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], notes: Mapping[str, float], *, count: int) -> "Rollout":
        """What `tensors` gave; raises CheckpointError where it is not a whole rollout of `count` answers."""
        names = {each.name for each in fields(cls)} - {"notes"}
        needed = names - {"ref_logp", "values", "returns"}
        kept = {name: value for name, value in tensors.items() if name in names}
        short = [name for name in sorted(needed) if name not in kept or len(kept[name]) != count]
        shapes = {tuple(kept[name].shape) for name in (*IN_BATCH, "answers") if name in kept}
        if short or len(shapes) != 1:
            raise CheckpointError(
                f"the answers of the saved rollout are not whole: {', '.join(short) or f'shapes {sorted(shapes)}'}",
                "the state is damaged: use another one",
            )
        return cls(**kept, notes=dict(notes))


def mask_of(sizes: Tensor, columns: int) -> Tensor:
    """1.0 in the first sizes[i] of so many columns, else 0.0: (R,) -> (R, columns).

    >>> mask_of(torch.tensor([2, 0]), 3)
    tensor([[1., 1., 0.],
            [0., 0., 0.]])
    """
    return (torch.arange(columns) < sizes[:, None]).float()


def placed(ids: list[Tensor], sizes: list[Tensor], each: Mapping[str, Tensor]) -> Batch:
    """Prompts (B, L) and answers (B, N) of so many ids (B,) as a batch, with numbers for every id of an answer (B, N).

    Targets are the ids one place later; the id number j of an answer behind a prompt of p ids is the target at place
    p + j - 1, and there its numbers stand.

    >>> ids, sizes = [torch.tensor([[5, 6], [7, 0]]), torch.tensor([[8, 9], [4, 0]])], [torch.tensor([2, 1])] * 2
    >>> made = placed(ids, sizes, {"old_logp": torch.tensor([[-1.0, -2.0], [-3.0, 0.0]])})
    >>> made.tokens.tolist(), made.fields["targets"].tolist(), made.count
    ([[5, 6, 8], [7, 4, 0]], [[6, 8, 9], [4, 0, 0]], 3.0)
    >>> made.fields["old_logp"].tolist()
    [[0.0, -1.0, -2.0], [-3.0, 0.0, 0.0]]
    """
    (prompts, answers), (first, more) = ids, sizes
    whole = int((first + more).max())
    rows = torch.full((len(first), whole), PAD, dtype=torch.int64)  # (B, T + 1)
    asked, written = (mask_of(size, part.shape[1]).bool() for size, part in ((first, prompts), (more, answers)))
    rows[mask_of(first, whole).bool()] = prompts[asked]
    places = torch.arange(whole)
    behind = (places >= first[:, None]) & (places < (first + more)[:, None])  # (B, T + 1): ids of answers
    rows[behind] = answers[written]
    spots = behind[:, 1:]  # (B, T): where they are targets
    made = {"targets": rows[:, 1:], "weight": spots.float()}
    for name, values in each.items():
        made[name] = torch.zeros(spots.shape, dtype=values.dtype)
        made[name][spots] = values[written]
    return Batch(rows[:, :-1], float(more.sum()), made, int((first + more).sum()) - len(first))
