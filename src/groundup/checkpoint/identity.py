"""Which model this is, by the bytes of its weights: for cards, and for adapters that belong on one model alone.

In: a file or folder of weights. Out: a sha256.
"""

import hashlib
from pathlib import Path

from groundup.checkpoint import adapter_layout, adapters, huggingface
from groundup.errors import CheckpointError

OPENAI = "model.ckpt.data-"


def weights_hash(path: Path) -> str:
    """sha256 of a model's file of weights; of several, of their names and hashes, in order.

    Adapters are a model together with their base: its hash (or, where none was kept, its name) counts as one more file.
    Raises CheckpointError for a folder without weights.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> _ = file.write_bytes(b"weights")
    >>> weights_hash(file)[:8], weights_hash(file) == weights_hash(file.parent)
    ('9a129038', True)
    """
    hashes = {file.name: _sha256(file) for file in _weight_files(path)}
    if not hashes:
        raise CheckpointError(f"{path} holds no file of weights", "give a model's file, or the folder it lies in")
    if _is_adapter(path):
        made_on = adapters.config_in(path)
        hashes["base"] = made_on.base_sha256 or made_on.base
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
    if _is_adapter(path):
        names = (adapter_layout.WEIGHTS, adapters.PICKLED, adapter_layout.SCORE)
        return [path / name for name in names if (path / name).is_file()]
    return sorted(file for file in path.iterdir() if file.name.startswith(OPENAI))


def _is_adapter(path: Path) -> bool:
    return adapters.is_adapter(path) and not huggingface.holds_weights(path)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
