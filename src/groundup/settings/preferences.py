"""Settings of the stages that learn from preferences and rewards, and of the commands that use what they made.

In: flags, TOML. Out: `Reward`, `Dpo`, `Ppo`; `Score`, `Compare`.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

from groundup.settings.base import Device, Dtype, Positive, Settings, knob
from groundup.settings.training import Settled, Training
from groundup.settings.tuning import MODEL, RATES, Tuning

CAREFULLY = 0.01  # share of a new network's rate with which a policy is moved: more, and it forgets how to speak
PAIRS = (
    "JSON or JSONL: prompt/chosen/rejected, instruction/input/chosen/rejected, prompt/response_1/response_2/preferred, "
    "or HH-RLHF's transcripts; or a name: instruction-preference, hh-rlhf, harbor-pairs[:COUNT[:SEED]], "
    "harbor-reworded-pairs"
)
TEMPLATE = "how a conversation is written: alpaca, phi3, chatml, a .jinja file; auto: the model's own, else alpaca"


class Reward(Tuning):
    """Teach a model to score answers, from pairs of which one is preferred."""

    data: list[str] = knob(["harbor-pairs"], PAIRS, group="Text")
    template: str = knob("auto", TEMPLATE, group="Text")
    margins: bool = knob(False, "ask for the distance that the data give a pair, not only for its order", group="Text")
    normalise: bool = knob(
        True,
        "keep mean and spread of the training scores with the model: groundup score and ppo use them",
        group="Training",
    )
    epochs: float | None = knob(None, "passes over the pairs; 1 if no budget is given", group="Training", gt=0)
    batching: Literal["bucketed", "padded"] = knob(
        "bucketed", "bucketed: pairs of like length together; padded: in any order", group="Batches"
    )
    batch: Positive = knob(8, "pairs per step, over all ranks", group="Batches")

    command: ClassVar[str] = "reward"
    usual_epochs: ClassVar[float | None] = 1

    def settle(self, **decided: Any) -> "DecidedReward":
        """The same settings with nothing left open."""
        return DecidedReward.create(**self.model_dump() | decided)


class Dpo(Tuning):
    """Move a model towards the preferred answers of pairs, without a reward model."""

    data: list[str] = knob(["harbor-pairs"], PAIRS, group="Text")
    template: str = knob("auto", TEMPLATE, group="Text")
    reference: str = knob("", "the model to stay near; by default the one that is tuned, as it was", group="Model")
    loss: Literal["sigmoid", "ipo", "hinge", "simpo", "orpo"] = knob(
        "sigmoid", "sigmoid is DPO's own; simpo and orpo need no reference", group="Training"
    )
    beta: float = knob(
        0.1,
        "how much a change of log-probability counts: small lets the model go far; simpo wants about 2",
        group="Training",
        gt=0,
    )
    smoothing: float = knob(0.0, "sigmoid: share of the pairs whose order may be wrong", group="Training", ge=0, lt=0.5)
    average: bool = knob(
        False,
        "log-probabilities of an answer per token, so that length does not count; simpo and orpo do so anyway",
        group="Training",
    )
    gamma: float = knob(0.5, "simpo: the distance that is asked for", group="Training", ge=0)
    epochs: float | None = knob(None, "passes over the pairs; 1 if no budget is given", group="Training", gt=0)
    batching: Literal["bucketed", "padded"] = knob(
        "bucketed", "bucketed: pairs of like length together; padded: in any order", group="Batches"
    )
    batch: Positive = knob(8, "pairs per step, over all ranks", group="Batches")
    sample_tokens: Positive = knob(100, "length of the samples", group="Watching")

    may_change_on_resume: ClassVar[frozenset[str]] = Training.may_change_on_resume | {"sample_tokens"}
    command: ClassVar[str] = "dpo"
    usual_epochs: ClassVar[float | None] = 1

    @property
    def share_of_rate(self) -> float:
        """Share of a new network's learning rate that is the default."""
        return CAREFULLY * RATES[self.train]

    def settle(self, **decided: Any) -> "DecidedDpo":
        """The same settings with nothing left open."""
        return DecidedDpo.create(**self.model_dump() | decided)


