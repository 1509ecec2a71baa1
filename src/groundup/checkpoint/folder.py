"""A model as a folder that anyone can open: the Hugging Face layout, with hashes and a card.

In: model, tokenizer, facts about the run. Out: config.json, model.safetensors, tokenizer.json, generation_config.json,
card.json and README.md, hashes.json; and back. `transformers` opens the folder as it is (bigram alone is our own type).
Of a policy with values (model/values.py) the folder is the policy's, and value.safetensors lies beside it.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from groundup import model as models
from groundup.checkpoint import adapter_layout, adapters, atomic, cards, fields, huggingface, names, opening, space
from groundup.checkpoint import classifier as classifiers
from groundup.checkpoint import values as valued
from groundup.checkpoint.huggingface import CARD, WEIGHTS
from groundup.checkpoint.source import Source, fill
from groundup.errors import CheckpointError, TokenizerError
from groundup.model import lora
from groundup.model.config import BigramConfig, ModelConfig
from groundup.model.heads import REWARD, Classifier, HeadConfig
from groundup.model.values import ActorCritic
from groundup.tokens.tokenizer import Tokenizer

STORED = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


@dataclass(frozen=True)
class Loaded:
    """What a model folder holds: the network in evaluation mode, its tokenizer, where it was, and its card."""

    model: nn.Module
    tokenizer: Tokenizer
    folder: Path
    card: dict[str, Any]


def save_model(folder: Path, model: nn.Module, tokenizer: Tokenizer, *, card: dict[str, Any]) -> None:
    """Write a model folder in one go: an older one in the same place stays until the new one is whole.

    >>> save_model(Path("gpt"), model, tokenizer, card={"data": "my letters"})  # doctest: +SKIP
    """
    what = exported(model)
    with atomic.written_aside(folder, needed=space.of(what.tensors.values())) as aside:
        write_model(aside, what, tokenizer, card=card)


@dataclass(frozen=True)
class Exported:
    """A network as it goes to the disk: tensors under the names of Hugging Face or peft, on the CPU.

    Values of a policy are among the tensors, marked (values.py), so that whoever copies or counts these has them too.
    `head` of a classifier; `adapter`, the content of adapter_config.json, where only adapters are kept and the rest of
    the network stays where it is.
    """

    config: ModelConfig | BigramConfig
    tensors: dict[str, Tensor]
    head: HeadConfig | None = None
    adapter: dict[str, Any] | None = None


def exported(model: nn.Module) -> Exported:
    """What is written of a network; tensors that need no change are not copied."""
    if isinstance(model, ActorCritic):
        policy = exported(model.policy)
        return dataclasses.replace(policy, tensors=policy.tensors | valued.tensors(model))
    config = models.config_of(model)
    head = model.head_config if isinstance(model, Classifier) else None
    if lora.config_of(model) is not None:
        tensors, adapter = adapter_layout.export(model)
        return Exported(config, tensors, head, adapter)
    if isinstance(model, Classifier):
        return Exported(config, classifiers.tensors(model), head)
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    return Exported(config, names.to_hf(state, config))


def restore(model: nn.Module, folder: Path) -> None:
    """Put the weights of a folder, which `exported` made of such a network, back into it.

    Raises CheckpointError where they are those of another, and for a policy with values where these are missing;
    nothing has changed then.
    """
    if isinstance(model, ActorCritic):
        value = valued.read(folder, model)
        restore(model.policy, folder)
        model.value.load_state_dict(value)
        return
    if lora.config_of(model) is not None:
        adapters.restore(model, folder)
        return
    model.load_state_dict(read_model(folder).state_dict())


def write_model(folder: Path, model: Exported, tokenizer: Tokenizer, *, card: dict[str, Any]) -> None:
    """Write the files of a model folder into an existing folder; the caller makes it atomic.

    Raises NoRoom naming the file that the disk has no room for.
    """
    tokenizer = tokenizer if model.head is None else classifiers.padded(tokenizer)
    _write_words(folder, model, tokenizer, card)
    if model.head is None:
        _write_json(folder / "generation_config.json", _generation(tokenizer))
    tensors, value = valued.parted(model.tensors)
    if value:
        write_tensors(folder / valued.NAME, value)
    if model.adapter is not None:
        adapter_layout.write(folder, tensors, model.adapter)
        return
    ids = {"bos": tokenizer.bos, "eos": tokenizer.end_of_text, "pad": tokenizer.pad}
    dtype = STORED[next(iter(tensors.values())).dtype]
    if model.head is None:
        _write_json(folder / "config.json", fields.hf_config(model.config, **ids, dtype=dtype))
    else:
        assert isinstance(model.config, ModelConfig), "only a network of blocks is judged by"
        _write_json(folder / "config.json", classifiers.config(model.config, model.head, **ids, dtype=dtype))
    write_tensors(folder / WEIGHTS, tensors, metadata={"format": "pt"})


def _write_words(folder: Path, model: Exported, tokenizer: Tokenizer, card: dict[str, Any]) -> None:
    """The files that say how the model is used and what it was made of."""
    with space.writing(folder / "tokenizer.json"):
        tokenizer.save(folder)
    _write_json(folder / CARD, card)
    _write(
        folder / "README.md",
        cards.text(model.config, card, head=model.head, adapter=model.adapter, padded=tokenizer.pad is not None),
    )


def _generation(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of generation_config.json: where a text begins, and what ends it."""
    ids = {"bos": tokenizer.bos, "eos": tokenizer.end_of_text, "pad": tokenizer.pad}
    start = ids["bos"] if ids["bos"] is not None else ids["eos"]
    ends = tokenizer.ends  # one id is written as a number, several as a list
    generation = {
        "bos_token_id": start,
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": ids["pad"] if ids["pad"] is not None else ids["eos"],
    }
    return {name: value for name, value in generation.items() if value is not None}


