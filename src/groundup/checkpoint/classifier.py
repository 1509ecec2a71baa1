"""A classifier as a folder that anyone can open: the trunk under its usual names, `score.weight`, names of the classes.

In: `Classifier`, or config.json and weights of a folder. Out: the other. The layout is that of Hugging Face's
GPT2-, Llama-, Qwen2- and Qwen3ForSequenceClassification (transformers 5.23; all four follow one rule), whether the
folder was written here or there.

Which token is judged. transformers reads the rightmost id of a row that is not `pad_token_id`; here a row says how many
of its tokens are real. Both mean the same token as long as no row of real tokens ends with the pad id: then they would
read one too far to the left. Text cannot bring that id in, because it is that of a special token, which `encode` never
makes of a text; so `padded` names one where the tokenizer has none, and never the token for unknown words, which a text
can end with. Two things remain. Whoever puts end-of-text into a row (between two texts, say) must not let it be the
last; and their own tokenizer, unlike ours, turns "<|endoftext|>" written in a text into the special token. A row of
which nothing is left but bos, when that is the filler too, is read at its first place by both.

Padding stands on the right here, and there unless somebody changes the tokenizer. With filler on the left their rule
still finds the last token, but GPT-2 counts positions from the filler on: give it position_ids.

What they do not have, and how it is kept: `pooling` and `head_bias` under "groundup" in config.json, the bias as
`score.bias`. They pass over all three, so the folder must say it (`warning`).

A reward model is the same with one output: `problem_type` "regression", `id2label` of one name. Every such folder is
taken for one, TRL's among them, whatever that one is called. Their logits are the raw scores; mean and spread of the
scores in training stand under "groundup", as `score_mean` and `score_spread`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from groundup.checkpoint import fields, names
from groundup.checkpoint.fields import printable
from groundup.checkpoint.source import Weights, fill
from groundup.errors import CheckpointError, ModelError, nearest
from groundup.model.config import BigramConfig, ModelConfig
from groundup.model.heads import POOLINGS, REWARD, Classifier, HeadConfig
from groundup.tokens.tokenizer import Tokenizer

TASK = "ForSequenceClassification"
ARCHITECTURES = {
    kind: language_model.replace("LMHeadModel", TASK).replace("ForCausalLM", TASK)
    for kind, language_model in fields.ARCHITECTURES.items()
    if kind in ("gpt2", *fields.ROTARY)
}
WEIGHT, BIAS = "score.weight", "score.bias"
PROBLEM = "single_label_classification"
REGRESSION = "regression"  # of one output: a reward
MOST_CLASSES = 100_000  # a file that only says a number could otherwise ask for any amount of memory


def config(model_config: ModelConfig, head: HeadConfig, **ids: Any) -> dict[str, Any]:
    """The content of a classifier's config.json; `ids` are bos=, eos=, pad= and dtype= as for `fields.hf_config`.

    Without a pad id transformers takes one text at a time (`padded`).

    >>> tiny = ModelConfig(family="gpt2", vocabulary=99, context=8, width=4, layers=1, heads=1)
    >>> found = config(tiny, HeadConfig(("ham", "spam")), pad=98)
    >>> found["architectures"], found["id2label"], found["label2id"], found["problem_type"]
    (['GPT2ForSequenceClassification'], {'0': 'ham', '1': 'spam'}, {'ham': 0, 'spam': 1}, 'single_label_classification')
    """
    document = fields.hf_config(model_config, **ids)
    document["architectures"] = [ARCHITECTURES[document["model_type"]]]
    document["id2label"] = {str(number): label for number, label in enumerate(head.labels)}
    document["label2id"] = {label: number for number, label in enumerate(head.labels)}
    ours: dict[str, Any] = {"pooling": head.pooling, "head_bias": head.bias}
    document["problem_type"] = PROBLEM
    if head.kind == REWARD:
        document["problem_type"] = REGRESSION
        ours |= {"score_mean": head.mean, "score_spread": head.spread}
    document["groundup"] = document.get("groundup", {}) | ours
    return document


def head_of(document: Mapping[str, Any]) -> HeadConfig | None:
    """The head that a config.json describes; None where it is not that of a classifier of texts.

    Two unnamed classes are what transformers means where it names none; one output is a reward. Raises CheckpointError
    for scores that are neither (regression of several numbers, several labels at once), and for labels that are
    malformed.

    >>> head_of({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}).labels
    ('LABEL_0', 'LABEL_1')
    >>> head_of({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"], "num_labels": 1}).kind
    'reward'
    >>> head_of({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    """
    if not _is_classifier(document):
        return None
    problem, labels = document.get("problem_type"), _labels(document)
    is_reward = len(labels) == 1 and problem in (None, REGRESSION)
    if problem not in (None, PROBLEM) and not is_reward:
        raise CheckpointError(
            f"config.json: problem_type is {_short(problem)}",
            f"use a classifier that picks one class ({PROBLEM}), or a reward model: one output, {REGRESSION}",
        )
    ours = document.get("groundup") or {}
    if not isinstance(ours, Mapping):
        raise CheckpointError(f"config.json: groundup is {_short(ours)}", "it must be an object")
    pooling, bias = ours.get("pooling", "last"), ours.get("head_bias", False)
    if pooling not in POOLINGS:
        raise CheckpointError(
            f"config.json: groundup.pooling is {_short(pooling)}", nearest(str(pooling)[:40], POOLINGS)
        )
    if not isinstance(bias, bool):
        raise CheckpointError(f"config.json: groundup.head_bias is {_short(bias)}", "it must be true or false")
    try:
        if not is_reward:
            return HeadConfig(labels, pooling, bias)
        mean, spread = ours.get("score_mean", 0.0), ours.get("score_spread", 1.0)
        return HeadConfig((REWARD,), pooling, bias, REWARD, mean, spread)
    except ModelError as error:
        what = printable(error.what, 300)
        raise CheckpointError(f"config.json describes no classifier we can build: {what}", error.fix) from None


def trunk_of(document: Mapping[str, Any]) -> ModelConfig:
    """The network below the head of a classifier's config.json: one without a head of its own.

    Raises CheckpointError as `fields.model_config` does, and for architectures that are not those of the model type.

    >>> tiny = ModelConfig(family="qwen3", vocabulary=99, context=8, width=4, layers=1, heads=1)
    >>> trunk_of(config(tiny, HeadConfig(("no", "yes")))) == tiny
    True
    """
    kind, seen = document.get("model_type"), document.get("architectures")
    expected = ARCHITECTURES.get(kind) if isinstance(kind, str) else None
    if expected is not None and seen != [expected]:
        raise CheckpointError(
            f"config.json: architectures is {_short(seen)}, which is not [{expected!r}]",
            "use the config.json that belongs to the weights",
        )
    code = document.get("auto_map")
    if isinstance(code, Mapping) and f"AutoModel{TASK}" in code:
        raise CheckpointError(
            f"config.json: auto_map is {_short(code)}: the network is code of its own, which is not run here",
            "use a gpt2, llama, mistral, qwen2 or qwen3 model without it",
        )
    plain = {name: value for name, value in document.items() if name != "architectures"}
    found = fields.model_config(plain | {"tie_word_embeddings": True})
    if isinstance(found, BigramConfig):
        raise CheckpointError("config.json: a bigram table has no state to judge a text by", "use another model")
    return found


def tensors(classifier: Classifier) -> dict[str, Tensor]:
    """The weights under their Hugging Face names, on the CPU; those that need no change are not copied.

    Raises CheckpointError for a network with adapters in it: merge them first.
    """
    state = {name: value.detach().cpu() for name, value in classifier.trunk.state_dict().items()}
    score = {f"score.{name}": value.detach().cpu() for name, value in classifier.score.state_dict().items()}
    wanted = _shapes(classifier.config, classifier.head_config)
    if {name: tuple(value.shape) for name, value in score.items()} != wanted:
        raise CheckpointError(
            f"the head has {', '.join(score)}, and {', '.join(wanted)} can be written", "merge its adapter first"
        )
    return names.to_hf(state, classifier.config) | score


def read(
    config: ModelConfig,
    head: HeadConfig,
    weights: Weights,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Classifier:
    """The classifier with these weights, in training mode; names and shapes are compared before a number is read.

    `dtype` is that of the trunk, None for the stored one; the head is held in fp32. A left-over `lm_head.weight` is
    passed over. Raises CheckpointError naming what is missing, unexpected or misshapen.
    """
    _check_head(weights.shapes(), config, head)
    trunk = fill(dataclasses.replace(config, tie=True), _Below(weights), dtype=dtype, device=device)
    classifier = Classifier(trunk, head, seed=0)
    with torch.no_grad():
        for name, parameter in classifier.score.named_parameters():
            parameter.copy_(weights.read(f"score.{name}"))
    return classifier


def warning(head: HeadConfig, *, alone: bool = False, filled: bool = False) -> str:
    """What the folder's README must tell those who open it with transformers; empty where nothing is different there.

    alone: config.json has no pad id. filled: texts were filled up to one length with the pad id and read at its end, as
        the book does it (Raschka 2024, section 6.5).

    >>> warning(HeadConfig(("ham", "spam")))
    ''
    >>> print(warning(HeadConfig(("ham", "spam"), bias=True)))
    Opened with transformers, this classifier answers differently: its head has a bias (score.bias), which transformers
    ignores, so that every logit lacks a constant of its class.
    """
    said = []
    if head.bias:
        said.append(
            "its head has a bias (score.bias), which transformers ignores, so that every logit lacks a constant of "
            "its class"
        )
    if head.pooling != "last":
        where = {"first": "the first token", "mean": "the mean over all tokens"}[head.pooling]
        said.append(f"its head was trained to read {where}, and transformers reads the last token: do not use it there")
    if filled:
        said.append(
            "its texts were filled up to one length and judged by the last token of the filler, and transformers reads "
            "the last one that is no filler"
        )
    told = f"Opened with transformers, this classifier answers differently: {'; '.join(said)}." if said else ""
    scale = ""
    if (head.mean, head.spread) != (0.0, 1.0):
        scale = (
            f"Its logits are raw scores: in training they had mean {head.mean:.6g} and spread {head.spread:.6g}, which "
            "groundup score takes off, and transformers does not."
        )
    filler = "It has no token to fill short texts with: transformers takes one text at a time." if alone else ""
    return " ".join(part for part in (told, scale, filler) if part)


def padded(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer with a pad token that no text can end with: its own, else the end-of-text token.

    Where there is neither, it is returned as it is, and transformers takes one text at a time. Ids and text stay. GPT-2
    calls its end of text the unknown token, too, and never needs one: its bytes spell every text.

    >>> from groundup import tokens
    >>> plain = tokens.train("chars", ["cat hat"])
    >>> plain.pad, padded(plain).pad == plain.end_of_text
    (None, True)
    """
    end = tokenizer.end_of_text
    if tokenizer.pad not in (None, tokenizer.unknown) or end is None:
        return tokenizer
    name = next(name for name, id in tokenizer.special.items() if id == end)
    named = {**tokenizer.manner.names, "pad": name}
    return tokenizer.with_manner(dataclasses.replace(tokenizer.manner, names=named))


@dataclass(frozen=True)
class _Below:
    """The weights of a classifier's file without those of any head."""

    whole: Weights

    def shapes(self) -> dict[str, tuple[int, ...]]:
        heads = (WEIGHT, BIAS, "lm_head.weight")
        return {name: shape for name, shape in self.whole.shapes().items() if name not in heads}

    def read(self, name: str) -> Tensor:
        return self.whole.read(name)


def _is_classifier(document: Mapping[str, Any]) -> bool:
    seen = document.get("architectures")
    return isinstance(seen, list) and any(isinstance(name, str) and name.endswith(TASK) for name in seen)


def _labels(document: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes in the order of the rows of the score."""
    stated, named = document.get("num_labels"), document.get("id2label")
    count = len(named) if isinstance(named, Mapping) else 2 if stated is None else stated
    if type(count) is not int or not 0 <= count <= MOST_CLASSES or stated not in (None, count):
        raise CheckpointError(
            f"config.json: num_labels is {_short(stated)}, id2label names {_short(count)} classes",
            f"it must be one number, at most {MOST_CLASSES:,}",
        )
    if named is None:
        return tuple(f"LABEL_{number}" for number in range(count))
    if not isinstance(named, Mapping) or {str(number) for number in range(count)} != named.keys():
        raise CheckpointError(
            f"config.json: id2label is {_short(named)}", 'it must name the classes "0", "1", "2" ... without a gap'
        )
    labels = tuple(named[str(number)] for number in range(count))
    _check_back(labels, document.get("label2id"))
    return labels


def _check_back(labels: tuple[Any, ...], back: Any) -> None:
    """Refuse a label2id that contradicts id2label.

    Published files often keep the default names there, which nobody reads: other names contradict nothing.
    """
    if not isinstance(back, Mapping) or not all(isinstance(label, str) for label in labels) or set(back) != set(labels):
        return
    if any(back[label] != number for number, label in enumerate(labels)):
        raise CheckpointError(
            f"config.json: label2id is {_short(back)}, id2label says otherwise", "correct one of the two"
        )


def _shapes(config: ModelConfig, head: HeadConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of the head, by name."""
    shapes: dict[str, tuple[int, ...]] = {WEIGHT: (len(head.labels), config.width)}
    return shapes | ({BIAS: (len(head.labels),)} if head.bias else {})


def _check_head(shapes: Mapping[str, tuple[int, ...]], config: ModelConfig, head: HeadConfig) -> None:
    """Raise CheckpointError unless the file has the head that the config describes."""
    wanted = _shapes(config, head)
    for name, shape in wanted.items():
        if name not in shapes:
            raise CheckpointError(
                f"the file has no {name}: its head is missing",
                "use a complete classifier, or make one of a language model: groundup classify",
            )
        if shapes[name] != shape:
            raise CheckpointError(
                f"{name} has shape {shapes[name]}, {len(head.labels)} classes and width {config.width} make it {shape}",
                "use the weights and the config.json of the same model",
            )
    if BIAS in shapes and BIAS not in wanted:
        raise CheckpointError(
            f"the file has {BIAS}, and config.json says nothing of a bias in the head",
            'set "head_bias": true under "groundup" in config.json, or take the bias out',
        )


def _short(value: Any) -> str:
    """A value as it is shown in a message: a hostile one may be a million characters long."""
    return printable(repr(value))
