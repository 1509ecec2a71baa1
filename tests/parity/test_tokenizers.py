"""Tokenizers of other families: ids and text equal to tokenizers, transformers, sentencepiece and our readable twin."""

import io
import json
import pickle
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from groundup import tokens
from groundup.text import files, read
from groundup.tokens import adopted, bpe, prepare, sentencepiece
from groundup.tokens.shards import Shards

HARD = (
    "Hello  world\n\n\t é e\u0301 我們說 नमस्ते \U0001f600\U0001f468\u200d\U0001f469 \x00\x01\x1c\x7f\u200b\u2028 it's"
    " IT'S we'Re I'LL 'ſ ''re 1234567 12 ½ ٣٤٥٦ \r\n   end.   \U00020000\U000e0041\U0010ffff\u0558\U00018d10 مرحبا بك "
    "a_b \u0301\u0302x  \r\r\n \u3000\u3000y !!\n\n?? <|endoftext|> <s></s> <|end  \t\t"
)
PLANES = "".join(chr(code) + (" " if code % 5 == 0 else "") for code in range(0, 0x110000, 61) if code >> 11 != 27)

# The pre_tokenizers and normalizers as they stand in the published files.
NEW_LINES = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(pattern: str) -> dict[str, Any]:
    first = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [first, BYTES]}


PUBLISHED: dict[str, dict[str, Any]] = {
    "gpt2": {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}},
    "llama3": {"pre_tokenizer": split(CONTRACTIONS + r"|\p{N}{1,3}" + NEW_LINES)},
    "qwen2": {"pre_tokenizer": split(CONTRACTIONS + r"|\p{N}" + NEW_LINES), "normalizer": {"type": "NFC"}},
    "smollm": {
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTES | {"use_regex": True}],
        }
    },
}
NAMES = {  # special tokens as the family has them; those of SmolLM2 have the first ids
    "gpt2": ["<|endoftext|>", "<tool>"],
    "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
    "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"],
    "smollm": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
}
ROLES = {
    "gpt2": {"eos_token": "<|endoftext|>"},
    "llama3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "qwen2": {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "add_bos_token": False},
    "smollm": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"},
}


@dataclass
class Family:
    """One tokenizer in all the forms that are compared."""

    cut: str
    ours: tokens.Tokenizer
    library: HFTokenizer
    theirs: Any
    merges: list[bpe.Pair]
    first: int  # id of the first byte
    folder: Path


@pytest.fixture(scope="module", params=PUBLISHED)
def family(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Family:
    cut, folder = request.param, tmp_path_factory.mktemp(request.param)
    story = (data_dir / "text" / "the-verdict.txt").read_text(encoding="utf-8")
    document, merges, first = learnt(cut, [story, HARD * 3])
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast"} | ROLES[cut]
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    library = HFTokenizer.from_file(str(folder / "tokenizer.json"))
    library.encode_special_tokens = True
    return Family(cut, tokens.load(folder), library, AutoTokenizer.from_pretrained(folder), merges, first, folder)


def learnt(cut: str, texts: list[str]) -> tuple[dict[str, Any], list[bpe.Pair], int]:
    """A tokenizer.json of this family, learnt by the library; its merges as pairs of ids from 0, and the first byte."""
    learner = HFTokenizer(models.BPE())
    asked = json.loads(learner.to_str()) | PUBLISHED[cut] | {"decoder": BYTES | {"add_prefix_space": True}}
    learner = HFTokenizer.from_str(json.dumps(asked))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    )
    document = json.loads(learner.to_str())
    vocab, model = document["model"]["vocab"], document["model"]
    merges = [(vocab[left], vocab[right]) for left, right in model["merges"]]
    first = len(NAMES[cut]) if cut == "smollm" else 0
    model["vocab"] = {token: id + first for token, id in vocab.items()}
    ids = {name: (i if first else len(vocab) + i) for i, name in enumerate(NAMES[cut])}
    if first:  # as in SmolLM2's file
        model["vocab"] |= ids
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    document["added_tokens"] = [
        {"id": id, "content": name, **plain, "special": name not in ("<think>", "<tool>")} for name, id in ids.items()
    ]
    if cut == "llama3":
        model["ignore_merges"] = True
        start = {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}}
        text = {"Sequence": {"id": "A", "type_id": 0}}
        names = {"<|begin_of_text|>": {"id": "<|begin_of_text|>", "ids": [len(vocab)], "tokens": ["<|begin_of_text|>"]}}
        template = {
            "type": "TemplateProcessing",
            "single": [start, text],
            "pair": [start, text],
            "special_tokens": names,
        }
        document["post_processor"] = {"type": "Sequence", "processors": [BYTES, template]}
    return document, merges, first


