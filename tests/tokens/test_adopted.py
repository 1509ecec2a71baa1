"""Tokenizers from elsewhere: which files they lie in, what goes with them, and what makes them special."""

import base64
import copy
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from transformers import PreTrainedTokenizerFast

from groundup import tokens
from groundup.errors import TokenizerError
from groundup.tokens import adopted, cuts, formats, making, manner, wire
from groundup.tokens.cuts import CUTS
from groundup.tokens.ranks import read_tiktoken, to_tiktoken


def smollm(special: tuple[str, ...] = ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), **roles: str) -> tuple[Any, Any]:
    """A small vocabulary numbered as SmolLM2's: special tokens first."""
    words = [formats.show_bytes(bytes([byte])) for byte in range(256)] + ["ab", "abc"]
    numbers = {name: id for id, name in enumerate(special)}
    return adopted.byte_level_json([*special, *words], ["a b", "ab c"], cut="smollm", special=numbers, **roles)


def put(folder: Path, **content: Any) -> Path:
    """JSON files in a folder, by name without .json."""
    for name, value in content.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder


def test_special_tokens_are_plain_text_unless_allowed() -> None:
    document, config = smollm(eos="<|im_end|>")
    tokenizer = adopted.from_document(document, config=config, source="a file")
    first = 3
    assert tokenizer.encode("abc") == [first + 257]
    assert tokenizer.encode("a<|im_end|>", special=True) == [first + ord("a"), 2]
    assert tokenizer.encode("a<|im_end|>") == [first + byte for byte in b"a<|im_end|>"]
    assert tokenizer.encode("<|im_end|><|im_start|>", special=["<|im_start|>"])[-1] == 1
    with pytest.raises(TokenizerError, match="'<x>' is not a special token"):
        tokenizer.encode("a", special=["<x>"])


def test_roles_come_from_the_config_first() -> None:
    document, config = smollm(eos="<|im_end|>", bos="<|im_start|>")
    named = adopted.from_document(document, config=config, source="a file")
    assert (named.eos, named.end_of_text, named.bos, named.ends) == (2, 0, 1, [2, 0])
    alone = adopted.from_document(document, source="a file")  # no name says that <|im_end|> ends anything
    assert (alone.eos, alone.end_of_text, alone.bos, alone.ends) == (0, 0, None, [0])


def test_generation_config_adds_ends(tmp_path: Path) -> None:
    document, config = smollm(eos="<|im_end|>")
    put(tmp_path, tokenizer=document, tokenizer_config=config, generation_config={"eos_token_id": [1, 2, 99_999]})
    assert tokens.load(tmp_path).ends == [2, 0, 1]
    put(tmp_path, generation_config={"eos_token_id": 1})
    assert tokens.load(tmp_path).ends == [2, 0, 1]


def test_a_map_of_special_tokens_counts_where_the_config_is_silent(tmp_path: Path) -> None:
    document, _ = smollm()
    document["model"]["vocab"]["<fill>"] = 261  # an ordinary token, which no merge makes
    put(
        tmp_path, tokenizer=document, special_tokens_map={"eos_token": {"content": "<|im_end|>"}, "pad_token": "<fill>"}
    )
    tokenizer = tokens.load(tmp_path)
    assert tokenizer.eos == 2
    assert (
        tokenizer.pad == tokenizer.special["<fill>"]
    )  # named by the map only: special from now on, as in transformers
    assert tokenizer.encode("<fill>", special=True) == [261] and 261 not in tokenizer.encode("<fill>")


def with_chat(*, special: bool) -> dict[str, Any]:
    """GPT-2's layout with </s> = 257 and, as finetunes for chats add them, <|im_end|> = 258, special or not."""
    document = tokens.train("bpe", ["ab"], vocabulary=258, special=["</s>"])._form({"</s>": 257})
    return document | {
        "added_tokens": [making.checking.added("</s>", 257), making.checking.added("<|im_end|>", 258, special=special)]
    }


