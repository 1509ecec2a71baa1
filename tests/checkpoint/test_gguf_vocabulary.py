"""Vocabularies of GGUF: keys worked by hand, there and back, and the ids that llama.cpp gives."""

import json
import random
import re
import unicodedata
from pathlib import Path

import pytest

from groundup import tokens
from groundup.checkpoint.gguf import vocabulary, write
from groundup.errors import CheckpointError, TokenizerError
from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.tokens import adopted

KEY = "tokenizer.ggml."
TEXT = (
    "low lower lowest, the cat sat on the mat; it's 1908 and 42 cats don't, they'll say. Grüße, 日本語! 🙂\n\n  x\ty\n"
)


@pytest.fixture(scope="module")
def ours():
    return tokens.train("bpe", [TEXT] * 3, vocabulary=320)


def hard_texts(count: int, seed: int = 1) -> list[str]:
    """Random strings over all planes, runs of spaces, words, digits and specials' names; no half surrogate pairs."""
    draw = random.Random(seed)
    words = [" ", "  ", "\n", "\r\n", "\t", "'ll", "'S", "low", "LOWER", "12345", "<|endoftext|>", "é", "e\u0301"]
    words += [
        "日本",
        "🙂\u200d🙂",
        "\u00a0",
        "\u2003",
        "\x1c",
        "\x85",
        "_",
        "...",
        "</s>",
        "\u0e01\u0e33",
        "\u0628\u0650",
    ]
    spans = [(0x20, 0x7F), (0xA0, 0x17F), (0x300, 0x36F), (0x400, 0x5FF), (0x900, 0xDFF), (0x2000, 0x27FF)]
    spans += [(0x3000, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x1FFFF), (0x20000, 0x2FFFF), (0x30000, 0x10FFFF)]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(draw.randrange(1, 12)):
            low, high = draw.choice(spans)
            parts.append(draw.choice(words) if draw.random() < 0.5 else chr(draw.randint(low, high)))
        texts.append("".join(parts))
    return texts


# --- byte-level BPE, out -----------------------------------------------------------------------------------------


def test_keys_by_hand():
    tokenizer = tokens.train("bpe", ["low lower lowest"], vocabulary=261, special=["<|endoftext|>", "<|pad|>"])
    keys = vocabulary.metadata_of(tokenizer, vocabulary=264)
    assert keys[KEY + "model"] == "gpt2" and keys[KEY + "pre"] == "gpt-2"
    assert keys[KEY + "merges"] == ["l o", "lo w", "Ġ low"]
    assert keys[KEY + "tokens"][:3] == ["!", '"', "#"] and keys[KEY + "tokens"][220] == "Ġ"
    assert keys[KEY + "tokens"][256:] == ["lo", "low", "Ġlow", "<|endoftext|>", "<|pad|>"] + [
        "[PAD261]", "[PAD262]", "[PAD263]"
    ]  # fmt: skip
    assert keys[KEY + "token_type"][255:] == [1, 1, 1, 1, 3, 3, 5, 5, 5]
    assert (keys[KEY + "eos_token_id"], keys[KEY + "bos_token_id"], keys[KEY + "padding_token_id"]) == (259, 259, 260)
    assert keys[KEY + "add_bos_token"] is False and keys[KEY + "add_eos_token"] is False
    assert KEY + "eot_token_id" not in keys and "tokenizer.chat_template" not in keys


def test_control_tokens_end_a_text_by_their_names():
    """llama.cpp ends a text at <|eom_id|>, a control token, though the file says nothing of it."""
    special = ["<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|turn|>"]
    tokenizer = tokens.train("bpe", ["low low"], vocabulary=261, special=special)
    keys = vocabulary.metadata_of(tokenizer) | {KEY + "eos_token_id": 258}
    assert KEY + "eom_token_id" not in keys and keys[KEY + "tokens"][257:] == special
    assert vocabulary.tokenizer_of(keys, "a file").ends == [258, 257, 259]


def test_a_padding_name_is_never_a_token_that_is_there():
    tokenizer = tokens.train("bpe", ["low low"], vocabulary=259, special=["<|endoftext|>", "[PAD259]"])
    keys = vocabulary.metadata_of(tokenizer, vocabulary=261)
    assert keys[KEY + "tokens"][256:] == ["lo", "<|endoftext|>", "[PAD259]", "[[PAD259]]", "[PAD260]"]