def agree(family: Family, text: str) -> None:
    """Plain ids are the library's and the twin's, ids with special tokens and the text are transformers'."""
    ids = family.ours.encode(text)
    assert ids == family.library.encode(text, add_special_tokens=False).ids
    composed = unicodedata.normalize("NFC", text) if family.cut == "qwen2" else text
    if not any(name in text for name in ("<think>", "<tool>")):
        assert ids == [id + family.first for id in bpe.encode(composed, family.merges, family.cut)]
        assert family.ours.decode(ids) == composed
    special = family.ours.encode(text, special=True)
    assert family.ours.start + special == family.theirs(text)["input_ids"]
    assert family.ours.decode(special) == family.theirs.decode(special)
    stream = family.ours.stream()
    assert "".join([*map(stream.push, ids), stream.close()]) == family.ours.decode(ids)


def test_hard_text(family: Family) -> None:
    for text in (HARD, HARD[::-1], "", " ", "\n", *NAMES[family.cut], "a" + "<think>".join("xyz"), *HARD.split(" ")):
        agree(family, text)


def test_all_planes_of_unicode(family: Family) -> None:
    for start in range(0, len(PLANES), 500):
        agree(family, PLANES[start : start + 500])


@settings(max_examples=80)
@given(
    st.lists(st.one_of(st.text(), st.sampled_from([" ", "\n", "12", "'S", "'ll", "a", "<|im_end|>", "<think>", "é"])))
)
def test_any_text(family: Family, parts: list[str]) -> None:
    agree(family, "".join(parts))


def test_a_saved_copy_is_the_same_there_and_here(family: Family, tmp_path: Path) -> None:
    family.ours.with_template("{{ messages }}").save(tmp_path)
    theirs, again = AutoTokenizer.from_pretrained(tmp_path), tokens.load(tmp_path)
    assert theirs(HARD)["input_ids"] == family.theirs(HARD)["input_ids"]
    assert theirs.chat_template == again.chat_template == "{{ messages }}"
    assert again.fingerprint == family.ours.fingerprint and again.encode(HARD) == family.ours.encode(HARD)
    assert (again.start, again.ends, again.special) == (family.ours.start, family.ours.ends, family.ours.special)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (again.bos, again.eos)


def test_what_is_ours_stays_ours(family: Family) -> None:
    """GPT-2's layout with an added token that is not special is kept as it came, with the same cut."""
    assert family.ours.cut == family.cut and isinstance(family.ours, tokens.Adopted)


def test_roles(family: Family) -> None:
    ours, theirs = family.ours, family.theirs
    assert len(theirs) == ours.vocabulary
    assert (theirs.bos_token_id, theirs.eos_token_id) == (ours.bos, ours.eos)
    assert bool(ours.start) == (family.cut == "llama3")
    if family.cut in ("qwen2", "smollm"):  # documents end otherwise than a turn of a chat
        assert ours.ends == [ours.special["<|im_end|>"], ours.special["<|endoftext|>"]]


def test_a_name_alone_may_be_allowed(family: Family) -> None:
    *others, one = [name for name in NAMES[family.cut] if name in family.ours.special]
    ids = family.ours.encode(f"a{''.join(others)}b{one}c", special=[one])
    assert ids.count(family.ours.special[one]) == 1
    assert not {family.ours.special[name] for name in others} & {*ids}


# texts that come in pieces


