"""How far the models of a comparison are from the first: KL in nats an answer, from answers that they drew.

In: `settings.Compare`, `Contender`s, answers drawn at temperature 1. Out: a `Divergence` of each. OUT/distances.json
keeps the log-probabilities with a hash of the answers that they are of. One model is in memory at a time.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from groundup import machine as machines
from groundup.checkpoint import atomic, folder
from groundup.commands.compare_answers import Contender, Written, fingerprint
from groundup.evaluate.choices import Pair, log_likelihoods
from groundup.evaluate.compare import Divergence, divergence
from groundup.journal import Progress
from groundup.settings import Compare

DISTANCES = "distances.json"


def same_words(one: Contender, first: Contender) -> bool:
    """Whether two models are asked with the same ids and choose among the same: only then KL means something."""
    return (one.words, one.vocabulary) == (first.words, first.vocabulary)


def distances(
    settings: Compare, contenders: Sequence[Contender], drawn: Mapping[int, Sequence[Written]], out: Path
) -> dict[int, Divergence | None]:
    """KL(model || first) of each model that `drawn` has answers of, by its number; kept in OUT/distances.json.

    `drawn`: answers at temperature 1 from all of the vocabulary. Each is scored by the model that drew it and by the
    first, in fp32 on a CPU, behind the same ids that the model was asked. Those that outgrew the context are left out:
    a model does not write there what one look at the whole would find. What is kept counts for these answers only.
    """
    path = out / DISTANCES
    room = {place: min(contenders[0].context, contenders[place].context) for place in drawn}
    usable = {place: [one for one in answers if not one.outgrew(room[place])] for place, answers in drawn.items()}
    known = _known(path, usable)
    todo = [place for place in drawn if str(place + 1) not in known]
    if todo:
        own = {place: _log_p(settings, contenders[place], usable[place]) for place in todo}
        theirs = iter(_log_p(settings, contenders[0], [one for place in todo for one in usable[place]]))
        for place in todo:
            first = [next(theirs) for _ in usable[place]]
            known[str(place + 1)] = {"answers": fingerprint([usable[place]]), "own": own[place], "first": first}
        atomic.write_text(path, json.dumps(known) + "\n")
    found = {}
    for place, answers in drawn.items():
        log_p = known[str(place + 1)]
        found[place] = divergence(log_p["own"], log_p["first"], left_out=len(answers) - len(log_p["own"]))
    return found


def formats(settings: Compare, one: Contender) -> tuple[str, str]:
    """The number formats in which a model's answers are drawn, and in which `distances` scores them."""
    device = machines.choose(device=settings.device, threads=settings.threads).device
    scored = torch.float32 if device.type == "cpu" else one.stored
    names = {kind: name for name, kind in machines.DTYPES.items()}
    drawn = machines.DTYPES.get(settings.dtype, one.stored)
    return names.get(drawn, str(drawn)), names.get(scored, str(scored))


def _known(path: Path, usable: Mapping[int, Sequence[Written]]) -> dict[str, Any]:
    """Log-probabilities of an earlier run, of just these answers; what cannot be read is computed anew."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {str(place + 1): content.get(str(place + 1)) for place in usable}
    except (OSError, ValueError, RecursionError, AttributeError):
        return {}
    return {str(place + 1): found[str(place + 1)] for place in usable if _of(found[str(place + 1)], usable[place])}


def _of(entry: Any, answers: Sequence[Written]) -> bool:
    """Whether an entry has two log-probabilities of each of these answers."""
    if not isinstance(entry, dict) or entry.get("answers") != fingerprint([answers]):
        return False
    both = [entry.get("own"), entry.get("first")]
    return all(
        isinstance(row, list) and len(row) == len(answers) and all(type(one) is float for one in row) for row in both
    )


def _log_p(settings: Compare, one: Contender, answers: Sequence[Written]) -> list[float]:
    """log p of each answer in nats, its end included, as this model finds it."""
    if not answers:
        return []
    machine = machines.choose(device=settings.device, threads=settings.threads)
    exact = torch.float32 if machine.device.type == "cpu" else None
    loaded = folder.load(one.spec, dtype=exact, device=machine.device)
    pairs = [Pair(answer.asked, answer.ids) for answer in answers]
    with Progress(f"log-probabilities by {one.name}", total=len(pairs), unit="answer") as line:
        scored = log_likelihoods(loaded.model, pairs, batch=settings.batch, watch=line.update)
    return [found.log_p for found in scored]
