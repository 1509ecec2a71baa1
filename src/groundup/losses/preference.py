"""Losses of preference tuning: the chosen answer of a pair is to become likelier than the rejected one.

In: for each pair a number of its chosen and one of its rejected answer (B,). Out: a loss for each pair (B,). The five
differ in what the number is, and in how much is enough:

    sigmoid  DPO   log-ratio to the reference    -log sigmoid(beta difference)
    ipo            log-ratio to the reference    (difference - 1 / (2 beta))^2
    hinge    SLiC  log-ratio to the reference    max(0, 1 - beta difference)
    simpo          log-probability per token     -log sigmoid(beta difference - gamma)
    orpo           log-probability per token     -chosen - beta log sigmoid(difference of log-odds)

The log-ratio is log p(answer) of the model minus that of the reference, the frozen model from which tuning set out.
`preference` makes one of them a `Loss` on batches of pairs. Shapes: B pairs, T time.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.batches.batch import Batch
from groundup.errors import DataError, SettingsError, nearest
from groundup.losses.language import Loss
from groundup.losses.log_probability import log_probabilities
from groundup.losses.ranking import pairs, right

KINDS = ("sigmoid", "ipo", "hinge", "simpo", "orpo")
WITHOUT_REFERENCE = ("simpo", "orpo")


def sigmoid(chosen: Tensor, rejected: Tensor, *, beta: float, smoothing: float = 0.0) -> Tensor:
    """-log sigmoid(beta (chosen - rejected)) (B,) of log-ratios (B,) (Rafailov et al. 2023, "DPO", equation 7).

    smoothing: the chance e that a pair was labelled the wrong way round; the loss is then (1 - e) times this plus e
    times that of the pair turned round, so that no pair asks for certainty (Mitchell 2023, "A note on DPO with
    noisy preferences").

    >>> sigmoid(torch.tensor([0.0, 5.0]), torch.tensor([0.0, -5.0]), beta=0.1)  # ln 2 at the start; ln(1 + e^-1)
    tensor([0.6931, 0.3133])
    """
    ahead = beta * (chosen - rejected)
    return (1 - smoothing) * F.softplus(-ahead) + smoothing * F.softplus(ahead)


def ipo(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """(chosen - rejected - 1 / (2 beta))^2 (B,) of log-ratios (B,) (Azar et al. 2024, "IPO", equation 17; tau is beta).

    There is a distance that is right, so a pair that everybody agrees on is not pushed apart for ever.

    >>> ipo(torch.tensor([0.0, 3.0]), torch.tensor([0.0, -2.0]), beta=0.1)
    tensor([25.,  0.])
    """
    return (chosen - rejected - 1 / (2 * beta)).square()


def hinge(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """max(0, 1 - beta (chosen - rejected)) (B,) of log-ratios (B,): a pair that is far enough apart teaches nothing.

    The loss of SLiC (Zhao et al. 2023) as seen from a reference (Liu et al. 2024, "RSO", there called hinge-norm).

    >>> hinge(torch.tensor([0.0, 5.0, 9.0]), torch.tensor([0.0, 0.0, -9.0]), beta=0.1)
    tensor([1.0000, 0.5000, 0.0000])
    """
    return F.relu(1 - beta * (chosen - rejected))


def simpo(chosen: Tensor, rejected: Tensor, *, beta: float, gamma: float) -> Tensor:
    """-log sigmoid(beta (chosen - rejected) - gamma) (B,) of log-probabilities per token (B,).

    Meng et al. 2024, "SimPO", equation 6. beta is larger than for the others, 2 or more: differences per token are
    small. gamma is the distance that is asked for.

    >>> simpo(torch.tensor([-1.0]), torch.tensor([-1.5]), beta=2.0, gamma=1.0)  # as far apart as it should be: ln 2
    tensor([0.6931])
    """
    return F.softplus(gamma - beta * (chosen - rejected))


def orpo(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """-chosen + beta odds_ratio (B,) of log-probabilities per token (B,) (Hong et al. 2024, "ORPO", equation 6).

    The first part learns the chosen answer as instruction tuning does; beta, the paper's lambda, weighs the second.

    >>> half, tenth = torch.tensor([0.5]).log(), torch.tensor([0.1]).log()
    >>> orpo(half, tenth, beta=0.1)  # ln 2 + 0.1 ln(1 + 1/9)
    tensor([0.7037])
    """
    return beta * odds_ratio(chosen, rejected) - chosen


def odds_ratio(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigmoid(log odds(chosen) - log odds(rejected)) (B,) of log-probabilities per token (B,), below 0.

    The odds of p are p / (1 - p) (Hong et al. 2024, equations 4 and 7). A log-probability of 0, which rounding makes of
    a model that is certain, counts as -1e-7: its odds would be infinite.

    >>> odds_ratio(torch.tensor([0.5]).log(), torch.tensor([0.1]).log())  # odds 1 and 1/9: ln(1 + 1/9)
    tensor([0.1054])
    """
    return F.softplus(_log_odds(rejected) - _log_odds(chosen))


def _log_odds(logp: Tensor) -> Tensor:
    return logp - torch.log(-torch.expm1(logp.clamp(max=-1e-7)))  # expm1: 1 - p of a p near 1 keeps its digits


def preference(kind: str, *, beta: float, smoothing: float = 0.0, average: bool = False, gamma: float = 0.5) -> Loss:
    """The loss `kind` (see `KINDS`) on batches of pairs: a sum over the pairs, and numbers that are sums over them.

    average: log-ratios of an answer are divided by its tokens, so that length does not count; simpo and orpo do so in
    any case. gamma is read by simpo alone. Raises SettingsError for an unknown kind, numbers out of range, and
    smoothing with another kind than sigmoid.

    The loss reads tokens (2 B, T), first the chosen answers, then the rejected ones in the same order; the fields
    targets (2 B, T), weight (2 B, T), 1 on the tokens of an answer and 0 elsewhere, and ref_logp (2 B,), the sums of
    log-probabilities under the reference, which simpo and orpo neither need nor read. `batch.count` is B. It raises
    DataError for rows that are no pairs, an answer without a token, and a reference that is missing.

    Numbers, all per pair once divided by `batch.count`:
        chosen_reward, rejected_reward: beta times what the loss compares, which is what a policy that is best for some
            reward and stays near the reference says of that reward (Rafailov et al. 2023, equation 5)
        margin: their difference. accuracy: see `ranking.right`
        chosen_logp, rejected_logp: log-probability of the whole answer in nats
        drift: log-ratio of the whole answer in nats, mean of both sides; below 0 where answers lost probability to
            texts that are in no pair. It is no divergence: these answers were not drawn from the model
        chosen_loss: of orpo, -log-probability per token of the chosen answer

    >>> from groundup.batches import Batch
    >>> even = lambda tokens: torch.zeros(*tokens.shape, 2)  # a model without a clue: every id has p = 1/2
    >>> ids, there = torch.tensor([[1, 1], [1, 0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    >>> batch = Batch(ids, 1.0, {"targets": ids, "weight": there, "ref_logp": torch.tensor([-1.386, -0.693])})
    >>> total, numbers = preference("sigmoid", beta=0.1)(even, batch)
    >>> total, numbers["chosen_logp"], numbers["rejected_logp"]  # ln 2; two tokens against one
    (tensor(0.6931), tensor(-1.3863), tensor(-0.6931))
    """
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "sigmoid": partial(sigmoid, beta=beta, smoothing=smoothing),
        "ipo": partial(ipo, beta=beta),
        "hinge": partial(hinge, beta=beta),
        "simpo": partial(simpo, beta=beta, gamma=gamma),
        "orpo": partial(orpo, beta=beta),
    }
    _check(kind, beta=beta, smoothing=smoothing, gamma=gamma)
    referred = kind not in WITHOUT_REFERENCE

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        reference = _reference(batch, kind) if referred else None
        logp, tokens = answers(model, batch)
        ratio = logp if reference is None else logp - reference
        chosen, rejected = (ratio / tokens if average or not referred else ratio).chunk(2)  # (2 B,) -> (B,), twice
        numbers = {
            "chosen_reward": beta * chosen,
            "rejected_reward": beta * rejected,
            "margin": beta * (chosen - rejected),
            "accuracy": right(chosen, rejected),
            "chosen_logp": logp.chunk(2)[0],
            "rejected_logp": logp.chunk(2)[1],
        }
        if referred:
            numbers["drift"] = ratio / 2
        if kind == "orpo":
            numbers["chosen_loss"] = -chosen
        return losses[kind](chosen, rejected).sum(), {name: each.detach().sum() for name, each in numbers.items()}

    return loss