@pytest.fixture
def many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of some hundred characters instead of a million."""
    monkeypatch.setattr(files, "BLOCK", 300)


def in_pieces(ours: tokens.Tokenizer, text: str, folder: Path) -> None:
    """The ids of a file, read piece by piece, in memory and as shards, are those of the whole text."""
    (folder / "a.txt").write_text(text, encoding="utf-8", newline="")
    sources = read.sources([str(folder / "a.txt")])
    assert len([*sources[0].pieces()]) > 20
    whole = ours.start + ours.encode(text)
    assert prepare.tokenize(sources, ours).ids.tolist() == whole
    made = prepare.prepare(sources, ours, folder / "out", validation=0)
    assert Shards.open(made.train).tokens.tolist() == whole


@pytest.mark.usefixtures("many_pieces")
def test_pieces_give_the_ids_of_the_whole(family: Family, data_dir: Path, tmp_path: Path) -> None:
    story = (data_dir / "text" / "the-verdict.txt").read_text(encoding="utf-8")
    in_pieces(family.ours, HARD * 20 + story + "in 1234 we'd\r\n\r\n 5678 " * 200, tmp_path)


@pytest.mark.usefixtures("many_pieces")
@pytest.mark.parametrize("scheme", ["normalizers", "first", "always"])
def test_pieces_get_no_space_of_their_own(scheme: str, spm: tuple[Any, Any], data_dir: Path, tmp_path: Path) -> None:
    """SentencePiece puts one before a text, not before each of its pieces; behind an added token as ever."""
    document = spm[1]._form(spm[1].special)
    if scheme != "normalizers":
        document["normalizer"], split = None, {"prepend_scheme": scheme, "split": False}
        document["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", **split}
    document["added_tokens"] = [*document["added_tokens"], {"id": 700, "content": "<x>", "special": False}]
    ours = adopted.from_document(document, source="a document")
    story = (data_dir / "text" / "the-verdict.txt").read_text(encoding="utf-8")
    text = "the cat sat <x>on\nthe mat\t" * 100 + story
    in_pieces(ours, text, tmp_path)
    again = pickle.loads(pickle.dumps(ours))
    rests = [again.encode_array(part, goes_on=part != "the cat").tolist() for part in ("the cat", " s<x>at")]
    assert sum(rests, []) == ours.encode("the cat s<x>at")


# SentencePiece

WORDS = (
    "the cat sat on the mat and the other cats were at the theatre in the north, 1234 5678, é ü 我們說 \n\n aaaa bb "
)


@pytest.fixture(scope="module", params=["with a space before", "without"])
def spm(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """(the program, ours) for a model learnt by it."""
    program = pytest.importorskip("sentencepiece", reason="pip install sentencepiece, to compare with it")
    story = (data_dir / "text" / "the-verdict.txt").read_text(encoding="utf-8")
    stored = io.BytesIO()
    program.SentencePieceTrainer.train(
        sentence_iterator=iter([*story.split("\n"), WORDS * 5]),
        model_writer=stored,
        vocab_size=700,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=request.param != "without",
        split_digits=True,
        minloglevel=2,
    )
    path = tmp_path_factory.mktemp("spm") / "tokenizer.model"
    path.write_bytes(stored.getvalue())
    return program.SentencePieceProcessor(model_proto=stored.getvalue()), tokens.load(path.parent)


def spaced(spm: tuple[Any, Any], text: str) -> None:
    program, ours = spm
    ids = ours.encode(text)
    assert ids == program.encode(text)
    assert ours.decode(ids) == program.decode(ids) == text
    stream = ours.stream()
    assert "".join([*map(stream.push, ids), stream.close()]) == text


def test_sentencepiece_on_hard_text(spm: tuple[Any, Any]) -> None:
    assert (spm[1].start, spm[1].ends, spm[1].unknown, spm[1].cut) == ([1], [2], 0, "sentencepiece")
    texts = (HARD, WORDS, "", " ", "   a", "a   ", "\n a", "<s>", "</s> <unk>", "aaaaaaa", " the  the", PLANES[:3000])
    for text in texts:
        spaced(spm, text.replace("\u2581", ""))  # which that program cannot tell from a space


@settings(max_examples=150)
@given(st.lists(st.one_of(st.text(), st.sampled_from(["  ", "the", " a", "\n", "aa", "<s>", "<0x0A>"]))))
def test_sentencepiece_on_any_text(spm: tuple[Any, Any], parts: list[str]) -> None:
    spaced(spm, "".join(parts).replace("\u2581", "").replace("\x00", ""))


def test_sentencepiece_saved_is_the_same_there(spm: tuple[Any, Any], tmp_path: Path) -> None:
    ours = spm[1]
    ours.save(tmp_path)
    theirs, again = AutoTokenizer.from_pretrained(tmp_path), tokens.load(tmp_path)
    assert again.fingerprint == ours.fingerprint and again.start == [1]
    for text in (HARD, "a<s>b</s> c", "</s>a", " x"):
        assert (
            theirs(text)["input_ids"]
            == ours.start + ours.encode(text, special=True)
            == [1, *again.encode(text, special=True)]
        )
        assert theirs.decode(ours.encode(text)) == ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("scheme", ["first", "always", "never", "older"])
def test_the_other_spelling_of_sentencepiece(scheme: str, spm: tuple[Any, Any], tmp_path: Path) -> None:
    """Metaspace instead of normalizers, as transformers 5 writes it: run by the library as it stands."""
    document = spm[1]._form(spm[1].special)
    document["normalizer"] = None
    document["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False}
    if scheme == "older":  # as transformers 4 wrote it
        document["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}
    ours = adopted.from_document(document, source="a document")
    library = HFTokenizer.from_str(json.dumps(document))
    for text in ("a<s>b", " a", "the <s> cat", HARD):
        assert ours.encode(text, special=True) == library.encode(text, add_special_tokens=False).ids
        ids = ours.encode(text)
        assert ours.decode(ids) == library.decode(ids, skip_special_tokens=False)


# llama2.c


def run_c(text: str, pieces: list[str], scores: list[float]) -> list[int]:
    """What run.c does: a space, the characters or else their bytes, then the best join of neighbours, over and over."""
    ids_of = {piece.replace("\u2581", " "): id for id, piece in enumerate(pieces)}
    ids = [ids_of[" "]] if text else []
    for char in text:
        ids += [ids_of[char]] if char in ids_of else [byte + 3 for byte in char.encode("utf-8")]
    while True:
        spelt = [pieces[id].replace("\u2581", " ") for id in ids]
        joins = [
            (scores[ids_of[a + b]], -i)
            for i, (a, b) in enumerate(zip(spelt, spelt[1:], strict=False))
            if a + b in ids_of
        ]
        if not joins:
            return ids
        place = -max(joins)[1]
        ids[place : place + 2] = [ids_of[spelt[place] + spelt[place + 1]]]


def test_llama2c_joins_as_its_program(data_dir: Path) -> None:
    path = data_dir / "stories260k" / "tok512.bin"
    if not path.is_file():
        pytest.skip("stories260k/tok512.bin is not among the sample data")
    pieces, scores = sentencepiece.read_llama2c(path, 512)
    document, config = adopted.sentencepiece_json(
        pieces,
        scores,
        [sentencepiece.kind_of(id) for id in range(512)],
        prefix_space=True,
        adds_bos=True,
        bos=1,
        eos=2,
        unk=0,
    )
    ours = adopted.from_document(document, config=config, source=str(path))
    story = (data_dir / "text" / "the-verdict.txt").read_text(encoding="utf-8")
    for text in (
        "Once upon a time, there was a little girl",
        HARD,
        story[:1200],
        "a",
        "",
        "aaaaaaaaaa",
        "  ",
        "hahahaha",
    ):
        assert ours.encode(text) == run_c(text, pieces, scores)
    assert ours.start == [1] and ours.decode([403, 407]) == "Once upon"


def test_runs_of_spaces_of_one_score_join_as_its_program() -> None:
    """Llama 2 has runs of 2 to 16 spaces, all of the score -1e9: what cannot compete is no tie."""
    runs = ["\u2581" * count for count in range(2, 17)]
    words = [("ab", -1.0), ("\u2581a", -2.0), ("\u2581\u2581a", -3.0)]
    letters = ["\u2581", "a", "b"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [*(word for word, _ in words), *runs, *letters]
    scores = [0.0] * 259 + [score for _, score in words] + [-1e9] * (len(runs) + len(letters))
    kinds = [sentencepiece.kind_of(id) for id in range(len(pieces))]
    roles = {"bos": 1, "eos": 2, "unk": 0}
    document, config = adopted.sentencepiece_json(pieces, scores, kinds, prefix_space=True, adds_bos=True, **roles)
    ours = adopted.from_document(document, config=config, source="runs")
    for count in range(80):
        for text in (" " * count, " " * count + "ab", "b" + " " * count + "a", ("a" + " " * count) * 2):
            assert ours.encode(text) == run_c(text, pieces, scores), (count, text)
