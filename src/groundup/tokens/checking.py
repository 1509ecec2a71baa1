"""A tokenizer.json from elsewhere, looked at part by part before the `tokenizers` library may run it.

In: the document. Out: the same with nothing in it that was not looked at, and the name of its cut. Whatever would
change ids in a way that is not known is refused by name: models but BPE, normalizers, cuts, decoders, odd numbers.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from groundup.errors import TokenizerError
from groundup.tokens import cuts
from groundup.tokens.cuts import CUTS, SPACE

Json = dict[str, Any]
MOST_IDS = 1 << 20  # four times the largest published vocabulary
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_SWITCHES = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")  # would change ids; nobody here has them
_MODEL = ("type", *_SWITCHES, "unk_token", "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges")


def checked(document: Json, source: str) -> tuple[Json, str]:
    """(document, cut): only what is known, merges as pairs, vocabulary in the order of ids; raises TokenizerError."""
    cut = _cut(document, source)
    tokens = [_added(token, source) for token in document.get("added_tokens") or []]
    model = _model(document["model"], source, by_bytes=CUTS[cut].by_bytes)
    _check_ids(model["vocab"], tokens, source)
    _check_decoder(document.get("decoder"), source, by_bytes=CUTS[cut].by_bytes)
    "".join([*model["vocab"], *(token["content"] for token in tokens)]).encode("utf-8")  # ValueError: half a pair
    clean = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(tokens, key=lambda token: token["id"]),
        "normalizer": document.get("normalizer"),
        "pre_tokenizer": document.get("pre_tokenizer"),
        "post_processor": None,
        "decoder": document["decoder"],
        "model": model,
    }
    return clean, cut


def ids_of(document: Mapping[str, Any]) -> dict[str, int]:
    """Every token's id, added ones included."""
    added_ids = {token["content"]: token["id"] for token in document.get("added_tokens") or []}
    return dict(document["model"]["vocab"]) | added_ids


def members(part: Any) -> list[Any]:
    """The parts of a Sequence, or the part itself; [] of None."""
    if not isinstance(part, Mapping):
        return [] if part is None else [part]
    if part.get("type") != "Sequence":
        return [part]
    return list(part.get("decoders") or part.get("normalizers") or part.get("pretokenizers") or [])


def added(name: str, id: int, *, special: bool = True) -> Json:
    """An added token that matches exactly as it is written."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": name, **plain, "special": special}


def is_plain(document: Mapping[str, Any]) -> bool:
    """Whether this is GPT-2's layout without any switch: then our own `BytePairs` does it, with its own messages."""
    model, tokens = document["model"], document.get("added_tokens") or []
    vocab = ids_of(document)
    return (
        cuts.recognise(document) == "gpt2"
        and not any(model.get(switch) for switch in (*_SWITCHES, "byte_fallback", "ignore_merges"))
        and all(token.get("special") and not any(token.get(flag) for flag in _FLAGS[:3]) for token in tokens)
        and sorted(vocab.values()) == list(range(len(vocab)))
    )


def promoted(document: Json, config: Mapping[str, Any], names: Iterable[str], source: str) -> Json:
    """With every token special that the config says is; the very same document where all are already.

    transformers does so too: the config counts, also for a token that the document adds as one that is not special.
    Raises TokenizerError for tokens that the config has and the document lacks, or has under another id.
    """
    ids, listed = ids_of(document), [*names]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        entries = config.get(key) or []
        listed += [_content(entry) for entry in (entries.values() if isinstance(entries, dict) else entries)]
    table = config.get("added_tokens_decoder") or {}
    numbered = {_content(entry): int(id) for id, entry in table.items()}
    listed += [_content(entry) for entry in table.values() if isinstance(entry, dict) and entry.get("special")]
    absent = [name for name in [*listed, *numbered] if name not in ids]
    if absent:
        raise refused(source, f"{absent[0]!r}, a token of its config that the vocabulary lacks,")
    moved = next((name for name, id in numbered.items() if ids[name] != id), None)
    if moved is not None:
        what = f"{source}: the token {moved!r} has the id {ids[moved]}, and {numbered[moved]} in its config"
        raise TokenizerError(what, "copy tokenizer.json and tokenizer_config.json of one tokenizer again")
    before = document.get("added_tokens") or []
    after = [token | {"special": True} if token["content"] in listed else token for token in before]
    known = {token["content"] for token in before}
    after += [added(name, ids[name]) for name in dict.fromkeys(listed) if name not in known]
    return document if after == before else document | {"added_tokens": after}


def _content(entry: Any) -> str:
    return str(entry["content"] if isinstance(entry, dict) else entry)


def _cut(document: Mapping[str, Any], source: str) -> str:
    """The name of the cut; raises TokenizerError naming the normalizer or the pre_tokenizer that is not known."""
    name = cuts.recognise(document)
    if name is not None:
        return name
    normalizer, pre_tokenizer = document.get("normalizer"), document.get("pre_tokenizer")
    alone = [cut.pre_tokenizer for cut in CUTS.values()]
    if cuts.same(normalizer, None) or not any(cuts.same(pre_tokenizer, known) for known in alone):
        raise refused(source, f"its pre_tokenizer ({_types(pre_tokenizer)})")
    raise refused(source, f"a normalizer ({_types(normalizer)}) that changes text before it is cut so")


