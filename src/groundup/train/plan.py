"""What a run will do and cost, worked out before it starts.

In: settings, the size of the data, the model, the machine. Out: `Plan`, in whole steps, and `Preflight`, in bytes and
seconds.
"""

from dataclasses import dataclass

from torch import nn

from groundup.errors import SettingsError
from groundup.model import config_of
from groundup.model.config import BigramConfig, ModelConfig, count_parameters
from groundup.optim import Schedule
from groundup.settings import Settled, Training


@dataclass(frozen=True)
class Plan:
    """Whole numbers of a run: steps in all, micro-batches a step and their size, when to look, when to save."""

    steps: int
    micro_batch: int
    accumulate: int
    schedule: Schedule
    tokens_per_step: int
    epochs: float
    eval_every: int
    sample_every: int
    log_every: int
    save_steps: int  # 0: by time
    save_seconds: float  # 0: by steps


@dataclass(frozen=True)
class Preflight:
    """The cost of a run: parameters, tokens, bytes wanted and free, and seconds (measured on one micro-batch).

    filler: share of the places in a batch that hold no token; trained: parameters that learn. uncounted: what time and
    memory leave out, or "".
    """

    parameters: int
    parameters_without_embeddings: int
    vocabulary: int
    context: int
    training_tokens: int
    validation_tokens: int
    steps: int
    tokens_per_step: int
    epochs: float
    memory_bytes: int
    memory_free: int
    seconds: float
    compiled: bool = False
    trained: int = 0
    sampling: str = "windows"
    filler: float = 0.0
    uncounted: str = ""


def resolve(settings: Training, *, windows: int, config: ModelConfig | BigramConfig) -> Settled:
    """Decide what the settings leave open, once; the result is written into the run folder and used on resume.

    windows: training rows an epoch. A budget in tokens or epochs becomes steps.
    """
    context, width = settings.context or config.context, config.width if isinstance(config, ModelConfig) else 128
    steps = settings.steps or _steps(settings, windows, context)
    eval_every = settings.eval_every or max(1, steps // 10)
    decided = {
        "steps": steps,
        **{name: None for name in settings.budgets if name not in ("steps", "minutes")},
        "micro_batch": settings.micro_batch or settings.batch,
        "lr": settings.lr or default_lr(width) * settings.share_of_rate,
        "warmup": min(steps // 20, 200) if settings.warmup is None else settings.warmup,
        "eval_every": eval_every,
        "sample_every": eval_every if settings.sample_every is None else settings.sample_every,
        "log_every": settings.log_every or (1 if steps <= 2000 else 10),
        "context": context,
    }
    return settings.settle(**decided)


def _steps(settings: Training, windows: int, context: int) -> int:
    """The steps that a budget in tokens or epochs comes to, or those of no budget at all."""
    if tokens := getattr(settings, "tokens", None):
        return -(-int(tokens) // (settings.batch * context))
    if epochs := settings.epochs or settings.usual_epochs:
        return max(1, round(epochs * windows / settings.batch))
    return 1000


def check_budget(settings: Training) -> None:
    """Refuse two budgets at once; the minutes of a resumed run were turned into steps when it began."""
    names = [name for name in settings.budgets if not (settings.resume and name == "minutes")]
    chosen = [name for name in names if getattr(settings, name) is not None]
    if len(chosen) > 1:
        budgets = ", ".join(f"--{name}" for name in settings.budgets)
        raise SettingsError(f"--{' and --'.join(chosen)} are both a budget", f"give one of {budgets}")


def default_lr(width: int) -> float:
    """Peak learning rate: 3e-3 up to width 128, then falling with the width (1e-3 at 384, 5e-4 at 768).

    Optimal rates of Adam fall about as 1/width (Yang et al. 2022, "Tensor Programs V", section 3).
    """
    return round(min(3e-3, 0.384 / width), 6)


def make(settings: Settled, *, windows: int, row: float | None = None) -> Plan:
    """Turn resolved settings into a plan; raises SettingsError where the batch cannot be split as asked.

    row: tokens of a row on average, filler not counted; None: as many as the context.
    """
    if settings.batch % settings.micro_batch:
        raise SettingsError(
            f"batch {settings.batch} is not a multiple of micro_batch {settings.micro_batch}",
            "choose a divisor of --batch",
        )
    seconds, steps = parse_span(settings.save_every)
    schedule = Schedule(
        peak=settings.lr,
        steps=settings.steps,
        warmup=settings.warmup,
        min_lr=settings.lr * settings.min_lr,
        decay=settings.decay if settings.schedule == "wsd" else None,
    )
    return Plan(
        steps=settings.steps,
        micro_batch=settings.micro_batch,
        accumulate=settings.batch // settings.micro_batch,
        schedule=schedule,
        tokens_per_step=round(settings.batch * (settings.context if row is None else row)),
        epochs=settings.steps * settings.batch / windows,
        eval_every=settings.eval_every,
        sample_every=settings.sample_every,
        log_every=settings.log_every,
        save_steps=steps,
        save_seconds=seconds,
    )


def parse_span(text: str) -> tuple[float, int]:
    """(seconds, 0) for a time, (0, steps) for a number of steps.

    >>> parse_span("2m"), parse_span("500")
    ((120.0, 0), (0.0, 500))
    """
    if text[-1] in "smh":
        seconds = float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]
        return seconds, 0
    if float(text) != int(float(text)) or float(text) < 1:
        raise SettingsError(f"save_every is {text!r}", "give whole steps ('500') or a time ('90s', '2m', '1h')")
    return 0.0, int(float(text))


def preflight(
    model: nn.Module,
    plan: Plan,
    *,
    data: tuple[int, int],
    memory: tuple[int, int],
    seconds: float,
    compiled: bool,
) -> Preflight:
    """Gather the figures of a run.

    data: tokens for training and for validation; memory: bytes wanted and free, from `memory.check`; seconds: of all
    its micro-batches together.
    """
    config = config_of(model)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total, body = sum(parameter.numel() for parameter in model.parameters()), count_parameters(config).body
    return Preflight(total, body, config.vocabulary, config.context, *data, plan.steps,
                     plan.tokens_per_step, plan.epochs, *memory, seconds, compiled, trained)  # fmt: skip