def answers(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probability of the answer of each row of a batch of pairs (2 B,), in nats, and its tokens (2 B,).

    What the reference thinks of the pairs is read in the same way. Raises DataError as `preference` does.
    """
    pairs(batch)
    logp = log_probabilities(model, batch).logp.sum(dim=1)  # (2 B, T) -> (2 B,)
    weight = batch.fields.get("weight")
    if weight is None:
        return logp, torch.full_like(logp, batch.tokens.shape[1])
    tokens = (weight != 0).sum(dim=1).to(logp.dtype)
    if not bool((tokens > 0).all()):
        raise DataError(
            f"row {int(tokens.argmin())} of a batch of pairs has an answer without a token",
            "leave out pairs in which an answer is empty, or has no place in the context",
        )
    return logp, tokens


def _reference(batch: Batch, kind: str) -> Tensor:
    found, rows = batch.fields.get("ref_logp"), len(batch.tokens)
    if found is None:
        raise DataError(
            f"the batch says nothing about the reference, with which {kind} compares (no field ref_logp)",
            f"compute log-probabilities of the reference first, or choose {' or '.join(WITHOUT_REFERENCE)}",
        )
    if found.shape != (rows,):
        raise DataError(
            f"log-probabilities of the reference have shape {tuple(found.shape)} for {rows} rows",
            "give one sum for each row",
        )
    return found


def _check(kind: str, *, beta: float, smoothing: float, gamma: float) -> None:
    if kind not in KINDS:
        raise SettingsError(f"unknown preference loss {kind!r}", nearest(kind, KINDS))
    if not 0 < beta < float("inf"):
        raise SettingsError(f"beta is {beta}", "it must be above 0: 0.1 is usual, and 2 for simpo")
    if not 0 <= smoothing < 0.5:
        raise SettingsError(f"smoothing is {smoothing}", "it must be from 0 to below 0.5, where pairs say nothing")
    if smoothing and kind != "sigmoid":
        raise SettingsError(f"smoothing is {smoothing}, and {kind} has none", "choose the loss sigmoid, or smoothing 0")
    if not 0 <= gamma < float("inf"):
        raise SettingsError(f"gamma is {gamma}", "it must be 0 or more")
