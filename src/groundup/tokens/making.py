"""A tokenizer.json made from the parts that other files hold: GGUF's lists, SentencePiece's pieces and scores.

In: tokens in the order of ids, merges or scores, what the tokens are for. Out: (tokenizer.json, tokenizer_config.json),
which `adopted.from_document` opens and checks like any other.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from groundup.errors import TokenizerError, nearest
from groundup.tokens import checking
from groundup.tokens.cuts import CUTS, SPACE

Json = dict[str, Any]
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(
    1, 7
)  # SentencePiece's kinds of pieces (sentencepiece_model.proto)
LONGEST = 1000  # characters of a piece; published vocabularies have some hundred at most
KEYS = {"bos": "bos_token", "eos": "eos_token", "pad": "pad_token", "unk": "unk_token"}


def byte_level_json(
    tokens: Sequence[str],
    merges: Sequence[str],
    *,
    cut: str,
    special: Mapping[str, int],
    adds_bos: bool = False,
    added: Collection[str] = (),
    **roles: str | None,
) -> tuple[Json, Json]:
    """(tokenizer.json, tokenizer_config.json) of byte-level BPE.

    `tokens`: spelt in stand-in characters, special ones included, id = place; `merges`: "left right" in the order they
    apply; `cut`: a name in CUTS; `special`: name to id; `added`: names that are found in a text before it is cut, but
    are not special (GGUF's type 4, user defined); `roles`: bos=, eos=, pad=, unk=, eot= as names or None. eot ends
    generation as eos does. Raises TokenizerError.

    >>> document, config = byte_level_json(["a", "b", "ab", "<s>"], ["a b"], cut="gpt2", special={"<s>": 3}, bos="<s>")
    >>> document["model"]["merges"], document["added_tokens"][0]["content"], config
    ([['a', 'b']], '<s>', {'bos_token': '<s>', 'add_bos_token': False})
    """
    if cut not in CUTS or not CUTS[cut].by_bytes:
        known = [name for name, entry in CUTS.items() if entry.by_bytes]
        raise TokenizerError(f"no byte-level cut is called {cut!r}", nearest(cut, known))
    ids = _numbered(tokens)
    wrong = next((name for name, id in special.items() if ids.get(name) != id), None)
    wrong = wrong or next((name for name in added if name not in ids), None)
    if wrong is not None:
        raise TokenizerError(f"{wrong!r} is not the token of its id", "the file is damaged: fetch it again")
    outside = [checking.added(name, id) for name, id in special.items()]
    outside += [checking.added(name, ids[name], special=False) for name in added if name not in special]
    model = _model(
        _without_last(ids, outside), [_pair(merge) for merge in merges], ignore_merges=CUTS[cut].ignore_merges
    )
    return _document(model, outside, cut=cut, decoder={"type": "ByteLevel"}), _config(roles, ids, adds_bos=adds_bos)


def sentencepiece_json(
    pieces: Sequence[str],
    scores: Sequence[float],
    kinds: Sequence[int],
    *,
    prefix_space: bool,
    adds_bos: bool,
    **roles: int | None,
) -> tuple[Json, Json]:
    """(tokenizer.json, tokenizer_config.json) of SentencePiece's BPE with byte fallback.

    `pieces`: with U+2581 for a space, id = place; `scores`: the highest joins first; `kinds`: 1 normal, 2 unknown,
    3 control, 4 user defined, 5 unused, 6 byte; `prefix_space`: one is put before every text, and before what follows a
    special token, as transformers ("legacy") and llama.cpp do; `roles`: bos=, eos=, unk=, pad=, eot= as ids or None.
    A user-defined piece is found in a text before all else, as in transformers and llama.cpp; SentencePiece's own
    program puts no second space behind one. Raises TokenizerError for scores that do not order the merges.

    >>> pieces, kinds = ["<unk>", "<s>", "▁", "a", "▁a"], [2, 3, 1, 1, 1]
    >>> document, _ = sentencepiece_json(pieces, [0, 0, -2, -3, -1], kinds, prefix_space=True, adds_bos=True, unk=0)
    >>> document["model"]["merges"]
    [['▁', 'a']]
    """
    ids = _numbered(pieces)
    if not len(pieces) == len(scores) == len(kinds):
        raise TokenizerError(
            f"{len(pieces):,} pieces, {len(scores):,} scores and {len(kinds):,} kinds", "give one of each for every id"
        )
    merges = merges_of(pieces, scores, kinds)
    outside = [
        checking.added(piece, id, special=kinds[id] != USER)
        for piece, id in ids.items()
        if kinds[id] in (UNKNOWN, CONTROL, USER)
    ]
    unknown = roles.get("unk")
    model = _model(ids, merges, ignore_merges=False) | {
        "unk_token": None if unknown is None else _name(pieces, unknown),
        "fuse_unk": True,  # characters unknown in a row are one, as in SentencePiece
        "byte_fallback": BYTE in kinds,
    }
    spaces: list[Json] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}]
    ends: list[Json] = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix_space else []
    decoder = {"type": "Sequence", "decoders": [*spaces, {"type": "Fuse"}, *ends]}
    document = _document(model, outside, cut="sentencepiece", decoder=decoder)
    if not prefix_space:
        document["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    names = {role: None if id is None else _name(pieces, id) for role, id in roles.items()}
    return document, _config(names, ids, adds_bos=adds_bos)


def merges_of(pieces: Sequence[str], scores: Sequence[float], kinds: Sequence[int]) -> list[tuple[str, str]]:
    """The merges that join as the scores do: every way to halve a piece into pieces, the best score first.

    SentencePiece has no merges: it joins the neighbours whose union has the highest score, the leftmost of equals
    (Kudo and Richardson 2018; bpe_model.cc). Only normal pieces are made by joining. Raises TokenizerError where scores
    cannot say the order: NaN, two such pieces of one score, or an unused piece that joining would make.

    >>> merges_of(["a", "b", "ab", "aba"], [-9, -8, -1, -2], [1, 1, 1, 1])
    [('a', 'b'), ('ab', 'a')]
    """
    whole = {piece for piece, kind in zip(pieces, kinds, strict=True) if kind == NORMAL}
    found: list[tuple[float, int, str, str]] = []
    for piece, score, kind in zip(pieces, scores, kinds, strict=True):
        if kind not in (NORMAL, UNUSED) or len(piece) > LONGEST:
            continue
        halves = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in whole and piece[i:] in whole]
        if halves and (kind == UNUSED or not math.isfinite(score)):
            problem = "is unused, yet joining makes it" if kind == UNUSED else f"has the score {score}"
            raise TokenizerError(f"the piece {piece!r} {problem}", "give a BPE tokenizer whose scores order its merges")
        found += [(-score, -len(left), left, right) for left, right in halves]
    _check_ties(found)
    return [(left, right) for _, _, left, right in sorted(found)]


def _check_ties(found: Sequence[tuple[float, int, str, str]]) -> None:
    """Refuse two pieces of one score, whose joins could compete; runs of one sign cannot.

    Llama 2 has runs of 2 to 16 spaces of the same score: in a stretch of spaces every join gives a longer one, and that
    the leftmost comes first is the same rule on both sides.
    """
    made = {left + right: score for score, _, left, right in found if len(set(left + right)) > 1}
    score, count = next(iter(Counter(made.values()).most_common(1)), (0.0, 0))
    if count > 1:
        names = [piece for piece, value in made.items() if value == score]
        raise TokenizerError(
            f"{count:,} pieces have the score {-score:g}, such as {names[0]!r} and {names[1]!r}: which joins first?",
            "give a BPE tokenizer whose scores order its merges",
        )


def _numbered(tokens: Sequence[str]) -> dict[str, int]:
    """Token to id; raises TokenizerError for a token that is there twice, empty or far too long."""
    ids = {token: id for id, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        twice = next(token for id, token in enumerate(tokens) if ids[token] != id)
        raise TokenizerError(f"the token {twice[:80]!r} is there twice", "the file is damaged: fetch it again")
    odd = next((token for token in tokens if not 0 < len(token) <= LONGEST), None)
    if odd is not None:
        raise TokenizerError(
            f"a token of {len(odd):,} characters (1 to {LONGEST:,} are possible)", "the file is damaged: fetch it again"
        )
    return ids


def _name(pieces: Sequence[str], id: int) -> str:
    if not 0 <= id < len(pieces):
        raise TokenizerError(f"id {id} of {len(pieces):,} tokens has a role", "the file is damaged: fetch it again")
    return pieces[id]


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    if not left or not right or " " in right:
        raise TokenizerError(f"the merge {merge[:80]!r} is not two tokens", "the file is damaged: fetch it again")
    return left, right


def _without_last(ids: Mapping[str, int], outside: Sequence[Json]) -> dict[str, int]:
    """The vocabulary without the added tokens that end it: the library gives them the same numbers by itself."""
    vocab, names = dict(ids), {token["content"] for token in outside}
    for token in reversed(list(ids)):
        if token not in names:
            break
        del vocab[token]
    return vocab


def _model(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], *, ignore_merges: bool) -> Json:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": ignore_merges,
        "vocab": dict(vocab),
        "merges": [list(pair) for pair in merges],
    }


def _document(model: Json, outside: Sequence[Json], *, cut: str, decoder: Json) -> Json:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(outside),
        "normalizer": CUTS[cut].normalizer,
        "pre_tokenizer": CUTS[cut].pre_tokenizer,
        "post_processor": None,
        "decoder": decoder if decoder["type"] != "ByteLevel" else CUTS["gpt2"].pre_tokenizer,
        "model": model,
    }


def _config(roles: Mapping[str, str | None], ids: Mapping[str, int], *, adds_bos: bool) -> Json:
    config: Json = {KEYS[role]: name for role, name in roles.items() if name is not None and role in KEYS}
    if (eot := roles.get("eot")) is not None:
        config["eos_token_id"] = [ids[eot]]  # as generation_config.json lists what ends generation
    return config | {"add_bos_token": adds_bos}
