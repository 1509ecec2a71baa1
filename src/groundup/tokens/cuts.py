r"""The known ways to cut text before byte pairs are merged: what tokenizer.json says, and what llama.cpp calls it.

In: the normalizer and pre_tokenizer of a tokenizer.json. Out: the name of the cut, or None. Only what stands here is
ever run: a regular expression from a file could take for ever. The patterns are published ones: GPT-2's (encoder.py of
openai/gpt-2), Llama 3's (tokenizer.py of meta-llama/llama3), Qwen2's (tokenization_qwen2.py of transformers), and
SmolLM2's digits one by one before GPT-2's (its tokenizer.json). bpe.py holds readable twins of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
SPACE = "▁"  # U+2581, which stands for a space in SentencePiece


@dataclass(frozen=True)
class Cut:
    """One way to cut: JSON of the `tokenizers` library, and the name in GGUF (`tokenizer.ggml.pre`)."""

    pre_tokenizer: Json | None
    normalizer: Json | None
    llama_cpp: str
    ignore_merges: bool = False  # as the models of this cut have it: a whole word that is a token is not merged

    @property
    def by_bytes(self) -> bool:
        """Whether its tokens are bytes, written as stand-in characters (all but SentencePiece's)."""
        return self.llama_cpp != "default"


def _bytes(*, use_regex: bool) -> Json:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _then_bytes(first: Json, *, use_regex: bool) -> Json:
    return {"type": "Sequence", "pretokenizers": [first, _bytes(use_regex=use_regex)]}


def _pattern(numbers: str) -> Json:
    """Contractions in either case, letters with one sign before, numbers, other signs, white space around new lines."""
    regex = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + numbers
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


_PREPEND: Json = {"type": "Prepend", "prepend": SPACE}
_REPLACE: Json = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}

CUTS: dict[str, Cut] = {
    "gpt2": Cut(_bytes(use_regex=True), None, "gpt-2"),
    "llama3": Cut(_then_bytes(_pattern(r"\p{N}{1,3}"), use_regex=False), None, "llama-bpe", ignore_merges=True),
    "qwen2": Cut(_then_bytes(_pattern(r"\p{N}"), use_regex=False), {"type": "NFC"}, "qwen2"),
    "smollm": Cut(_then_bytes({"type": "Digits", "individual_digits": True}, use_regex=True), None, "smollm"),
    "sentencepiece": Cut(None, {"type": "Sequence", "normalizers": [_PREPEND, _REPLACE]}, "default"),
}


def by_llama_cpp(name: str) -> str | None:
    """The cut that llama.cpp knows by this name, or None.

    >>> by_llama_cpp("llama-bpe"), by_llama_cpp("tekken")
    ('llama3', None)
    """
    return next((cut for cut, entry in CUTS.items() if entry.llama_cpp == name), None)


def recognise(document: Mapping[str, Any]) -> str | None:
    """The name of the cut of a tokenizer.json; None for any other.

    >>> recognise({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}, "normalizer": None})
    'gpt2'
    """
    normalizer, pre_tokenizer = _bare(document.get("normalizer")), _bare(document.get("pre_tokenizer"))
    for name, cut in CUTS.items():
        if (_bare(cut.normalizer), _bare(cut.pre_tokenizer)) == (normalizer, pre_tokenizer):
            return name
    if normalizer in _SPACED and pre_tokenizer is None:
        return "sentencepiece"
    if normalizer in (None, *_SPACED) and _is_metaspace(pre_tokenizer):
        return "sentencepiece"
    return None


def same(part: Any, other: Any) -> bool:
    """Whether two normalizers or pre_tokenizers cut alike: what moves offsets only does not count."""
    return bool(_bare(part) == _bare(other))


def _bare(part: Any, depth: int = 0) -> Any:
    """The part without what changes offsets only, and with the switches spelt out that older files leave out."""
    if depth > 4:  # no known part is so deep
        return "deep"
    if isinstance(part, list):
        return [_bare(item, depth + 1) for item in part]
    if not isinstance(part, dict):
        return part
    usual = {"ByteLevel": {"use_regex": True}, "Split": {"invert": False}}.get(str(part.get("type")), {})
    bare = usual | {key: _bare(value, depth + 1) for key, value in part.items() if key != "trim_offsets"}
    inner = bare.get("normalizers") or bare.get("pretokenizers")
    return inner[0] if isinstance(inner, list) and len(inner) == 1 else bare


# "▁" before the text or not, and for every space: the normalizers of SentencePiece, as converters write them
_SPACED = (
    {"type": "Sequence", "normalizers": [_PREPEND, _REPLACE]},
    _REPLACE,
)


def _is_metaspace(part: Any) -> bool:
    """Whether the pre_tokenizer does what those normalizers do; `add_prefix_space` is its older spelling."""
    if not isinstance(part, dict) or part.get("type") != "Metaspace" or part.get("replacement") != SPACE:
        return False
    known = {"type", "replacement", "prepend_scheme", "split", "add_prefix_space"}
    return part.keys() <= known and part.get("prepend_scheme", "always") in ("always", "first", "never")