@pytest.mark.parametrize(
    "config",
    [
        {"eos_token": "<|im_end|>"},
        {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_end|>"]},
        {"eos_token": "<|im_end|>", "added_tokens_decoder": {"258": {"content": "<|im_end|>", "special": True}}},
    ],
)
def test_the_config_makes_an_added_token_special(config: dict[str, Any], tmp_path: Path) -> None:
    """As in transformers, also where tokenizer.json says "special": false; else a plain text could forge it."""
    put(tmp_path, tokenizer=with_chat(special=False), tokenizer_config=config)
    tokenizer, theirs = tokens.load(tmp_path), PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert tokenizer.eos == theirs.eos_token_id == 258 and 258 in tokenizer.ends
    assert tokenizer.special["<|im_end|>"] == 258 not in tokenizer.encode("a<|im_end|>")
    assert tokenizer.encode("<|im_end|>", special=True) == [258]
    (tmp_path / "saved").mkdir()
    tokenizer.save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert saved["eos_token"] == "<|im_end|>" and tokens.load(tmp_path / "saved").ends == tokenizer.ends


def test_the_table_of_the_config_makes_tokens_special(tmp_path: Path) -> None:
    document = with_chat(special=False)
    document["added_tokens"][0]["special"] = False
    table = {"257": {"content": "</s>", "special": True}, "258": {"content": "<|im_end|>", "special": True}}
    put(tmp_path, tokenizer=document, tokenizer_config={"added_tokens_decoder": table})
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path).added_tokens_decoder
    assert [theirs[id].special for id in (257, 258)] == [True, True]
    assert tokens.load(tmp_path).special == {"</s>": 257, "<|im_end|>": 258}
    table["258"]["special"] = False
    put(tmp_path, tokenizer_config={"added_tokens_decoder": table})
    assert tokens.load(tmp_path).special == {"</s>": 257}


def test_begin_tokens() -> None:
    """From the post_processor, unless the config says otherwise; `encode` adds none either way."""
    document, _ = smollm(bos="<|im_start|>")
    adding = document | {"post_processor": manner.adding("<|im_start|>", 1)}
    tokenizer = adopted.from_document(adding, source="a file")
    assert tokenizer.adds_bos and tokenizer.start == [1] and tokenizer.encode("abc") == [260]
    assert adopted.from_document(adding, config={"add_bos_token": False}, source="a file").start == []
    said = {"add_bos_token": True, "bos_token": "<|im_end|>"}
    assert adopted.from_document(document, config=said, source="a file").start == [2]
    with pytest.raises(TokenizerError, match=r"adds '<\|im_start\|>' where bos_token is '<\|im_end\|>'"):
        adopted.from_document(adding, config=said, source="a file")


def test_our_own_kinds_may_begin_with_a_token_too(tmp_path: Path) -> None:
    ours = tokens.train("bpe", ["ab ab ab"], vocabulary=262, special=["<s>", "<|endoftext|>"])
    begun = ours.with_manner(manner.Manner(adds_bos=True))
    begun.save(tmp_path)
    again = tokens.load(tmp_path)
    assert isinstance(again, tokens.BytePairs) and again.start == [ours.bos]
    assert again.fingerprint == begun.fingerprint != ours.fingerprint  # shards of one are not those of the other
    assert ours.start == [] and again.with_special(["<x>"]).start == [ours.bos]


# chat templates


def test_a_template_is_saved_twice_and_removed(tmp_path: Path) -> None:
    ours = tokens.train("bpe", ["ab ab ab"], vocabulary=262)
    chat = ours.with_template("{{ messages[0]['content'] }}ü")
    assert (ours.chat_template, chat.with_special(["<x>"]).chat_template) == (None, chat.chat_template)
    assert chat.fingerprint == ours.fingerprint  # ids do not depend on it
    chat.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert (tmp_path / "chat_template.jinja").read_text(encoding="utf-8") == config["chat_template"]
    assert tokens.load(tmp_path).chat_template == chat.chat_template
    ours.save(tmp_path)
    assert tokens.load(tmp_path).chat_template is None


def test_which_template_counts(tmp_path: Path) -> None:
    document, config = smollm()
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "usual"}]
    put(tmp_path, tokenizer=document, tokenizer_config=config | {"chat_template": named})
    assert tokens.load(tmp_path).chat_template == "usual"
    put(tmp_path, tokenizer_config=config | {"chat_template": named[:1]})
    assert tokens.load(tmp_path).chat_template == "tools"
    put(tmp_path, tokenizer_config=config | {"chat_template": []})
    assert tokens.load(tmp_path).chat_template is None
    (tmp_path / "chat_template.jinja").write_text("file", encoding="utf-8")
    assert tokens.load(tmp_path).chat_template == "file"


# numbering, bytes, copies