def test_the_end_of_a_turn_goes_into_the_file():
    special = ["<|endoftext|>", "<|bos|>", "<|turn|>"]
    tokenizer = tokens.train("bpe", ["a cat a cat"], vocabulary=262, special=special)
    template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|turn|>\n' }}{% endfor %}"
    keys = vocabulary.metadata_of(tokenizer.with_template(template))
    assert keys[KEY + "eot_token_id"] == tokenizer.special["<|turn|>"]
    assert keys[KEY + "bos_token_id"] == tokenizer.special["<|bos|>"]
    assert keys["tokenizer.chat_template"] == template
    again = vocabulary.tokenizer_of(keys, "m.gguf")
    assert again.ends == [tokenizer.special["<|endoftext|>"], tokenizer.special["<|turn|>"]]
    assert again.chat_template == template
    assert vocabulary.ends(tokenizer.with_template(template)) == [
        tokenizer.special["<|endoftext|>"], tokenizer.special["<|turn|>"]
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["chars", "words"])
def test_kinds_that_llama_cpp_has_not_are_refused(kind):
    with pytest.raises(CheckpointError, match=f"no {kind} tokenizer\n.*bpe"):
        vocabulary.metadata_of(tokens.train(kind, ["a cat sat"]))


def test_without_an_end_it_is_refused():
    """llama.cpp would take id 11, a comma, for the end."""
    with pytest.raises(CheckpointError, match="no token that ends a text"):
        vocabulary.metadata_of(tokens.train("bpe", ["low low"], vocabulary=258, special=[]))


def test_without_merges_it_is_refused():
    with pytest.raises(CheckpointError, match="no merges"):
        vocabulary.metadata_of(tokens.train("bpe", ["a"], vocabulary=257))


# --- byte-level BPE, in ------------------------------------------------------------------------------------------


def test_there_and_back_is_the_same_tokenizer(ours):
    again = vocabulary.tokenizer_of(vocabulary.metadata_of(ours, vocabulary=400), "m.gguf")
    assert again.fingerprint == ours.fingerprint and again.special == ours.special
    assert again.eos == ours.eos and again.adds_bos is False


def of_cut(cut: str):
    """A tokenizer with another cut, its merges learnt by ours."""
    special = ["<|end_of_text|>", "<|begin_of_text|>"]
    keys = vocabulary.metadata_of(tokens.train("bpe", [TEXT] * 3, vocabulary=310, special=special))
    document, config = adopted.byte_level_json(
        keys[KEY + "tokens"],
        keys[KEY + "merges"],
        cut=cut,
        special={"<|end_of_text|>": 308, "<|begin_of_text|>": 309},
        adds_bos=cut == "llama3",
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
    )
    return adopted.from_document(document, config=config, source="test")


@pytest.mark.parametrize("cut", ["llama3", "qwen2", "smollm", "gpt2"])
def test_other_cuts_there_and_back(cut):
    tokenizer = of_cut(cut)
    keys = vocabulary.metadata_of(tokenizer, vocabulary=400)
    names = {"llama3": "llama-bpe", "qwen2": "qwen2", "smollm": "smollm", "gpt2": "gpt-2"}
    assert keys[KEY + "pre"] == names[cut] and keys[KEY + "add_bos_token"] is (cut == "llama3")
    again = vocabulary.tokenizer_of(keys, "m.gguf")
    for text in [TEXT, *hard_texts(200)]:
        assert again.encode(text) == tokenizer.encode(text)
    assert again.special == tokenizer.special and again.start == tokenizer.start and again.eos == tokenizer.eos


def test_a_special_token_that_is_a_word_is_refused_where_whole_words_are_looked_up():
    """With Llama 3's cut llama.cpp looks a word up among all tokens before it merges."""
    assert vocabulary.metadata_of(of_cut("smollm").with_special(["END"]))[KEY + "tokens"][-1] == "END"
    with pytest.raises(CheckpointError, match="read 'END' in plain text as the special token"):
        vocabulary.metadata_of(of_cut("llama3").with_special(["END"]))