def write_tensors(path: Path, tensors: dict[str, Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; raises NoRoom naming it when the disk is full."""
    with space.writing(path, space.of(tensors.values())):
        path.touch()
        usual = path.stat().st_mode  # of a file made by this person here; the library makes one for nobody else
        save_file(tensors, path, metadata=metadata)
        path.chmod(usual)


def load(
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    merged: bool = True,
    classifier: bool | None = False,
) -> Loaded:
    """Open a run folder (its last good weights), RUN/best, a model folder, or whatever else `opening` knows.

    merged: adapters become part of the weights, and the network a plain one. classifier: a folder that judges texts is
    wanted, and its network is a `Classifier`; False, one that continues them, and each is refused for the other; None:
    either.

    Every hash that a folder has is checked. `dtype` None keeps what is stored. The network is held once, and one tensor
    more while it is filled. Raises CheckpointError naming what is missing, altered or not supported.

    >>> run = load("runs/first")  # doctest: +SKIP
    >>> run.model.config.layers, run.tokenizer.vocabulary  # doctest: +SKIP
    (5, 1024)
    """
    lists = [Path(path) / atomic.MANIFEST, Path(path) / "model" / atomic.MANIFEST]
    while True:
        begun = [atomic.identity(place) for place in lists]
        try:
            source = opening.open_any(path)
            model = _network(source, dtype=dtype, device=device, merged=merged)
        except (CheckpointError, TokenizerError):
            # a run that goes on may have put newer weights there while we read: then those are whole
            if [atomic.identity(place) for place in lists] == begun:
                raise
        else:
            _check_use(path, model, classifier)
            return Loaded(model.eval(), source.tokenizer, source.path, source.card)


def read_model(folder: Path, *, dtype: torch.dtype | None = None) -> nn.Module:
    """Build the network of a model folder and fill it with its weights."""
    document = huggingface.read_json(folder / "config.json")
    head, weights = classifiers.head_of(document), huggingface.weights(folder)
    if head is None:
        return fill(fields.model_config(document), weights, dtype=dtype)
    return classifiers.read(classifiers.trunk_of(document), head, weights, dtype=dtype)


def _network(
    source: Source, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu", merged: bool = True
) -> nn.Module:
    """The network of an opened model, with its weights, and what adapters add to them."""
    if source.head is not None and isinstance(source.config, ModelConfig):
        model: nn.Module = classifiers.read(source.config, source.head, source.weights, dtype=dtype, device=device)
    else:
        model = fill(source.config, source.weights, dtype=dtype, device=device)
    if source.adapter is not None:
        model = adapters.apply(model, source.adapter)
        room = models.config_of(model).vocabulary
        if source.tokenizer.vocabulary > room:
            raise CheckpointError(
                f"{source.path}: the tokenizer has {source.tokenizer.vocabulary:,} ids, the network only {room:,}",
                "give the whole folder that the adapters were saved in",
            )
        model = lora.merge(model) if merged else model
    return model


def _check_use(path: str | Path, model: nn.Module, classifier: bool | None) -> None:
    """Refuse a classifier where a model that continues text is wanted, and the other way round."""
    if isinstance(model, Classifier) and classifier is False:
        if model.head_config.kind == REWARD:
            raise CheckpointError(f"{path} is a reward model, it continues no text", "use it with groundup score")
        labels = ", ".join(model.head_config.labels[:6])
        raise CheckpointError(
            f"{path} is a classifier ({labels}), it continues no text", "use it with groundup predict"
        )
    if classifier and not isinstance(model, Classifier):
        raise CheckpointError(f"{path} continues text, it is no classifier", "make one with groundup classify")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    with space.writing(path, len(text)):
        path.write_text(text, encoding="utf-8", newline="\n")