def test_ids_without_a_token_stand_for_nothing() -> None:
    document, config = smollm()
    document["added_tokens"].append({"id": 300, "content": "<far>", "special": True})
    tokenizer = adopted.from_document(document, config=config, source="a file")
    assert tokenizer.vocabulary == 301 and tokenizer.encode("a<far>", special=True) == [100, 300]
    assert tokenizer.pieces([260, 280, 300]) == [b"abc", b"", b"<far>"]
    lengths = tokenizer.byte_lengths()
    assert [lengths[id] for id in (1, 260, 280, 300)] == [0, 3, 0, 0]
    with pytest.raises(TokenizerError, match="id 301 is outside the vocabulary"):
        tokenizer.decode([301])


def test_a_byte_without_a_token_is_an_error_where_it_is_met() -> None:
    document, config = smollm()
    del document["model"]["vocab"][formats.show_bytes(b"\xc3")]
    tokenizer = adopted.from_document(document, config=config, source="a file")
    assert tokenizer.decode(tokenizer.encode("abc 我")) == "abc 我"
    with pytest.raises(TokenizerError, match="the byte 0xC3, for which this vocabulary has no token"):
        tokenizer.encode("é")


def test_half_a_surrogate_pair_is_named() -> None:
    document, config = smollm()
    with pytest.raises(TokenizerError, match=r"half a surrogate pair, U\+D800, at character 2"):
        adopted.from_document(document, config=config, source="a file").encode("ab\ud800")


def test_more_special_tokens() -> None:
    document, config = smollm()
    more = adopted.from_document(document, config=config, source="a file").with_special(["<x>", "<|im_end|>"])
    assert more.special["<x>"] == 261 and more.vocabulary == 262 and more.special["<|im_end|>"] == 2
    assert more.encode("a<x>", special=True) == [100, 261]
    with pytest.raises(TokenizerError, match="'abc', already an ordinary token"):
        more.with_special(["abc"])


def test_another_process_gets_the_same() -> None:
    document, config = smollm(eos="<|im_end|>")
    tokenizer = adopted.from_document(document, config=config, source="a file").with_template("x")
    tokenizer.encode("warm")
    copied = pickle.loads(pickle.dumps(tokenizer))
    text = "abc<|im_end|> 12"
    assert copied.encode(text) == tokenizer.encode(text) and copied.encode(text, special=True) == tokenizer.encode(
        text, special=True
    )
    assert (copied.chat_template, copied.eos, copied.fingerprint) == ("x", 2, tokenizer.fingerprint)


def test_added_tokens_keep_their_ways() -> None:
    document, config = smollm()
    document["added_tokens"][2] |= {"lstrip": True, "rstrip": True}
    document["added_tokens"].append({"id": 261, "content": "<think>", "special": False})
    tokenizer = adopted.from_document(document, config=config, source="a file")
    assert tokenizer.encode("a  <|im_end|>  b", special=True) == [100, 2, 101]
    assert tokenizer.encode("a<think>b") == [100, 261, 101] and "<think>" not in tokenizer.special
    assert tokenizer.pieces([261]) == [b"<think>"]


@pytest.mark.parametrize("name", ["éà", "Ġ<x>"])
def test_added_tokens_come_back_as_they_are_written(name: str) -> None:
    """Their letters stand for no bytes, though a vocabulary writes bytes by the same ones."""
    document, config = smollm()
    document["added_tokens"].append({"id": 261, "content": name, "special": False})
    tokenizer = adopted.from_document(document, config=config, source="a file")
    assert tokenizer.encode(f"a{name}b") == [100, 261, 101]
    assert tokenizer.decode_bytes([100, 261, 101]) == f"a{name}b".encode()


def test_qwen_composes_characters() -> None:
    words = [formats.show_bytes(bytes([byte])) for byte in range(256)]
    document, config = adopted.byte_level_json(
        [*words, "<|endoftext|>"], [], cut="qwen2", special={"<|endoftext|>": 256}
    )
    tokenizer = adopted.from_document(document, config=config, source="a file")
    assert tokenizer.decode(tokenizer.encode("e\u0301")) == "\u00e9"


def test_the_document_is_not_changed() -> None:
    document, config = smollm(eos="<|im_end|>")
    before = copy.deepcopy((document, config))
    adopted.from_document(document, config=config, source="a file").with_special(["<x>"])
    assert (document, config) == before


# where they lie


