"""The loss of a policy that learns from its own answers: PPO with a value head, GRPO without.

In: a model and a batch of answers that an earlier state of it gave, with what each token was worth. Out: a sum over the
tokens of the answers. An answer is used several times while the model moves on; the ratio of new to old probability
makes up for that, and clipping ends the move where the old answers would no longer be typical of the model.

Shapes: B answers, T time, N tokens of answers.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from groundup.batches.batch import Batch
from groundup.errors import DataError, ModelError, SettingsError
from groundup.losses.divergence import k3
from groundup.losses.language import Loss
from groundup.losses.log_probability import log_probabilities

FARTHEST = 20.0  # nats by which a reference may like a token better before it makes no more difference

Numbers = dict[str, Tensor]


def clipped_objective(ratio: Tensor, advantage: Tensor, clip_ratio: float) -> Tensor:
    """min(r A, clip(r, 1 - e, 1 + e) A), to be made large (Schulman et al. 2017, "PPO", equation 7).

    A good token gains nothing from becoming likelier than 1 + e times what it was, a bad one nothing from falling below
    1 - e times: there the gradient is 0. What went the wrong way is not held back.

    >>> ratio, advantage = torch.tensor([1.5, 1.5, 0.5, 0.5]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    >>> clipped_objective(ratio, advantage, 0.2)
    tensor([ 1.2000, -1.5000,  0.5000, -0.8000])
    """
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip_ratio, 1 + clip_ratio) * advantage)


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, value_clip: float) -> Tensor:
    """max((V - R)^2, (V' - R)^2) / 2, with V' no further than `value_clip` from the old value.

    As in the first program for PPO (OpenAI baselines, ppo2; Engstrom et al. 2020): a value that has moved by
    more than that towards its return learns nothing until the next answers.

    >>> clipped_value_loss(torch.tensor([0.1, 0.5]), torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0]), 0.2)
    tensor([0.4050, 0.3200])
    """
    near = old_values + (values - old_values).clamp(-value_clip, value_clip)
    return torch.maximum((values - returns).square(), (near - returns).square()) / 2


def policy(
    *,
    clip_ratio: float,
    value_clip: float,
    value_weight: float,
    entropy_weight: float,
    kl: float,
    temperature: float = 1.0,
) -> Loss:
    """The loss on batches of a rollout: a sum over tokens, and numbers that are sums over tokens.

    For each token that the model wrote: -clipped_objective + value_weight clipped_value_loss - entropy_weight entropy +
    kl k3(log-ratio to the reference). The second part is there where the batch has returns, the last where it has
    ref_logp and a price above 0: PPO has that distance in its rewards already, GRPO has it here (Shao et al. 2024,
    equation 3, which takes the mean of each answer first; here every token of a step counts the same). Probabilities
    are those at the temperature at which the answers were drawn.

    Reads the fields targets (B, T); weight (B, T), 1 on the tokens that the model wrote; old_logp, advantage (B, T);
    with a value head returns, old_values (B, T); ref_logp (B, T) or none; kl_coefficient (B,) in place of `kl`, or
    none. What stands where the weight is 0 is never looked at. `batch.count` is the sum of weight.

    Numbers, per token once divided by `batch.count`: policy_loss, entropy, clip_fraction (tokens that clipping keeps
    from learning), ratio_kl (k3 of old to new: how far the model went from the one that answered); with a reference
    reference_kl (k3); with returns value_loss, returns, returns2, value_error, value_error2 (return minus value, and
    squares): 1 - (value_error2 - value_error^2) / (returns2 - returns^2) is the explained variance of the values.

    Raises SettingsError for numbers out of range, DataError for fields that do not fit, ModelError for returns without
    a value head.

    >>> from groundup.batches import Batch
    >>> even = lambda tokens: torch.zeros(*tokens.shape, 2)  # a model without a clue: every id has p = 1/2
    >>> half, one = torch.full((1, 1), -0.6931472), torch.ones(1, 1)
    >>> batch = Batch(one.long(), 1.0, {"targets": one.long(), "weight": one, "old_logp": half, "advantage": 3 * one})
    >>> total, numbers = policy(clip_ratio=0.2, value_clip=0.2, value_weight=0.1, entropy_weight=0, kl=0)(even, batch)
    >>> total, numbers["entropy"]  # the ratio is 1: -A
    (tensor(-3.), tensor(0.6931))
    """
    _check(clip_ratio=clip_ratio, value_clip=value_clip)
    _check(value_weight=value_weight, entropy_weight=entropy_weight, kl=kl)

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Numbers]:
        there, at = _at_tokens(batch)
        found = log_probabilities(model, batch, temperature=temperature, entropy=True)
        logp, entropy = found.logp[there], cast(Tensor, found.entropy)[there]
        numbers = {"entropy": entropy} | _policy_part(logp, at, clip_ratio)
        each = numbers["policy_loss"]
        if entropy_weight:  # else its gradient is not even made
            each = each - entropy_weight * entropy
        if "returns" in at:
            numbers |= _value_part(_values(model, found.states, there), at, value_clip)
            each = each + value_weight * numbers["value_loss"]
        if "ref_logp" in at:
            numbers["reference_kl"] = _bounded_k3(logp - at["ref_logp"])
            price = at.get("kl_coefficient", kl)
            if torch.as_tensor(price).any():  # else its gradient is not even made
                each = each + price * numbers["reference_kl"]
        weight = at["weight"]
        return (each * weight).sum(), {name: (number.detach() * weight).sum() for name, number in numbers.items()}

    return loss


def _policy_part(logp: Tensor, at: Numbers, clip_ratio: float) -> Numbers:
    """Numbers for each token (N,), among them what the policy is to lose."""
    change, advantage = logp - at["old_logp"], at["advantage"]
    ratio = change.exp()
    lost = -clipped_objective(ratio, advantage, clip_ratio)
    held = (ratio > 1 + clip_ratio) & (advantage > 0) | (ratio < 1 - clip_ratio) & (advantage < 0)
    return {"policy_loss": lost, "clip_fraction": held.float(), "ratio_kl": _bounded_k3(-change)}


def _bounded_k3(log_ratio: Tensor) -> Tensor:
    """k3 as a number that fp32 has, for any log-ratio: below -FARTHEST it stays, and has no slope."""
    return k3(log_ratio.clamp(min=-FARTHEST))


def _value_part(values: Tensor, at: Numbers, value_clip: float) -> Numbers:
    """Numbers for each token (N,), among them what the values are to lose."""
    returns = at["returns"]
    lost, error = clipped_value_loss(values, at["old_values"], returns, value_clip), returns - values
    sums = {"returns": returns, "returns2": returns.square(), "value_error": error, "value_error2": error.square()}
    return {"value_loss": lost} | sums


def _values(model: nn.Module, states: Tensor, there: Tensor) -> Tensor:
    """What the value head says at the places `there` (B, T) -> (N,)."""
    if not hasattr(model, "values"):
        raise ModelError(
            f"the batch has returns, and a {type(model).__name__} has no value head",
            "put the policy into an ActorCritic, or compare answers of a group (--algorithm grpo)",
        )
    values: Tensor = model.values(states)  # type: ignore[operator]  # a module's attributes have no type
    if values.shape != there.shape:
        raise ModelError(
            f"the value head answers {tuple(values.shape)} to places {tuple(there.shape)}", "it gives one for each"
        )
    return values[there]


def _at_tokens(batch: Batch) -> tuple[Tensor, Numbers]:
    """Where the answers stand (B, T), and the fields there (N,); raises DataError for what is missing or misfits."""
    names = ["weight", "old_logp", "advantage"] + ["returns", "old_values"] * ("returns" in batch.fields)
    absent = [name for name in ("targets", *names) if name not in batch.fields]
    if absent:
        raise DataError(
            f"a batch of answers has no field {absent[0]}", f"it needs targets, {', '.join(names)} for each token"
        )
    found = {name: batch.fields[name] for name in (*names, "ref_logp") if name in batch.fields}
    shape = batch.fields["targets"].shape
    coefficient = batch.fields.get("kl_coefficient")
    if coefficient is not None and coefficient.shape == shape[:1]:
        found["kl_coefficient"] = coefficient[:, None].expand(shape)  # (B,) -> (B, T)
    elif coefficient is not None:
        raise DataError(
            f"kl_coefficient has shape {tuple(coefficient.shape)} for {shape[0]} answers", "give one for each answer"
        )
    for name, field in found.items():
        if field.shape != shape:
            raise DataError(
                f"{name} has shape {tuple(field.shape)}, targets {tuple(shape)}", "give one number for each target"
            )
    there = found["weight"] != 0
    return there, {name: field[there] for name, field in found.items()}  # (B, T) -> (N,)


def _check(**numbers: float) -> None:
    """Raise SettingsError for numbers below 0, and for clips that are 0."""
    for name, number in numbers.items():
        clips = "clip" in name
        if not 0 <= number < math.inf or (clips and number == 0):
            raise SettingsError(f"{name} is {number}", f"it must be {'above 0' if clips else '0 or more'}")