class Ppo(Tuning):
    """Let a model answer, score the answers, and make the better ones likelier."""

    data: list[str] = knob(
        ["harbor-questions"],
        "prompts, as for groundup instruct, or harbor-reworded[:COUNT[:SEED]]: the last answer of each is what a "
        "reward may compare with",
        group="Text",
    )
    template: str = knob("auto", TEMPLATE, group="Text")
    validation: float = knob(0.05, "share of the prompts kept for validation", group="Text", gt=0, lt=1)
    test: float = knob(0.0, "share of the prompts kept for the test at the end", group="Text", ge=0, lt=1)
    reference: str = knob("", "the model to stay near; by default the one that is tuned, as it was", group="Model")
    algorithm: Literal["ppo", "grpo"] = knob(
        "ppo", "grpo: answers to one prompt are compared with each other, no value head", group="Training"
    )
    reward: list[str] = knob(
        ["exact"],
        "exact, contains, regex:PATTERN, length:TOKENS, harbor, FILE.py:FUNCTION, or a run of groundup reward; "
        "WEIGHT*REWARD counts it so often; several are added up",
        group="Training",
    )
    kl: float = knob(0.05, "what a nat of distance to the reference costs", group="Training", ge=0)
    kl_target: float | None = knob(
        None, "nats per answer: the cost of distance is raised above and lowered below", group="Training", gt=0
    )
    unfinished: float = knob(1.0, "taken off an answer that did not come to its end", group="Training", ge=0)
    responses: Positive = knob(64, "answers of a rollout", group="Batches")
    group: Positive | None = knob(None, "answers to each prompt; 1, or 8 for grpo", group="Batches")
    passes: Positive = knob(4, "times that each rollout is learnt from", group="Batches")
    batch: Positive = knob(16, "answers per step, over all ranks", group="Batches")
    batching: Literal["padded"] = knob("padded", "answers are filled up to the longest of the batch", group="Batches")
    response_tokens: Positive = knob(
        64, "tokens of an answer at most; groundup compare should get the same --max-tokens", group="Batches"
    )
    temperature: float = knob(1.0, "of the answers that are learnt from", group="Batches", gt=0)
    clip_ratio: float = knob(0.2, "a probability may change by this factor in one rollout", group="Training", gt=0)
    value_clip: float = knob(0.2, "ppo: a value may change by so much in one rollout", group="Training", gt=0)
    value_weight: float = knob(0.1, "ppo: how much the loss of the values counts", group="Training", ge=0)
    entropy_weight: float = knob(0.0, "what a nat of entropy per token is worth", group="Training", ge=0)
    gamma: float = knob(1.0, "a reward one token later is worth so much", group="Training", gt=0, le=1)
    lam: float = knob(
        0.95, "lambda of the advantage estimate: 1 trusts rewards, 0 values", group="Training", ge=0, le=1
    )
    whiten: bool = knob(True, "advantages of a rollout get mean 0 and spread 1", group="Training")
    epochs: float | None = knob(None, "passes over the prompts; 1 if no budget is given", group="Training", gt=0)

    command: ClassVar[str] = "ppo"
    usual_epochs: ClassVar[float | None] = 1

    @property
    def share_of_rate(self) -> float:
        """Share of a new network's learning rate that is the default."""
        return CAREFULLY * RATES[self.train]

    @property
    def group_size(self) -> int:
        """Answers to each prompt.

        >>> Ppo().group_size, Ppo(algorithm="grpo").group_size
        (1, 8)
        """
        return self.group or (8 if self.algorithm == "grpo" else 1)

    def settle(self, **decided: Any) -> "DecidedPpo":
        """The same settings with nothing left open."""
        return DecidedPpo.create(**self.model_dump() | decided)


class DecidedReward(Settled, Reward):
    """A reward model with nothing left open."""

    context: Positive


class DecidedDpo(Settled, Dpo):
    """Preference tuning with nothing left open."""

    context: Positive


class DecidedPpo(Settled, Ppo):
    """Learning from rewards with nothing left open."""

    context: Positive


class Score(Settings):
    """Score answers with a reward model: higher is better."""

    model: str = knob("", "run of groundup reward, its best/, or the folder of a reward model", positional=True)
    prompt: str | None = knob(None, "the question")
    response: str | None = knob(None, "its answer; - reads standard input", stdin=True)
    file: Path | None = knob(
        None, "conversations or answers (as of groundup respond), .json or .jsonl; or pairs, and which is better"
    )
    template: str = knob("auto", "alpaca, phi3, chatml, a .jinja file; auto: the model's own")
    raw: bool = knob(False, "scores as the network gives them, mean and spread of its training not taken off")
    batch: Positive = knob(16, "answers per forward pass")
    out: Path | None = knob(None, "write one JSON object a line here; - writes them out", stdin=True)
    device: Device = knob("auto", "where to compute")
    dtype: Dtype = knob("auto", "bf16 where the hardware has it, else fp32")
    threads: Positive | None = knob(None, "CPU threads; by default all cores")


class Compare(Settings):
    """Let two models or more answer the same prompts, and say which is better."""

    models: list[str] = knob([], f"two or more; the others are compared with the first: {MODEL}", positional=True)
    data: list[str] = knob(
        ["harbor-questions:100:7"], "prompts, as for groundup instruct; the last answer of each is the reference"
    )
    reward: list[str] = knob([], "what scores the answers, as for groundup ppo: exact, harbor ..., a reward model")
    judge: str = knob("", "or a judge, as for groundup judge: ollama:MODEL, an address, a model of ours")
    judge_name: str = knob("", "the model that an OpenAI-compatible server is asked for")
    human: bool = knob(False, "or you: answers side by side, in random order, without names")
    template: str = knob("auto", "alpaca, phi3, chatml, a .jinja file; auto: the models' own")
    limit: Positive | None = knob(None, "only the first so many prompts")
    max_tokens: Positive = knob(256, "tokens of an answer at most")
    temperature: float = knob(0.0, "0 is greedy; below 1 safer, above 1 wilder", ge=0)
    top_p: float = knob(1.0, "keep the smallest set of tokens with this probability", gt=0, le=1)
    seed: int = knob(123, "same seed, same answers and the same order of sides", ge=0, lt=2**63)
    batch: Positive = knob(16, "answers written side by side")
    kl: bool = knob(
        True, "how far each model went from the first, in nats per answer: takes one more answer to each prompt"
    )
    out: Path | None = knob(
        None,
        "folder for answers, scores, votes and the page, by default runs/compare-A-B; a comparison goes on there",
    )
    timeout: float = knob(120.0, "seconds to wait for a judge", gt=0)
    api_key_env: str = knob("", "environment variable that holds a judge's key")
    device: Device = knob("auto", "where to compute")
    dtype: Literal["auto", "fp32", "bf16", "int8"] = knob("auto", "auto: as stored in the folder")
    threads: Positive | None = knob(None, "CPU threads; by default all cores")
