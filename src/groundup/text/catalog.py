"""Public data sets by name: address, sha256, licence, citation, and where a local copy lies.

In: a name such as `tinyshakespeare`. Out: the path of a verified file: in the mirror folder `$GROUNDUP_DATA`, else in
the cache folder, else downloaded into it: the only time the network is used, and only because a name was given.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from groundup.errors import DataError, nearest
from groundup.text import download
from groundup.text.download import Progress, Remote, silent

Kind = Literal["text", "labelled", "instructions", "preferences"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One public file; `columns` names the fields of a tab-separated file without a header.

    Where no hash is known to us, `sha256` is "" and `bytes` 0: that of the first download is written beside the file
    and holds from then on. It tells whether the file changed, not whether it was right the first time.
    """

    kind: Kind
    file: str  # inside the mirror folder, and inside the cache folder
    address: str
    sha256: str = ""
    bytes: int = 0
    licence: str
    citation: str
    note: str = ""
    member: str = ""  # the file to take out, where the address is a zip file
    columns: tuple[str, ...] = ()


ENTRIES: dict[str, Entry] = {
    "the-verdict": Entry(
        kind="text",
        file="text/the-verdict.txt",
        address="https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch02/01_main-chapter-code/the-verdict.txt",
        sha256="b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
        bytes=20_479,
        licence="public domain",
        citation="Edith Wharton, The Verdict, 1908",
    ),
    "tinyshakespeare": Entry(
        kind="text",
        file="text/tinyshakespeare.txt",
        address="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        bytes=1_115_394,
        licence="public domain",
        citation="Andrej Karpathy, char-rnn, 2015: part of the works of William Shakespeare",
    ),
    "wikitext-2": Entry(
        kind="text",
        file="text/wikitext2-valid.txt",
        address="https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2/valid.txt",
        sha256="f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
        bytes=1_121_681,
        licence="CC BY-SA 3.0",
        citation="Merity, Xiong, Bradbury, Socher: Pointer Sentinel Mixture Models, arXiv 1609.07843",
        note="the validation part",
    ),
    "tinystories": Entry(
        kind="text",
        file="text/tinystories-sample.txt",
        address="https://raw.githubusercontent.com/Niklas6/Mini_GPT/51147107af4a84990d7f5583faa5dd16a8c8ae34/tinystories.txt",
        sha256="727e8b228375be3075114c20729c93ed6e81ae5d8fe7faf7cb54b304f0322d70",
        bytes=197_290,
        licence="CDLA-Sharing-1.0",
        citation="Eldan, Li: TinyStories, arXiv 2305.07759",
        note="a sample; the whole set is https://huggingface.co/datasets/roneneldan/TinyStories",
    ),
    "fineweb-edu-sample": Entry(
        kind="text",
        file="text/fineweb-edu-sample-10BT-000.parquet",
        address="https://huggingface.co/datasets/HuggingFaceFW/fineweb-edu/resolve/main/sample/10BT/000_00000.parquet",
        licence="ODC-By 1.0",
        citation="Penedo and others: The FineWeb Datasets, arXiv 2406.17557",
        note="the first file of sample-10BT, about 2 GB; needs groundup[data]; its hash is that of your first download",
    ),
    "sms-spam": Entry(
        kind="labelled",
        file="sms-spam/SMSSpamCollection",
        address="https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
        sha256="7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
        bytes=477_907,
        licence="CC BY 4.0",
        citation="Almeida, Gomez Hidalgo, Yamakami: Contributions to the Study of SMS Spam Filtering, DocEng 2011",
        note="the file SMSSpamCollection inside the zip",
        member="SMSSpamCollection",
        columns=("label", "text"),
    ),
    "instruction-data": Entry(
        kind="instructions",
        file="instruction/instruction-data.json",
        address="https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch07/01_main-chapter-code/instruction-data.json",
        sha256="7e09a9af353722ca15c18bc580f093f9c39d3178335a75177319cb1e1d163944",
        bytes=203_524,
        licence="Apache-2.0",
        citation="Sebastian Raschka, Build a Large Language Model (From Scratch), 2024, chapter 7",
    ),
    "instruction-preference": Entry(
        kind="preferences",
        file="preference/instruction-data-with-preference.json",
        address="https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch07/"
        "04_preference-tuning-with-dpo/instruction-data-with-preference.json",
        sha256="305315abf14f65fa42c01a0877572f832606571c2a7d49f152ac1d758b16756e",
        bytes=386_968,
        licence="Apache-2.0",
        citation="Sebastian Raschka, Build a Large Language Model (From Scratch), 2024, chapter 7",
    ),
    "hh-rlhf": Entry(
        kind="preferences",
        file="preference/hh-rlhf-harmless-test.jsonl.gz",
        address="https://raw.githubusercontent.com/anthropics/hh-rlhf/master/harmless-base/test.jsonl.gz",
        sha256="ebfaaed21162a4de120ae85366075b34425e2a6303fac59b99555002f7016f03",
        bytes=742_801,
        licence="MIT",
        citation="Bai and others: Training a Helpful and Harmless Assistant, arXiv 2204.05862",
        note="harmless-base, test part",
    ),
}


def mirror() -> Path | None:
    """The folder of local copies, `$GROUNDUP_DATA`, or None where it is not set."""
    folder = os.environ.get("GROUNDUP_DATA")
    return Path(folder) if folder else None


def local(name: str) -> Path | None:
    """Where a copy of a catalog set lies already, unverified: in the mirror folder or the cache folder, else None."""
    file, folders = ENTRIES[name].file, (mirror(), download.cache())
    return next((folder / file for folder in folders if folder and (folder / file).is_file()), None)


def find(name: str, *, progress: Progress = silent) -> Path:
    """The verified local copy of a catalog set, downloaded if there is none; raises DataError where it cannot be had.

    A file in the mirror folder of which no hash is known is taken as it is.

    >>> find("tinyshakespear")
    Traceback (most recent call last):
    groundup.errors.DataError: 'tinyshakespear' is not in the catalog
      -> did you mean 'tinyshakespeare'?
    """
    if name not in ENTRIES:
        raise DataError(f"'{name}' is not in the catalog", nearest(name, ENTRIES))
    entry, folder = ENTRIES[name], mirror()
    if folder is not None and (folder / entry.file).is_file():
        path = folder / entry.file
        expected = entry.sha256 or download.pinned(path)
        download.verify(path, sha256=expected, name=name, address=entry.address)
        return path
    remote = Remote(name=name, address=entry.address, sha256=entry.sha256, bytes=entry.bytes, member=entry.member)
    return download.fetch(remote, download.cache() / entry.file, progress=progress)
