"""Learning byte pairs in Python: our readable trainer (tokens/bpe.py) beside minbpe's, on one megabyte.

    python benchmarks/bpe.py --text FILE --peer PATH_OF_A_MINBPE_CHECKOUT [--peer-merges 40]

The same bytes and the same cut into words. The rate is merges per second, cutting and counting included. Ours learns
MERGES; minbpe would take half an hour for that, so by default it learns the first few only (`--peer-merges 4096` for
all). Its merges become cheaper as the text becomes shorter, so the peer is also timed on text of the final length, and
the better of the two rates is what it is credited with: more than it can reach.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import interleaved

from groundup.tokens import bpe

SIZE, MERGES = 1_000_000, 4096  # characters of text, merges
CUT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # GPT-2's


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--peer-merges", type=int, default=40)
    asked = parser.parse_args()
    text = asked.text.read_text(encoding="utf-8")
    text = (text * (SIZE // len(text) + 1))[:SIZE]
    sys.path.insert(0, str(asked.peer))
    whole, short = theirs(text, asked.peer_merges), theirs(text[: final_length(text)], asked.peer_merges)
    peer = whole if asked.peer_merges == MERGES else lambda: max(whole(), short())
    contenders = {"groundup": lambda: ours(text), "minbpe": peer}
    title = f"{MERGES:,} merges on {SIZE / 1e6:g} MB (minbpe: {asked.peer_merges:,})"
    print(interleaved.table(interleaved.rates(contenders, warm=False), ours="groundup", unit="merges/s", title=title))


def final_length(text: str) -> int:
    """How many ids are left when all merges are made, measured on a twentieth of the text."""
    part = text[: SIZE // 20]
    return len(bpe.encode(part, bpe.learn(bpe.count_words([text]), MERGES))) * SIZE // len(part)


def ours(text: str) -> float:
    """Merges per second of tokens/bpe.py."""
    start = time.perf_counter()
    learnt = bpe.learn(bpe.count_words([text]), MERGES)
    return len(learnt) / (time.perf_counter() - start)


def theirs(text: str, merges: int) -> Callable[[], float]:
    """Merges per second of minbpe's RegexTokenizer."""
    from minbpe import RegexTokenizer

    def work() -> float:
        tokenizer: Any = RegexTokenizer(CUT)
        start = time.perf_counter()
        tokenizer.train(text, 256 + merges)
        return merges / (time.perf_counter() - start)

    return work


if __name__ == "__main__":
    main()
