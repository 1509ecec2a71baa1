"""The figures of a run: the few numbers that stand at the top of its report and in a comparison.

In: `Run`. Out: `Figures`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from groundup.report.curves import smooth
from groundup.report.read import Run, number

ORDER = {"accuracy": "pairs in the right order", "margin": "margin"}
MARKS: dict[str, dict[str, str]] = {
    "reward": ORDER,
    "dpo": ORDER | {"drift": "drift, nats per answer"},
    "ppo": {"reward": "reward", "right": "exactly right", "length": "tokens an answer"},
}


@dataclass(frozen=True)
class Figures:
    """Losses in nats per token or pair, perplexity and bits per byte at the best evaluation; None: not measured.

    `train_loss` is the mean over the last thirtieth of the records: a single batch says little. `marks`: what else the
    best evaluation of a stage of preferences measured, in words; a run that learns from rewards has no losses.
    """

    run: Path
    model: str
    parameters: int | None
    adapters: int | None
    step: int
    planned: int | None
    tokens: int | None
    epochs: float | None
    train_loss: float | None
    validation_loss: float | None
    best_loss: float | None
    best_step: int | None
    perplexity: float | None
    bits_per_byte: float | None
    seconds: float | None
    tokens_per_second: float | None
    skipped: int
    marks: dict[str, float] = field(default_factory=dict)


def figures(run: Run) -> Figures:
    """Work out the figures of a run.

    >>> from groundup.report.read import Table
    >>> found = figures(Run(evaluations=Table([{"step": 5, "loss": 2.5}, {"step": 9, "loss": 2.75}])))
    >>> found.best_loss, found.best_step, found.validation_loss
    (2.5, 5, 2.75)
    """
    aimed = run.command == "ppo"  # its losses are no measure of anything
    losses, evaluated = (table.whole()[1][: 0 if aimed else None] for table in (run.train, run.evaluations))
    tokens, seconds = _last(run, "tokens"), _last(run, "seconds")
    best = best_evaluation(run)
    record = run.evaluations.records[best] if best is not None else {}
    return Figures(
        run=run.folder,
        model=model_name(run),
        parameters=run.parameters,
        adapters=run.adapters,
        step=run.step,
        planned=run.planned,
        tokens=None if tokens is None else int(tokens),
        epochs=tokens / run.epoch if tokens is not None and run.epoch else None,
        train_loss=float(losses[-max(1, len(losses) // 30) :].mean()) if len(losses) else None,
        validation_loss=float(evaluated[-1]) if len(evaluated) else None,
        best_loss=None if aimed else _known(record.get("loss")),
        best_step=record.get("step"),
        perplexity=_known(record.get("perplexity")),
        bits_per_byte=_known(record.get("bits_per_byte")),
        seconds=seconds,
        tokens_per_second=tokens / seconds if tokens and seconds else None,
        skipped=len(run.skipped),
        marks=_marks(run.command, record),
    )


def _marks(command: str, record: Mapping[str, Any]) -> dict[str, float]:
    """What an evaluation measured beside the loss, under names for a table.

    >>> _marks("dpo", {"loss": 0.6, "accuracy": 0.75, "margin": None})
    {'pairs in the right order': 0.75}
    """
    found = {words: number(record.get(name)) for name, words in MARKS.get(command, {}).items()}
    return {words: value for words, value in found.items() if np.isfinite(value)}


def best_evaluation(run: Run) -> int | None:
    """Index of the evaluation with the lowest loss; the one before training counts only if it is alone."""
    loss = run.evaluations.loss
    trained = np.where(run.evaluations.step > 0, loss, np.nan)
    chosen = trained if np.isfinite(trained).any() else loss
    return int(np.nanargmin(chosen)) if np.isfinite(chosen).any() else None


def outdated(run: Run) -> tuple[int, int] | None:
    """The step of the weights that test.json tells of, and that of the weights now, where a run went on after its test.

    >>> from groundup.report.read import Table
    >>> outdated(Run(test={"model": "model", "step": 10}, train=Table([{"step": 20}])))
    (10, 20)
    """
    tested, kept = number(run.test.get("step")), run.test.get("model")
    best = best_evaluation(run) if kept == "best" else None
    now = run.step if kept == "model" else 0 if best is None else int(run.evaluations.step[best])
    return (int(tested), now) if now and np.isfinite(tested) and tested != now else None


def train_curve(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Steps (n,) and smoothed training loss (n,) of the records that have one."""
    steps, losses = run.train.whole()
    return steps, smooth(losses)


def model_name(run: Run) -> str:
    """The model in a few words, from what the run kept.

    >>> model_name(Run(settings={"size": "10m", "family": "gpt2", "layers": 6, "width": 384}))
    'gpt2, size 10m, 6 layers, width 384'
    """
    config, settings = run.config, run.settings
    parts = [str(config.get("model_type") or settings.get("family") or "")]
    layers = number(config.get("num_hidden_layers", config.get("n_layer", settings.get("layers"))))
    width = number(config.get("hidden_size", config.get("n_embd", settings.get("width"))))
    heads = number(config.get("num_attention_heads", config.get("n_head", settings.get("heads"))))
    context = number(config.get("max_position_embeddings", settings.get("context")))
    parts += [f"size {settings['size']}"] if settings.get("size") and not config else []
    named = (("{:.0f} layers", layers), ("width {:,.0f}", width), ("{:.0f} heads", heads), ("context {:,.0f}", context))
    parts += [form.format(value) for form, value in named if value > 0]
    return ", ".join(part for part in parts if part)


def _last(run: Run, name: str) -> float | None:
    _, values = run.train.whole(name)
    return float(values[-1]) if len(values) else None


def _known(value: object) -> float | None:
    found = number(value)
    return found if np.isfinite(found) else None
