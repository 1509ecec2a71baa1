"""Tokenizers in GGUF, both ways: the `tokenizer.*` keys of a file to a tokenizer, and a tokenizer to those keys.

In: metadata as plain Python values, or a tokenizer. Out: the other. llama.cpp has two kinds that matter here: "gpt2",
byte-level BPE that replays merges by rank inside words cut by a pattern it knows by name, and "llama", SentencePiece
BPE that joins whatever gives the token of the highest score. Both come to the ids of ours, or are refused by name.

Sources: the GGUF specification (ggml, docs/gguf.md, "Tokenizer"); where it is silent, what llama.cpp reads
(src/llama-vocab.cpp).
"""

import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tokenizers import models

from groundup.errors import CheckpointError, GroundupError
from groundup.text.template import ChatTemplate
from groundup.tokens import adopted, bpe
from groundup.tokens.cuts import CUTS, SPACE, by_llama_cpp
from groundup.tokens.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)  # the types of tokens, as SentencePiece numbers them
KEY = "tokenizer.ggml."
OTHER_NAMES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2", "megrez": "qwen2"}
# llama.cpp ends a text at these, whatever the file says of them.
ENDINGS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>", "<|eom_id|>",
           "</s>", "<eos>", "[EOS]", "<EOT>", "[EOT]", "<|return|>", "<|call|>", "<end_of_utterance>", "_<EOT>",
           "<|flush|>", "<|calls|>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[")  # fmt: skip


# --- out ---------------------------------------------------------------------------------------------------------


def metadata_of(tokenizer: Tokenizer, *, vocabulary: int | None = None) -> dict[str, Any]:
    """The `tokenizer.*` keys of a GGUF file, from which llama.cpp gives the ids of `tokenizer.encode`.

    `vocabulary`: rows of the model's token table; those that no token has are filled with unused "[PADn]". Raises
    CheckpointError for a tokenizer that llama.cpp cannot follow, naming what it is about it.

    >>> from groundup import tokens
    >>> keys = metadata_of(tokens.train("bpe", ["low lower lowest"], vocabulary=260), vocabulary=261)
    >>> keys["tokenizer.ggml.merges"], keys["tokenizer.ggml.tokens"][256:], keys["tokenizer.ggml.token_type"][256:]
    (['l o', 'lo w', 'Ġ low'], ['lo', 'low', 'Ġlow', '<|endoftext|>', '[PAD260]'], [1, 1, 1, 3, 5])
    """
    if tokenizer.cut is None:
        raise CheckpointError(f"llama.cpp has no {tokenizer.kind} tokenizer", "train the model on bpe: --tokenizer bpe")
    document = tokenizer._form(tokenizer.special)
    names, kinds = _tokens(document, max(vocabulary or 0, tokenizer.vocabulary))
    if tokenizer.cut == "sentencepiece":
        keys = _sentencepiece(document, names, kinds)
    else:
        keys = _byte_level(document, tokenizer.cut)
    keys |= {KEY + "tokens": names, KEY + "token_type": kinds} | _roles(tokenizer, names)
    if tokenizer.chat_template is not None:
        keys["tokenizer.chat_template"] = tokenizer.chat_template
    return keys