def changed(ours, **values):
    keys = vocabulary.metadata_of(ours) | {KEY + name: value for name, value in values.items()}
    return {name: value for name, value in keys.items() if value is not None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "t5"}, "tokenizer model 't5' is not supported"),
        ({"model": None}, "tokenizer model None is not supported"),
        ({"pre": "tekken"}, "pre-tokenizer 'tekken' is not supported\n.*llama-bpe"),
        ({"pre": None}, "pre-tokenizer 'default' is not supported"),
        ({"pre": ["gpt-2"]}, "pre-tokenizer"),
        ({"tokens": None}, "tokenizer.ggml.tokens is missing"),
        ({"tokens": []}, "0 tokens"),
        ({"tokens": "abc"}, "tokenizer.ggml.tokens holds"),
        ({"tokens": [1, 2]}, "tokenizer.ggml.tokens holds 1"),
        ({"merges": None}, "tokenizer.ggml.merges is missing"),
        ({"merges": [3]}, "tokenizer.ggml.merges holds 3"),
        ({"token_type": [1]}, "320 tokens and 1 token types"),
        ({"token_type": [1.0] * 320}, "tokenizer.ggml.token_type holds 1.0"),
        ({"tokens": ["a"] * 320}, "the same token twice"),
        ({"eos_token_id": -1}, "eos_token_id is -1"),
        ({"eos_token_id": "319"}, "eos_token_id is '319'"),
        ({"eos_token_id": 320}, "eos_token_id is 320, and its ids are 0 to 319"),
        ({"eot_token_id": 320}, "eot_token_id is 320"),
        ({"token_type": [0] + [1] * 319}, "token_type holds 0, which is none of 1 to 6"),
        ({"add_bos_token": "no"}, "add_bos_token is 'no'"),
        ({"add_bos_token": 1}, "add_bos_token is 1"),
        ({"add_eos_token": True}, "add_eos_token is true"),
        ({"precompiled_charsmap": [1, 2]}, "precompiled_charsmap"),
    ],
)
def test_damaged_and_foreign_vocabularies_are_refused(ours, change, words):
    with pytest.raises(CheckpointError, match=words):
        vocabulary.tokenizer_of(changed(ours, **change), "m.gguf")


def test_a_filling_token_with_a_role_is_kept_and_those_behind_it_are_not(ours):
    """Some files pad with a "[PADn]": 320 tokens, five that fill the table up, the second of them for padding."""
    keys = vocabulary.metadata_of(ours, vocabulary=325) | {KEY + "padding_token_id": 321}
    tokenizer = vocabulary.tokenizer_of(keys, "m.gguf")
    assert (tokenizer.vocabulary, tokenizer.pad) == (322, 321)


@pytest.mark.parametrize("merges", [["zz qq"], ["lo"], ["l o w"], [""]])
def test_merges_of_what_is_not_there_are_refused(ours, merges):
    with pytest.raises((CheckpointError, TokenizerError)):
        vocabulary.tokenizer_of(changed(ours, merges=merges), "m.gguf")


# --- SentencePiece -----------------------------------------------------------------------------------------------

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
WORDS = [
    "▁",
    "l",
    "o",
    "w",
    "e",
    "r",
    "a",
    "t",
    "▁l",
    "lo",
    "ow",
    "▁lo",
    "low",
    "▁low",
    "er",
    "▁lower",
    "at",
    "▁a",
    "▁at",
]
# later pieces have lower scores, but for the joins that SentencePiece learnt first
SCORES = [-90.0] * 8 + [-7.0, -2.0, -3.0, -6.0, -4.0, -5.0, -1.0, -8.0, -9.0, -10.0, -11.0]


def sentencepiece(adds_bos: bool = True, prefix: bool = True, more: tuple[str, ...] = ()):
    """`more`: pieces behind the others, each of a lower score than the one before."""
    pieces = ["<unk>", "<s>", "</s>", *BYTES, *WORDS, *more]
    kinds = [2, 3, 3, *[6] * 256, *[1] * (len(WORDS) + len(more))]
    scores = [0.0] * 259 + SCORES + [-20.0 - i for i in range(len(more))]
    document, config = adopted.sentencepiece_json(
        pieces, scores, kinds, prefix_space=prefix, adds_bos=adds_bos, bos=1, eos=2, unk=0
    )
    return adopted.from_document(document, config=config, source="test")