def _types(part: Any) -> str:
    """The types of a part, for messages; a pattern is shown up to a length."""
    if part is None:
        return "none"
    shown = [str(one.get("type")) if isinstance(one, Mapping) else repr(one)[:40] for one in members(part)]
    patterns = [one["pattern"] for one in members(part) if isinstance(one, Mapping) and "pattern" in one]
    return ", ".join(shown[:8]) + (f" of {str(patterns[0])[:80]}" if patterns else "")


def _added(token: Mapping[str, Any], source: str) -> Json:
    content, id = token["content"], token["id"]
    flags = {flag: token.get(flag, False) for flag in _FLAGS}
    if not isinstance(content, str) or not content or any(type(value) is not bool for value in flags.values()):
        raise refused(source, f"the added token {content!r}")
    return {"id": id, "content": content, **flags}


def _model(model: Mapping[str, Any], source: str, *, by_bytes: bool) -> Json:
    """The model with merges as pairs; raises TokenizerError for switches and merges that cannot be."""
    for switch in _SWITCHES:
        if model.get(switch):
            raise refused(source, f"{switch} = {model[switch]!r} in its model")
    if odd := next((key for key in model if key not in _MODEL), None):
        raise refused(source, f"{odd!r} in its model")
    if bool(model.get("byte_fallback")) and by_bytes:
        raise refused(source, "byte_fallback = True in a byte-level model")
    vocab = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    merges = [_pair(entry) for entry in model["merges"]]
    for left, right in merges:
        for token in (left, right, left + right):
            if token not in vocab:
                raise TokenizerError(
                    f"{source}: the merge of {left!r} and {right!r} needs the token {token!r}, "
                    "which the vocabulary lacks",
                    "the file is damaged: save or copy it again",
                )
    if not by_bytes:
        _check_fallback(model, vocab, source)
    unknown = model.get("unk_token")
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown if unknown in vocab else None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": bool(model.get("fuse_unk")),
        "byte_fallback": bool(model.get("byte_fallback")),
        "ignore_merges": bool(model.get("ignore_merges")),
        "vocab": vocab,
        "merges": [list(pair) for pair in merges],
    }


def _pair(entry: Any) -> tuple[str, str]:
    left, right = entry.split(" ") if isinstance(entry, str) else entry
    if not (isinstance(left, str) and isinstance(right, str) and left and right):
        raise ValueError(f"the merge {entry!r} is not a pair of tokens")
    return left, right


def _check_fallback(model: Mapping[str, Any], vocab: Mapping[str, int], source: str) -> None:
    """Characters without a token must become something: bytes, or the unknown token."""
    bytes_there = model.get("byte_fallback") and all(f"<0x{byte:02X}>" in vocab for byte in range(256))
    if not bytes_there and model.get("unk_token") not in vocab:
        raise refused(source, "a vocabulary with neither all 256 bytes nor an unknown token (it would drop characters)")


def _check_ids(vocab: Mapping[str, int], tokens: list[Json], source: str) -> None:
    """Ids are whole numbers of a possible size, each used once, and added tokens have those of the vocabulary."""
    of_id: dict[int, str] = {}
    for name, id in [*vocab.items(), *((token["content"], token["id"]) for token in tokens)]:
        if type(id) is not int or not 0 <= id < MOST_IDS:
            raise refused(source, f"the id {id!r} of {name[:80]!r} (ids go from 0 to {MOST_IDS - 1:,})")
        if of_id.setdefault(id, name) != name or vocab.get(name, id) != id:
            raise refused(source, f"its numbering (id {id} of {name[:80]!r} is used twice, or the token has two)")
    if not of_id:
        raise refused(source, "a vocabulary of 0 tokens")
    contents = [token["content"] for token in tokens]
    if len(set(contents)) < len(contents):
        raise refused(source, "an added token that is there twice")


_REPLACE = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
_SPACED = [_REPLACE, {"type": "ByteFallback"}, {"type": "Fuse"}]


def _check_decoder(decoder: Any, source: str, *, by_bytes: bool) -> None:
    """Bytes come back as they were: the decoder must be the one that belongs to the cut."""
    parts = members(decoder)
    right = (
        [part.get("type") for part in parts] == ["ByteLevel"] if by_bytes else parts in (_SPACED, [*_SPACED, _STRIP])
    )
    if not right:
        usual = "ByteLevel" if by_bytes else "Replace, ByteFallback, Fuse, Strip"
        raise refused(source, f"its decoder ({_types(decoder)}; known is {usual})")


def refused(source: str, part: str) -> TokenizerError:
    """The error that names the part."""
    advice = f"byte-level BPE with the cut of {', '.join(CUTS)} and SentencePiece's BPE are supported"
    return TokenizerError(f"{source}: {part} is not supported", advice)
