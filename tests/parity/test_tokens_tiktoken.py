"""GPT-2's ids equal tiktoken's own encoding, and the ids that the documents print."""

from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken_ext.openai_public import r50k_pat_str

from groundup import tokens

CODE_POINTS = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point <= 0xDFFF)
# The pattern as the GPT-2 release spells it; tiktoken's own is quicker and meant to cut the same.
FIRST_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


@pytest.fixture(scope="module")
def gpt2(data_dir: Path) -> tokens.Tokenizer:
    return tokens.gpt2(data_dir / "gpt2-bpe")


@pytest.fixture(scope="module", params=[r50k_pat_str, FIRST_PATTERN], ids=["tiktoken", "first"])
def reference(request: pytest.FixtureRequest, data_dir: Path) -> tiktoken.Encoding:
    """GPT-2 as tiktoken builds it, from the same two files."""
    files = {name: str(data_dir / "gpt2-bpe" / name) for name in ("vocab.bpe", "encoder.json")}
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # its loader reads local paths only through a package that is absent here
        patch.setattr("tiktoken.load.read_file_cached", lambda path, digest=None: Path(path).read_bytes())
        ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(files["vocab.bpe"], files["encoder.json"])
    return tiktoken.Encoding(
        "gpt2", pat_str=request.param, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.text(alphabet="ab1 \n\t'srvl!é我😀\x00\x1c\xa0\u3000")))
def test_any_text(gpt2: tokens.Tokenizer, reference: tiktoken.Encoding, text: str) -> None:
    ids = reference.encode_ordinary(text)
    assert gpt2.encode(text) == ids
    assert gpt2.encode_array(text).tolist() == ids
    assert gpt2.decode(ids) == text == reference.decode(ids)


def test_every_code_point_among_neighbours(gpt2: tokens.Tokenizer, reference: tiktoken.Encoding) -> None:
    text = "".join(f"a{char} {char}1" for char in CODE_POINTS[::5]) + " ".join(CODE_POINTS[1::5])
    assert gpt2.encode_array(text).tolist() == reference.encode_ordinary(text)


@pytest.mark.parametrize("name", ["the-verdict", "tinyshakespeare", "tinystories-sample", "wikitext2-valid"])
def test_real_texts(gpt2: tokens.Tokenizer, reference: tiktoken.Encoding, data_dir: Path, name: str) -> None:
    text = (data_dir / "text" / f"{name}.txt").read_text(encoding="utf-8")
    ids = gpt2.encode_array(text)
    assert ids.tolist() == reference.encode_ordinary(text)
    assert gpt2.decode(ids) == text
    if name == "the-verdict":
        assert len(ids) == 5145  # [book.2.6.ntokens]


def test_special_tokens_by_permission(gpt2: tokens.Tokenizer, reference: tiktoken.Encoding) -> None:
    text = "one<|endoftext|> two <|endoftext|><|endoftext|>"
    assert gpt2.encode(text, special=True) == reference.encode(text, allowed_special="all")
    assert gpt2.encode(text) == reference.encode(text, disallowed_special=())


def test_bytes_of_every_id(gpt2: tokens.Tokenizer, reference: tiktoken.Encoding) -> None:
    assert gpt2.pieces(range(50_257)) == [reference.decode_single_token_bytes(id) for id in range(50_257)]
    lengths = gpt2.byte_lengths()
    assert lengths is not None and lengths[50256] == 0 and lengths[262] == len(b" the")


def test_the_ids_that_are_printed(gpt2: tokens.Tokenizer) -> None:
    text = "Hello, do you like tea? <|endoftext|> In the sunlit terraces of someunknownPlace."
    ids = [
        15496,
        11,
        466,
        345,
        588,
        8887,
        30,
        220,
        50256,
        554,
        262,
        4252,
        18250,
        8812,
        2114,
        286,
        617,
        34680,
        27271,
        13,
    ]
    assert gpt2.encode(text, special={"<|endoftext|>"}) == ids  # [book.2.5.bpe_ids]
    assert gpt2.decode(ids) == text  # [book.2.5.bpe_decode]
    joined = [*ids[:15], 1659, *ids[16:]]
    assert gpt2.encode(text.replace("terraces of", "terracesof"), special=True) == joined  # [zh.2.5.bpe]
    assert (gpt2.vocabulary, gpt2.end_of_text) == (50257, 50256)  # [book.2.5.vocab]
    assert gpt2.encode("Akwirw ier") == [33901, 86, 343, 86, 220, 959]  # [book.ex2.1.ids]
    assert gpt2.pieces([33901, 86, 343, 86, 220, 959]) == [b"Ak", b"w", b"ir", b"w", b" ", b"ier"]
    assert [gpt2.encode("Ak"), gpt2.encode("w")] == [[33901], [86]]  # [book.ex2.1.single]
    assert gpt2.decode([33901, 86, 343, 86, 220, 959]) == "Akwirw ier"  # [book.ex2.1.decode]