def _tokens(document: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Name and type of every id; ids without a token are named as converters name them, no name standing twice."""
    model = document["model"]
    found: dict[int, tuple[str, int]] = {id: (name, _kind(name, model)) for name, id in model["vocab"].items()}
    for token in document.get("added_tokens") or []:
        unknown = found.get(token["id"], ("", NORMAL))[1] == UNKNOWN
        kind = UNKNOWN if unknown else CONTROL if token.get("special") else USER
        odd = [switch for switch in ("lstrip", "rstrip", "single_word") if token.get(switch)]
        if kind == USER and odd:
            raise CheckpointError(
                f"the added token {token['content']!r} has {odd[0]}, which llama.cpp does not do",
                "export to Hugging Face's format instead: --to hf",
            )
        found[token["id"]] = (token["content"], kind)
    taken = {name for name, _ in found.values()}
    if len(taken) < len(found):
        raise CheckpointError("two ids have the same token, which llama.cpp refuses", "give each id a token of its own")
    for id in range(size):
        if id not in found:
            name = f"[PAD{id}]"
            while name in taken:
                name = f"[{name}]"
            found[id] = (name, UNUSED)
    return [found[id][0] for id in range(size)], [found[id][1] for id in range(size)]


def _kind(name: str, model: Mapping[str, Any]) -> int:
    if model.get("byte_fallback") and len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return BYTE
    return UNKNOWN if name == model.get("unk_token") else NORMAL


def _merges(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges in their order; older files spell a pair as one string."""
    pairs = [entry.split(" ") if isinstance(entry, str) else entry for entry in document["model"]["merges"]]
    return [(left, right) for left, right in pairs]


def _byte_level(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Model "gpt2". llama.cpp joins the pair of the lowest rank, the leftmost of equals: as `tokenizers` does."""
    merges, cut = _merges(document), CUTS[name]
    if not merges:
        raise CheckpointError("the tokenizer has no merges: llama.cpp opens no such file", "learn a larger vocabulary")
    whole = bool(document["model"].get("ignore_merges"))
    if whole != cut.ignore_merges and not _all_reachable(document):
        raise CheckpointError(
            f"the tokenizer has ignore_merges {str(whole).lower()}, llama.cpp's {cut.llama_cpp!r} not, and some of its "
            "tokens do not come out of their own merges",
            "export to Hugging Face's format instead: --to hf",
        )
    special = [token["content"] for token in document.get("added_tokens") or [] if token.get("special")]
    word = next((token for token in special if cut.ignore_merges and bpe.split(token, name) == [token]), None)
    if word is not None:
        raise CheckpointError(
            f"llama.cpp would read {word!r} in plain text as the special token of that name", "rename the special token"
        )
    return {KEY + "model": "gpt2", KEY + "pre": cut.llama_cpp, KEY + "merges": [" ".join(pair) for pair in merges]}


def _all_reachable(document: Mapping[str, Any]) -> bool:
    """Whether the merges lead to every token: then it is the same to look a word up first or not."""
    vocab = document["model"]["vocab"]
    replay = models.BPE(vocab, _merges(document))
    special = {token["content"] for token in document.get("added_tokens") or []}
    return all(len(replay.tokenize(name)) == 1 for name in vocab if name not in special)


def _sentencepiece(document: Mapping[str, Any], names: Sequence[str], kinds: Sequence[int]) -> dict[str, Any]:
    """Model "llama". It keeps no merges: what is joined first is the pair whose union has the highest score.

    A token's score here is less the later the merge comes that completes it. llama.cpp then joins as the merges do. For
    suppose it joined u and v into t. Everything of a higher score was joined before, and no join crossed the ends of t,
    so inside t all went as the merges go on t alone; they lead to t, by just one last join: that of u and v.
    """
    prefix = _space_prefix(document, names)
    missing = next((byte for byte in range(256) if f"<0x{byte:02X}>" not in document["model"]["vocab"]), None)
    if missing is not None or not document["model"].get("byte_fallback"):
        raise CheckpointError(
            "the tokenizer has no tokens for single bytes: llama.cpp stops at characters it does not know",
            "use a tokenizer with byte fallback",
        )
    ranks = {pair: rank for rank, pair in enumerate(_merges(document))}
    scores, known = [0.0] * len(names), frozenset(names)
    for id, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        if kind == NORMAL:
            scores[id] = -float(_completed(name, ranks))
        elif kind != UNUSED:
            _check_unspelt(name, known)
    return {KEY + "model": "llama", KEY + "pre": "default", KEY + "scores": scores, KEY + "add_space_prefix": prefix}


def _completed(name: str, ranks: Mapping[tuple[str, str], int]) -> int:
    """The rank, from 1, of the merge that completes a token when its characters are merged alone; 0 for characters."""
    parts, last = list(name), -1
    while len(parts) > 1:
        rank, place = min(
            (ranks.get(pair, len(ranks)), i) for i, pair in enumerate(zip(parts, parts[1:], strict=False))
        )
        if rank == len(ranks):
            raise CheckpointError(
                f"the merges do not lead to the token {name!r}, which llama.cpp would use",
                "export to Hugging Face's format instead: --to hf",
            )
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
        last = rank
    return last + 1


def _check_unspelt(name: str, known: Collection[str]) -> None:
    """Refuse a special token that plain text could be joined into: llama.cpp joins to any token, special or not."""
    for place in range(1, len(name)):
        left, right = name[:place], name[place:]
        if (len(left) == 1 or left in known) and (len(right) == 1 or right in known):
            raise CheckpointError(
                f"llama.cpp would read {left!r} and {right!r} in plain text as the special token {name!r}",
                "rename the special token",
            )


def _space_prefix(document: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether a space is put before a text. Refuses normalizers and cuts that llama.cpp does not have."""
    normalizer, cut = document.get("normalizer"), document.get("pre_tokenizer")
    steps = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
    kinds = [step["type"] for step in steps]
    if cut is None and kinds in (["Prepend", "Replace"], ["Replace"]):
        return kinds[0] == "Prepend"
    inside = any(SPACE in name[1:] for name in names)
    if not kinds and cut is not None and cut.get("type") == "Metaspace" and not (cut.get("split", True) and inside):
        return cut.get("prepend_scheme", "always") != "never"
    raise CheckpointError(
        "llama.cpp cannot prepare text as this tokenizer does (its normalizer or its pre_tokenizer)",
        "export to Hugging Face's format instead: --to hf",
    )


def _roles(tokenizer: Tokenizer, names: Sequence[str]) -> dict[str, Any]:
    """The ids with a meaning. Those left out llama.cpp would fill by its own defaults, id 11 among them."""
    if tokenizer.eos is None:
        raise CheckpointError(
            "the tokenizer has no token that ends a text; llama.cpp would take an ordinary one for it",
            "train with an end-of-text token",
        )
    more = [id for id in ends(tokenizer) if id != tokenizer.eos and names[id] not in ENDINGS]
    turn = turn_end(tokenizer)
    if turn not in (None, tokenizer.eos):
        more = [turn, *(id for id in more if id != turn)]
    if len(more) > 2:
        raise CheckpointError(
            f"the tokenizer has {len(more) + 1} ends, a GGUF file has room for 3", "give fewer end-of-text ids"
        )
    roles = {
        "bos": tokenizer.eos if tokenizer.bos is None else tokenizer.bos,
        "eos": tokenizer.eos,
        "eot": more[0] if more else None,
        "eom": more[1] if more[1:] else None,
        "padding": tokenizer.pad,
        "unknown": tokenizer.unknown,
    }
    ids = {f"{KEY}{role}_token_id": id for role, id in roles.items() if id is not None}
    return ids | {KEY + "add_bos_token": tokenizer.adds_bos, KEY + "add_eos_token": False}


def ends(tokenizer: Tokenizer) -> list[int]:
    """Every id that ends what the model says: the tokenizer's, and what its chat template puts after an answer."""
    turn = turn_end(tokenizer)
    return list(dict.fromkeys([*tokenizer.ends, *([] if turn is None else [turn])]))


def turn_end(tokenizer: Tokenizer) -> int | None:
    """The special token that the chat template puts behind an answer; None without one."""
    if tokenizer.chat_template is None:
        return None
    names = {id: name for name, id in tokenizer.special.items()}
    bos, eos = (names.get(id, "") if id is not None else "" for id in (tokenizer.bos, tokenizer.eos))
    talk = [{"role": "user", "content": "Qx?"}, {"role": "assistant", "content": "Ay."}]
    try:
        text = ChatTemplate(tokenizer.chat_template, bos=bos, eos=eos).render(talk)
    except GroundupError:  # a template that refuses this conversation tells nothing
        return None
    after = text.partition("Ay.")[2].lstrip()
    found = [name for name in tokenizer.special if after.startswith(name)]
    return tokenizer.special[max(found, key=len)] if found else None


def remarks(tokenizer: Tokenizer) -> list[str]:
    """What llama.cpp does otherwise with an exported tokenizer, a sentence each; none for what groundup trains.

    The ids of `encode` are the same but where a sentence says so.
    """
    if tokenizer.cut is None:
        return []
    document = tokenizer._form(tokenizer.special)
    vocab, special = document["model"]["vocab"], tokenizer.special
    found = [f"llama.cpp ends a text at the ordinary token {name!r}" for name in ENDINGS
             if name in vocab and name not in special]  # fmt: skip
    if (document.get("normalizer") or {}).get("type") == "NFC":
        found.append("llama.cpp does not compose characters (NFC): decomposed accents give other ids there")
    strips = [
        token["content"] for token in document.get("added_tokens") or [] if token.get("lstrip") or token.get("rstrip")
    ]
    if strips:
        found.append(f"llama.cpp keeps the white space beside the special token {strips[0]!r}")
    cut = document.get("pre_tokenizer") or {}
    if cut.get("type") == "Metaspace" and cut.get("prepend_scheme", "always") != "never":
        found.append("llama.cpp puts a space before a text even if it begins with one")
    return found


# --- in ----------------------------------------------------------------------------------------------------------


def tokenizer_of(metadata: Mapping[str, Any], source: str) -> Tokenizer:
    """The tokenizer of a GGUF file, chat template included; `source` names the file in messages.

    Trailing unused "[PADn]" tokens without a role, which fill a table up, are no part of it. Raises CheckpointError, or
    TokenizerError of the tokenizer's own, naming the key that is missing, malformed or not supported.
    """
    model = metadata.get(KEY + "model")
    names = _array(metadata, "tokens", str, source)
    kinds = _array(metadata, "token_type", int, source, default=[NORMAL] * len(names))
    if odd := set(kinds).difference(range(NORMAL, BYTE + 1)):
        raise _broken(source, f"{KEY}token_type holds {min(odd)}, which is none of {NORMAL} to {BYTE}")
    if len(kinds) != len(names) or not names:
        raise _broken(source, f"{len(names):,} tokens and {len(kinds):,} token types")
    if len(set(names)) < len(names):
        raise _broken(source, "the same token twice")
    _check_flags(metadata, source)
    size = len(names)
    ids = {role: _id(metadata, key, size, source) for role, key in ROLE_KEYS.items()}
    more = [_id(metadata, key, size, source) for key in ("eot_token_id", "eom_token_id")]
    roles = {0, *ids.values(), *more}
    while kinds[size - 1] == UNUSED and names[size - 1].startswith("[PAD") and size - 1 not in roles:
        size -= 1
    if model == "gpt2":
        document, config = _read_byte_level(metadata, names[:size], kinds[:size], ids, source)
    elif model == "llama":
        document, config = _read_sentencepiece(metadata, names[:size], kinds[:size], ids, source)
    else:
        raise CheckpointError(
            f"{source}: the tokenizer model {reprlib.repr(model)} is not supported",
            'use a file with "gpt2" (BPE) or "llama"',
        )
    tokenizer = adopted.from_document(document, config=config, source=source)
    template = metadata.get("tokenizer.chat_template", "")
    if not isinstance(template, str):
        raise _broken(source, f"tokenizer.chat_template is {reprlib.repr(template)}, not text")
    if template:
        tokenizer = tokenizer.with_template(template)
    named = [tokenizer.special[name] for name in ENDINGS if name in tokenizer.special]
    found = dict.fromkeys([*more, turn_end(tokenizer), *named])
    kept = [id for id in found if id is not None and id not in tokenizer.ends]
    return tokenizer.with_manner(replace(tokenizer.manner, ends=(*tokenizer.manner.ends, *kept)))


ROLE_KEYS = {"bos": "bos_token_id", "eos": "eos_token_id", "unk": "unknown_token_id", "pad": "padding_token_id"}


def _broken(source: str, what: str) -> CheckpointError:
    return CheckpointError(f"{source}: its vocabulary is damaged: {what}", "fetch the file again")


def _array(metadata: Mapping[str, Any], name: str, kind: type, source: str, default: Any = None) -> list[Any]:
    """The values of an array, every one of a type; raises CheckpointError where it is missing or holds others."""
    value = metadata.get(KEY + name, default)
    if value is None:
        raise _broken(source, f"{KEY}{name} is missing")
    values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [None]
    odd = next((entry for entry in values if type(entry) is not kind), None)
    if values and (odd is not None or None in values[:1]):
        raise _broken(source, f"{KEY}{name} holds {reprlib.repr(odd)}")
    return values


def _id(metadata: Mapping[str, Any], key: str, size: int, source: str) -> int | None:
    """The id of a special token, None where the file names none."""
    value = metadata.get(KEY + key)
    if value is not None and (type(value) is not int or not 0 <= value < size):
        raise _broken(source, f"{KEY}{key} is {reprlib.repr(value)}, and its ids are 0 to {size - 1:,}")
    return value


def _flag(metadata: Mapping[str, Any], name: str, source: str, *, default: bool = False) -> bool:
    """A switch; raises CheckpointError for what is neither true nor false."""
    value = metadata.get(KEY + name, default)
    if not isinstance(value, bool):
        raise _broken(source, f"{KEY}{name} is {reprlib.repr(value)}, neither true nor false")
    return value


def _check_flags(metadata: Mapping[str, Any], source: str) -> None:
    """Refuse what would put more around a text than bos, or change it beforehand."""
    for name in ("add_eos_token", "add_sep_token", "remove_extra_whitespaces"):
        if _flag(metadata, name, source):
            raise CheckpointError(f"{source}: {KEY}{name} is true, which is not supported", "use another file")
    if metadata.get(KEY + "precompiled_charsmap"):
        raise CheckpointError(
            f"{source}: {KEY}precompiled_charsmap (it rewrites text) is not supported", "use another file"
        )


def _read_byte_level(
    metadata: Mapping[str, Any], names: list[str], kinds: list[int], ids: Mapping[str, int | None], source: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    pre = metadata.get(KEY + "pre", "default")
    cut = by_llama_cpp(OTHER_NAMES.get(str(pre), str(pre)))
    if cut is None or not CUTS[cut].by_bytes:
        known = ", ".join(cut.llama_cpp for cut in CUTS.values() if cut.by_bytes)
        raise CheckpointError(
            f"{source}: the pre-tokenizer {reprlib.repr(pre)} is not supported", f"known are: {known}"
        )
    roles = {role: names[id] for role, id in ids.items() if id is not None}
    special = {name: id for id, name in enumerate(names) if kinds[id] in (UNKNOWN, CONTROL)}
    return adopted.byte_level_json(
        names,
        _array(metadata, "merges", str, source),
        cut=cut,
        special=special | {names[id]: id for id in ids.values() if id is not None},
        adds_bos=_flag(metadata, "add_bos_token", source, default=CUTS[cut].ignore_merges),
        added=[name for name, kind in zip(names, kinds, strict=True) if kind == USER],
        **roles,
    )


def _read_sentencepiece(
    metadata: Mapping[str, Any], names: list[str], kinds: list[int], ids: Mapping[str, int | None], source: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    scores = _array(metadata, "scores", float, source)
    if len(scores) < len(names):
        raise _broken(source, f"{len(names):,} tokens and {len(scores):,} scores")
    return adopted.sentencepiece_json(
        names,
        scores[: len(names)],
        kinds,
        prefix_space=_flag(metadata, "add_space_prefix", source, default=True),
        adds_bos=_flag(metadata, "add_bos_token", source, default=True),
        **ids,
    )
