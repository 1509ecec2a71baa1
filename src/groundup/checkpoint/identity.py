"""Which model this is, by the bytes of its weights: for cards, and for adapters that belong on one model alone.

In: a file or folder of weights. Out: a sha256.
"""

import hashlib
from pathlib import Path

from groundup.checkpoint import huggingface

OPENAI = "model.ckpt.data-"


def weights_hash(path: Path) -> str:
    """sha256 of a model's file of weights; of several, of their names and hashes, in order.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> _ = file.write_bytes(b"weights")
    >>> weights_hash(file)[:8], weights_hash(file) == weights_hash(file.parent)
    ('9a129038', True)
    """
    hashes = {file.name: _sha256(file) for file in _weight_files(path)}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    listed = "".join(f"{value}  {name}\n" for name, value in hashes.items())  # as the program sha256sum prints them
    return hashlib.sha256(listed.encode()).hexdigest()


def _weight_files(path: Path) -> list[Path]:
    """The files that a model's weights are read from, in the order in which `huggingface.weights` looks for them."""
    if path.is_file():
        return [path]
    for whole in (huggingface.WEIGHTS, huggingface.PICKLED):
        if (path / whole).exists():
            return [path / whole]
        if (index := path / (whole + huggingface.INDEX)).exists():
            return [path / name for name in sorted(set(huggingface.read_json(index)["weight_map"].values()))]
    return sorted(file for file in path.iterdir() if file.name.startswith(OPENAI))


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