@pytest.mark.slow
def test_vocab_and_merges(data_dir: Path, tmp_path: Path, hard: str) -> None:
    """The two files that older GPT-2 folders hold are encoder.json and vocab.bpe under other names."""
    shutil.copy(data_dir / "gpt2-bpe" / "encoder.json", tmp_path / "vocab.json")
    shutil.copy(data_dir / "gpt2-bpe" / "vocab.bpe", tmp_path / "merges.txt")
    assert tokens.load(tmp_path).fingerprint == tokens.gpt2(data_dir / "gpt2-bpe").fingerprint
    put(tmp_path, tokenizer_config={"tokenizer_class": "Qwen2Tokenizer"})
    with pytest.raises(TokenizerError, match="merges.txt of a Qwen2Tokenizer are not supported"):
        tokens.load(tmp_path)


def test_the_first_of_several_counts(tmp_path: Path) -> None:
    document, config = smollm()
    put(tmp_path, tokenizer=document, tokenizer_config=config, vocab={"a": 0})
    (tmp_path / "merges.txt").write_text("", encoding="utf-8")
    (tmp_path / "tokenizer.model").write_bytes(b"")
    assert tokens.load(tmp_path).kind == "adopted"


def test_cuts_are_known_in_every_spelling() -> None:
    for name, cut in CUTS.items():
        document: dict[str, Any] = {"pre_tokenizer": cut.pre_tokenizer, "normalizer": cut.normalizer}
        assert cuts.recognise(json.loads(json.dumps(document))) == name
        assert cuts.by_llama_cpp(cut.llama_cpp) == name
    with pytest.raises(TokenizerError, match="no byte-level cut is called 'qwen'"):
        adopted.byte_level_json(["a"], [], cut="qwen", special={})


def test_scores_become_merges_the_longer_left_half_first() -> None:
    pieces, scores = ["a", "b", "ab", "abab", "aba"], [-9.0, -8.0, -1.0, -3.0, -2.0]
    assert making.merges_of(pieces, scores, [1] * 5) == [("a", "b"), ("ab", "a"), ("aba", "b"), ("ab", "ab")]


# tiktoken's files


def test_ranks_out_and_in_and_in_tiktoken(tmp_path: Path, verdict: str, hard: str) -> None:
    ours = tokens.train("bpe", [verdict], vocabulary=700, special=["<|endoftext|>"])
    (tmp_path / "ours.tiktoken").write_bytes(to_tiktoken(ours))
    again = read_tiktoken(tmp_path / "ours.tiktoken", ours.special)
    assert again.fingerprint == ours.fingerprint
    lines = (tmp_path / "ours.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    theirs = tiktoken.Encoding("ours", pat_str=pattern, mergeable_ranks=ranks, special_tokens=ours.special)
    assert theirs.encode_ordinary(verdict + hard) == ours.encode(verdict + hard)


@pytest.mark.slow
def test_gpt2_as_ranks(data_dir: Path, tmp_path: Path) -> None:
    """All 50,000 merges are found again from the ranks alone."""
    ours = tokens.gpt2(data_dir / "gpt2-bpe")
    (tmp_path / "gpt2.tiktoken").write_bytes(to_tiktoken(ours))
    assert read_tiktoken(tmp_path / "gpt2.tiktoken", ours.special).fingerprint == ours.fingerprint


def test_what_ranks_cannot_say() -> None:
    with pytest.raises(TokenizerError, match="of kind 'chars' cannot be a tiktoken file"):
        to_tiktoken(tokens.train("chars", ["ab"]))
    document, config = smollm()
    with pytest.raises(TokenizerError, match="of kind 'adopted' cannot be"):
        to_tiktoken(adopted.from_document(document, config=config, source="a file"))


# the wire format


def test_messages() -> None:
    """Bytes written down by hand from the description of the format."""
    message = b"\x08\x96\x01" + b"\x12\x02hi" + b"\x1d\x01\x00\x00\x00" + b"\x21" + bytes(7) + b"\x80" + b"\x2a\x00"
    assert list(wire.fields(message)) == [(1, 150), (2, b"hi"), (3, 1), (4, 1 << 63), (5, b"")]
    assert wire.signed(wire.varint(b"\xff" * 9 + b"\x01", 0)[0]) == -1


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6])  # 0, 3 and 7 are ends of fields
def test_messages_cut_off(size: int) -> None:
    with pytest.raises(ValueError, match="ends inside a number|claims 2 bytes"):
        list(wire.fields(b"\x08\x96\x01\x12\x02hi"[:size]))
