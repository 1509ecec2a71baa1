"""A reward that another model gives: a run of `groundup reward`, or any folder with a reward model.

In: the folder. Out: a reward function. The reward model reads an answer as text, in its own template and with its own
tokenizer (evaluate/scoring.py), so that it need not have those of the policy; what its tokenizer cannot express it
cannot score, and that is said. Its scores come with mean 0 and spread 1 on the answers it was trained with.
"""

from collections.abc import Sequence

from groundup import machine as machines
from groundup.errors import DataError, TokenizerError
from groundup.evaluate import scoring
from groundup.machine import Machine
from groundup.rollouts.prompts import Answer, RewardFunction
from groundup.text.conversations import Conversation


def load(path: str, *, machine: Machine | None = None, batch: int = 16) -> RewardFunction:
    """The scores of the reward model in a folder, `batch` answers at a time.

    Raises CheckpointError for a folder with another kind of model, SettingsError for one without a template. The reward
    raises DataError for an answer that the model cannot read, naming the prompt.

    >>> load("runs/reward")([Answer(prompt, "Mira has it.", ids, True)])  # doctest: +SKIP
    [0.83]
    """
    machine = machines.choose() if machine is None else machine
    found = scoring.opened(path, machine=machine)

    def scores(answers: Sequence[Answer]) -> list[float]:
        try:
            return scoring.scores(
                found.model, found.tokenizer, found.template, [_talk(each) for each in answers],
                machine=machine, batch=batch,
            )  # fmt: skip
        except (DataError, TokenizerError) as error:
            raise DataError(
                f"the reward model {path} cannot read an answer. {error.what}",
                f"{error.fix}; or take a reward model that was made from the model that is tuned",
            ) from None

    return scores


def _talk(answer: Answer) -> Conversation:
    """Prompt and answer as the conversation that is scored."""
    said = {"role": "assistant", "content": answer.text}
    return Conversation((*answer.prompt.messages, said), answer.prompt.place)
