"""Open a tokenizer, whatever files it lies in.

In: a tokenizer.json, a tokenizer.model, or a folder. Out: a `Tokenizer`. In a folder tokenizer.json comes first, then
vocab.json with merges.txt (GPT-2's way), then tokenizer.model; what the config files beside say goes with it.
"""

from pathlib import Path

from groundup.errors import TokenizerError
from groundup.tokens import adopted, files, manner, sentencepiece
from groundup.tokens.checking import added
from groundup.tokens.cuts import CUTS
from groundup.tokens.tokenizer import Tokenizer

_GPT2_CLASSES = ("None", "GPT2Tokenizer", "GPT2TokenizerFast")  # whose vocab.json and merges.txt mean GPT-2's cut


def load(path: Path | str) -> Tokenizer:
    """Open a tokenizer file, or a folder that holds one (a model folder, or a run folder with model/ in it).

    Reads what `Tokenizer.save` writes, byte-level BPE with a known cut (GPT-2, Llama 3, Qwen 2 and 3, SmolLM2) and
    SentencePiece's BPE (Llama 2, TinyLlama, Mistral); raises TokenizerError naming what is not supported.

    >>> import tempfile
    >>> from groundup import tokens
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tokens.train("words", ["the cat sat"]).save(folder)
    ...     load(folder).decode([2, 0, 1])
    'the cat sat'
    """
    path = Path(path)
    if not path.is_dir():
        return _model(path) if path.suffix == ".model" else _json(path)
    for folder in (path, path / "model"):
        if document := files.beside(folder, "tokenizer.json"):
            return _json(document)
        vocab, merges = files.beside(folder, "vocab.json"), files.beside(folder, "merges.txt")
        if vocab and merges:
            return _vocab_and_merges(vocab, merges)
        if model := files.beside(folder, "tokenizer.model"):
            return _model(model)
    return _json(path / "tokenizer.json")


def _json(path: Path) -> Tokenizer:
    document = files.read_json(path)
    return adopted.from_document(document, config=manner.read_config(path.parent), source=str(path))


def _model(path: Path) -> Tokenizer:
    """A tokenizer.model; the config beside it counts where it says something."""
    document, config = sentencepiece.read_model(path)
    return adopted.from_document(document, config=config | manner.read_config(path.parent), source=str(path))


def _vocab_and_merges(tokens: Path, pairs: Path) -> Tokenizer:
    """GPT-2's way: token to id, and merges one a line after a version line."""
    folder = tokens.parent
    config = manner.read_config(folder)
    kind = str(config.get("tokenizer_class"))
    if kind not in _GPT2_CLASSES:
        raise TokenizerError(
            f"{folder}: vocab.json and merges.txt of a {kind} are not supported: how it cuts text stands in no file",
            "save the tokenizer with a tokenizer.json (transformers: tokenizer.save_pretrained)",
        )
    vocab, merges = files.read_json(tokens), files.merges(files.read_text(pairs))
    names = [name for name in ("<|endoftext|>", *manner.named(config).values()) if name in vocab]
    document = {
        "added_tokens": [added(name, vocab[name]) for name in dict.fromkeys(names)],
        "pre_tokenizer": CUTS["gpt2"].pre_tokenizer,
        "decoder": CUTS["gpt2"].pre_tokenizer,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }
    return adopted.from_document(document, config=config, source=str(tokens))