def greedy(text: str, keys) -> list[int]:
    """llama.cpp's way: join the neighbours whose union has the highest score, the leftmost of equals."""
    ids = {name: id for id, name in enumerate(keys[KEY + "tokens"])}
    scores = keys[KEY + "scores"]
    parts = list(("▁" if keys[KEY + "add_space_prefix"] and text else "") + text.replace(" ", "▁"))
    while True:
        joins = [
            (-scores[ids[a + b]], i) for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False)) if a + b in ids
        ]
        if not joins:
            break
        place = min(joins)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return [id for part in parts for id in ([ids[part]] if part in ids else [3 + byte for byte in part.encode()])]


def test_sentencepiece_by_hand():
    keys = vocabulary.metadata_of(sentencepiece(), vocabulary=280)
    assert keys[KEY + "model"] == "llama" and keys[KEY + "add_space_prefix"] is True
    assert keys[KEY + "add_bos_token"] is True and keys[KEY + "add_eos_token"] is False
    assert keys[KEY + "token_type"][:4] == [2, 3, 3, 6] and keys[KEY + "token_type"][259:] == [1] * 19 + [5, 5]
    assert [keys[f"{KEY}{role}_token_id"] for role in ("unknown", "bos", "eos")] == [0, 1, 2]
    scores = dict(zip(keys[KEY + "tokens"], keys[KEY + "scores"], strict=True))
    assert scores["er"] > scores["lo"] > scores["low"] > scores["▁low"] > scores["▁lower"]
    assert scores["l"] == scores["<s>"] == 0.0


@pytest.mark.parametrize("prefix", [True, False])
def test_joining_by_score_gives_the_ids_of_the_merges(prefix):
    tokenizer = sentencepiece(prefix=prefix)
    keys = vocabulary.metadata_of(tokenizer)
    draw = random.Random(3)
    texts = ["".join(draw.choice("lowerat  lé\n日") for _ in range(draw.randrange(1, 30))) for _ in range(1000)]
    for text in ["low lower at allow", *texts]:
        assert tokenizer.encode(text) == greedy(text, keys)


def test_a_space_prefix_that_is_no_switch_is_refused():
    keys = vocabulary.metadata_of(sentencepiece()) | {KEY + "add_space_prefix": "false"}
    with pytest.raises(CheckpointError, match="add_space_prefix is 'false', neither true nor false"):
        vocabulary.tokenizer_of(keys, "m.gguf")


def test_sentencepiece_there_and_back():
    tokenizer = sentencepiece()
    again = vocabulary.tokenizer_of(vocabulary.metadata_of(tokenizer, vocabulary=300), "m.gguf")
    assert again.start == tokenizer.start == [1] and again.eos == 2
    for text in ["low lower at", " low", "", "é\n日", *hard_texts(200)]:
        assert again.encode(text) == tokenizer.encode(text)


def edited(change):
    document = json.loads(json.dumps(sentencepiece()._form(sentencepiece().special)))
    change(document)
    return adopted.from_document(document, config={"bos_token": "<s>", "eos_token": "</s>"}, source="test")


