"""Windows: which ids are sample i, against the figures the book and the lecture print and against plain loops."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from groundup.batches import DocumentWindows, RandomWindows, Windows, sequential
from groundup.batches.windows import hashed
from groundup.errors import DataError, SettingsError


@pytest.fixture(scope="module")
def gpt2(data_dir):
    """GPT-2's encoding, built by tiktoken itself from OpenAI's two files."""
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    folder = data_dir / "gpt2-bpe"
    return tiktoken.Encoding(
        "gpt2",
        pat_str=r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
        mergeable_ranks=data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json")),
        special_tokens={"<|endoftext|>": 50256},
    )


@pytest.fixture(scope="module")
def verdict(data_dir):
    return (data_dir / "text" / "the-verdict.txt").read_text(encoding="utf-8")


def encoded(gpt2, text):
    return np.array(gpt2.encode_ordinary(text), dtype=np.uint16)


def test_the_book_section_2_6(gpt2, verdict):
    tokens = encoded(gpt2, verdict)
    assert len(tokens) == 5145
    row = Windows(tokens, length=4, stride=1).rows(np.array([50]))[0].tolist()
    assert row == [290, 4920, 2241, 287, 257]
    assert [(gpt2.decode(row[:end]), gpt2.decode(row[end : end + 1])) for end in range(1, 5)] == [
        (" and", " established"),
        (" and established", " himself"),
        (" and established himself", " in"),
        (" and established himself in", " a"),
    ]
    first, second = (batch for batch, _ in zip(sequential(Windows(tokens, length=4, stride=1), 1), "12", strict=False))
    assert first.tokens.tolist() == [[40, 367, 2885, 1464]]
    assert first.fields["targets"].tolist() == second.tokens.tolist() == [[367, 2885, 1464, 1807]]
    assert second.fields["targets"].tolist() == [[2885, 1464, 1807, 3619]]


def test_the_book_batch_of_8(gpt2, verdict):
    batch = next(sequential(Windows(encoded(gpt2, verdict), length=4, stride=4), 8))
    assert batch.tokens.tolist() == [
        [40, 367, 2885, 1464],
        [1807, 3619, 402, 271],
        [10899, 2138, 257, 7026],
        [15632, 438, 2016, 257],
        [922, 5891, 1576, 438],
        [568, 340, 373, 645],
        [1049, 5975, 284, 502],
        [284, 3285, 326, 11],
    ]
    assert batch.fields["targets"].tolist() == [
        [367, 2885, 1464, 1807],
        [3619, 402, 271, 10899],
        [2138, 257, 7026, 15632],
        [438, 2016, 257, 922],
        [5891, 1576, 438, 568],
        [340, 373, 645, 1049],
        [5975, 284, 502, 284],
        [3285, 326, 11, 287],
    ]


def test_the_book_exercise_2_2(gpt2, verdict):
    tokens = encoded(gpt2, verdict)
    short = next(sequential(Windows(tokens, length=2, stride=2), 4))
    assert short.tokens.tolist() == [[40, 367], [2885, 1464], [1807, 3619], [402, 271]]
    long = next(sequential(Windows(tokens, length=8, stride=2), 4))
    assert long.tokens.tolist() == [
        [40, 367, 2885, 1464, 1807, 3619, 402, 271],
        [2885, 1464, 1807, 3619, 402, 271, 10899, 2138],
        [1807, 3619, 402, 271, 10899, 2138, 257, 7026],
        [402, 271, 10899, 2138, 257, 7026, 15632, 438],
    ]


def test_the_book_section_5_1_counts(gpt2, verdict):
    """The last 10 % of the characters validate: 9 training batches and 1 validation batch of 2 x 256."""
    cut = int(0.9 * len(verdict))
    train, valid = encoded(gpt2, verdict[:cut]), encoded(gpt2, verdict[cut:])
    assert (len(train), len(valid)) == (4612, 534)
    batches = [[*sequential(Windows(part, length=256, stride=256), 2)] for part in (train, valid)]
    assert [len(part) for part in batches] == [9, 1]
    assert {tuple(batch.tokens.shape) for part in batches for batch in part} == {(2, 256)}


def test_the_notebook_toy_table():
    """The table that section 5.1.3 prints has stride 2, where its text says 3; both are right for their stride."""
    ids = np.arange(10, 130, 10)
    printed = [*sequential(Windows(ids, length=5, stride=2), 4)]
    assert [batch.tokens.tolist() for batch in printed] == [
        [[10, 20, 30, 40, 50], [30, 40, 50, 60, 70], [50, 60, 70, 80, 90], [70, 80, 90, 100, 110]]
    ]
    assert printed[0].fields["targets"].tolist() == [
        [20, 30, 40, 50, 60],
        [40, 50, 60, 70, 80],
        [60, 70, 80, 90, 100],
        [80, 90, 100, 110, 120],
    ]
    stated = Windows(ids, length=5, stride=3)
    assert stated.rows(np.arange(len(stated)))[:, 0].tolist() == [10, 40, 70]


def test_the_lecture_contexts(data_dir):
    """The first block of 8 characters of tiny Shakespeare, "First Cit", and the target of each context."""
    text = (data_dir / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    ids = {character: id for id, character in enumerate(sorted(set(text)))}
    windows = Windows(np.array([ids[character] for character in text[:100]]), length=8, stride=8)
    batch = next(sequential(windows, 1))
    x, y = batch.tokens[0].tolist(), batch.fields["targets"][0].tolist()
    assert x == [18, 47, 56, 57, 58, 1, 15, 47]
    assert y == [47, 56, 57, 58, 1, 15, 47, 58]


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 12))
@settings(deadline=None)
def test_windows_equal_the_plain_loop(n, length, stride):
    tokens = np.arange(100, 100 + n, dtype=np.uint16)
    plain = [tokens[start : start + length + 1].tolist() for start in range(0, n - length, stride)]
    if not plain:
        with pytest.raises(DataError):
            Windows(tokens, length=length, stride=stride)
        return
    windows = Windows(tokens, length=length, stride=stride)
    rows = windows.rows(np.arange(len(windows)))
    assert rows.tolist() == plain
    assert rows.dtype == np.int64


def test_short_text_says_what_is_there_and_what_is_needed():
    for make in (lambda: Windows(np.arange(8), length=8), lambda: RandomWindows(np.arange(8), length=8, seed=0)):
        with pytest.raises(DataError, match="8 tokens, one window of context 8 needs 9") as caught:
            make()
        assert "--context" in caught.value.fix
    assert len(Windows(np.arange(9), length=8)) == len(RandomWindows(np.arange(9), length=8, seed=0)) == 1


def test_senseless_lengths_and_strides_are_refused():
    with pytest.raises(SettingsError):
        Windows(np.arange(9), length=0)
    with pytest.raises(SettingsError):
        Windows(np.arange(9), length=2, stride=0)


def test_windows_that_are_not_there_raise():
    windows = Windows(np.arange(9), length=2, stride=2)
    for index in (-1, len(windows)):
        with pytest.raises(IndexError):
            windows.rows(np.array([index]))


def test_a_memory_mapped_file_is_read_only_where_asked(tmp_path):
    np.arange(5000, dtype=np.uint16).tofile(tmp_path / "ids.bin")
    tokens = np.memmap(tmp_path / "ids.bin", dtype=np.uint16, mode="r")
    rows = Windows(tokens, length=3, stride=3).rows(np.array([1000, 2]))
    assert rows.tolist() == [[3000, 3001, 3002, 3003], [6, 7, 8, 9]]
    assert (
        type(rows) is np.ndarray and rows.flags.writeable
    )  # torch.from_numpy shares it, and warns of read-only memory


def test_hash_is_splitmix64():
    """The published outputs of SplitMix64 for seed 1234567."""
    assert hashed(1234567, np.arange(5)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_random_windows_depend_on_seed_and_number_only():
    windows = RandomWindows(np.arange(1000), length=4, seed=7)
    together = windows.rows(np.arange(50))
    assert (np.vstack([windows.rows(np.array([i])) for i in range(50)]) == together).all()
    assert (np.diff(together) == 1).all()
    other = RandomWindows(np.arange(1000), length=4, seed=8).rows(np.arange(50))
    assert (other[:, 0] != together[:, 0]).mean() > 0.9


def test_random_starts_are_uniform_and_reach_both_ends():
    # like the lecture's randint(n - length): 20 - 4 = 16 starts, the last one included
    starts = RandomWindows(np.arange(20), length=4, seed=1).rows(np.arange(16_000))[:, 0]
    counts = np.bincount(starts, minlength=16)
    assert len(counts) == 16
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert 3 < chi_square < 40  # 15 degrees of freedom: outside about once in 2,000 seeds


def test_document_windows_by_hand():
    """Documents of 3, 2 and 8 ids: two fit one window of 4, the third needs more, the last of them moved back."""
    tokens, documents = np.arange(13), np.array([0, 3, 5])
    windows = DocumentWindows(tokens, documents, length=4)
    assert windows.rows(np.arange(len(windows))).tolist() == [
        [0, 1, 2, 3, 4],
        [2, 3, 4, 5, 6],  # opens with the id before the document: its end-of-text
        [4, 5, 6, 7, 8],
        [8, 9, 10, 11, 12],
        [8, 9, 10, 11, 12],
    ]


@given(st.lists(st.integers(1, 30), min_size=2, max_size=20), st.integers(1, 12))
def test_document_windows_leave_no_id_out(sizes, length):
    starts = np.cumsum([0, *sizes])
    tokens = np.arange(starts[-1])
    assume(len(tokens) > length)
    windows = DocumentWindows(tokens, starts[:-1], length=length)
    rows = windows.rows(np.arange(len(windows)))
    assert set(rows[:, 1:].flatten()) == set(range(1, len(tokens)))
    assert all(start - 1 in rows[:, 0] for start in starts[1:-1] if start - 1 + length < len(tokens))
