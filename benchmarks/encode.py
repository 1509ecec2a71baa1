"""Text to ids with GPT-2's vocabulary, beside tiktoken: one large text, and 10,000 small documents.

    python benchmarks/encode.py --text FILE

Both get the same strings and return lists of ids; that the ids are equal is checked first. `--text` is any UTF-8 file,
repeated up to SIZE; GPT-2's two files are found as `groundup.tokens.gpt2` finds them.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import interleaved
import tiktoken

from groundup import tokens

SIZE = 8_000_000  # characters of the large text
DOCUMENTS, LENGTH = 10_000, 800  # small documents, and characters of each
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"  # tiktoken's for GPT-2


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    text = parser.parse_args().text.read_text(encoding="utf-8")
    text = (text * (SIZE // len(text) + 1))[:SIZE]
    documents = [text[start : start + LENGTH] for start in range(0, DOCUMENTS * LENGTH, LENGTH)]
    ours, peer = tokens.gpt2(), tiktoken_gpt2()
    for title, texts in (("One text", [text]), (f"{len(documents):,} documents of {LENGTH} characters", documents)):
        if [ours.encode(part) for part in texts] != [peer.encode_ordinary(part) for part in texts]:
            raise SystemExit("the ids differ: nothing to compare")
        contenders = {"groundup": rate(ours.encode, texts), "tiktoken": rate(peer.encode_ordinary, texts)}
        print(interleaved.table(interleaved.rates(contenders), ours="groundup", unit="MB/s", title=title))


def tiktoken_gpt2() -> tiktoken.Encoding:
    """GPT-2's encoding as tiktoken defines it, from the same files."""
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    from groundup.tokens import formats

    files = formats.find_gpt2()
    if files is None:
        raise SystemExit(formats.GPT2_ADVICE)
    merges, vocabulary = str(files["vocab.bpe"]), str(files["encoder.json"])
    ranks = data_gym_to_mergeable_bpe_ranks(merges, vocabulary)
    return tiktoken.Encoding("gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})


def rate(encode: Callable[[str], list[int]], texts: Sequence[str]) -> Callable[[], float]:
    """A piece of work that encodes all texts and returns MB/s of UTF-8."""
    size = sum(len(text.encode("utf-8")) for text in texts) / 1e6

    def work() -> float:
        start = time.perf_counter()
        for text in texts:
            encode(text)
        return size / (time.perf_counter() - start)

    return work


if __name__ == "__main__":
    main()