def test_metaspace_is_the_same_but_before_a_space():
    """The library puts no second space before a text that begins with one; llama.cpp does, and that is said."""

    def metaspace(document):
        document["normalizer"] = None
        document["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}

    tokenizer = edited(metaspace)
    keys = vocabulary.metadata_of(tokenizer)
    assert keys[KEY + "add_space_prefix"] is True
    for text in ("low  lower at", "at\n low"):
        assert tokenizer.encode(text) == greedy(text, keys)
    assert tokenizer.encode(" low") != greedy(" low", keys)
    assert vocabulary.remarks(tokenizer) == ["llama.cpp puts a space before a text even if it begins with one"]


def test_cutting_at_spaces_is_refused_where_a_token_has_one_inside():
    def split(document):
        document["normalizer"] = None
        document["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True}
        document["model"]["vocab"]["▁▁"] = 278
        document["model"]["merges"].append(["▁", "▁"])

    with pytest.raises(CheckpointError, match="llama.cpp cannot prepare text"):
        vocabulary.metadata_of(edited(split))


def test_a_token_that_no_merge_reaches_is_refused():
    """llama.cpp would join it all the same."""

    def cut(document):
        document["model"]["merges"] = [
            pair for pair in document["model"]["merges"] if "".join(pair) not in ("at", "▁at")
        ]

    with pytest.raises(CheckpointError, match="the merges do not lead to the token 'at'"):
        vocabulary.metadata_of(edited(cut))


def test_plain_text_that_would_become_a_special_token_is_refused():
    with pytest.raises(CheckpointError, match="read '<s' and '>' in plain text as the special token '<s>'"):
        vocabulary.metadata_of(sentencepiece(more=("<", "s", ">", "<s")))


def test_an_ordinary_token_that_llama_cpp_takes_for_an_end_is_named():
    tokenizer = sentencepiece(more=("<", "E", "O", "T", ">", "<E", "OT", "OT>", "<EOT>"))
    assert vocabulary.remarks(tokenizer) == ["llama.cpp ends a text at the ordinary token '<EOT>'"]
    assert vocabulary.remarks(sentencepiece()) == []


# --- llama.cpp ---------------------------------------------------------------------------------------------------


def llama_cpp_of(path: Path):
    llama_cpp = pytest.importorskip("llama_cpp")
    return llama_cpp.Llama(str(path), vocab_only=True, verbose=False)


def file_of(tmp_path: Path, tokenizer) -> Path:
    pytest.importorskip("gguf")
    config = ModelConfig(family="llama", vocabulary=tokenizer.vocabulary + 3, context=8, width=32, layers=1, heads=2)
    write.write(tmp_path / "m.gguf", build(config), tokenizer, dtype="f32", card={})
    return tmp_path / "m.gguf"


@pytest.mark.slow
@pytest.mark.parametrize("which", ["ours", "sentencepiece", "llama3", "qwen2", "smollm"])
def test_llama_cpp_gives_the_same_ids(tmp_path, ours, which):
    tokenizer = ours if which == "ours" else sentencepiece() if which == "sentencepiece" else of_cut(which)
    theirs = llama_cpp_of(file_of(tmp_path, tokenizer))
    # llama.cpp composes no characters; `remarks` says so
    texts = [unicodedata.normalize("NFC", text) if which == "qwen2" else text for text in hard_texts(2000)]
    wrong = [
        text
        for text in [TEXT, "", " ", "\n", "\x00", *texts]
        if theirs.tokenize(text.encode(), add_bos=False, special=False) != tokenizer.encode(text)
    ]
    assert wrong == []
    name = next(name for name, id in tokenizer.special.items() if id == tokenizer.eos)
    marked = f"low{name}low" if which != "sentencepiece" else f"low{name}"
    assert theirs.tokenize(marked.encode(), add_bos=False, special=True) == tokenizer.encode(marked, special=True)
    bos = tokenizer.eos if tokenizer.bos is None else tokenizer.bos
    assert (theirs.token_eos(), theirs.token_bos()) == (tokenizer.eos, bos)
    assert theirs.tokenize(b"low") == [*tokenizer.start, *tokenizer.encode("low")]
    assert bytes(theirs.detokenize(tokenizer.encode(TEXT))).decode() == TEXT or which in ("sentencepiece", "qwen2")


@pytest.mark.slow
def test_smollm2_gives_the_ids_of_llama_cpp(data_dir):
    gguf = pytest.importorskip("gguf")
    found = sorted(data_dir.glob("smollm2/*.gguf"))
    if not found:
        pytest.skip("no smollm2/*.gguf in the sample data")
    fields = {name: field.contents() for name, field in gguf.GGUFReader(found[0]).fields.items()}
    tokenizer = vocabulary.tokenizer_of(fields, found[0].name)
    assert tokenizer.eos == tokenizer.special["<|im_end|>"] and re.search("im_start", tokenizer.chat_template)
    theirs = llama_cpp_of(found[0])
    compared = 0
    for text in [TEXT.replace("日本語", "").replace("🙂", ""), "The capital of France is", *hard_texts(2000)]:
        try:
            ids = tokenizer.encode(text)
        except TokenizerError:  # its vocabulary lacks some bytes: llama.cpp leaves them out without a word
            continue
        assert theirs.tokenize(text.encode(), add_bos=False, special=False) == ids
        compared += 1
    assert compared > 500
    # and back again: what is written for it is what stood in the file
    keys = vocabulary.metadata_of(tokenizer, vocabulary=len(fields[KEY + "tokens"]))
    for name in ("model", "pre", "tokens", "merges", "token_type", "eos_token_id", "bos_token_id", "padding_token_id"):
        assert keys[KEY + name] == fields[KEY + name], name
