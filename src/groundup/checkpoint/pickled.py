"""pytorch_model.bin, the pickle files of older models: read with no code run.

In: a file of `torch.save` (a zip archive: data.pkl, and the numbers of each tensor as a stored file). Out: `Weights`.

A pickle is a program. This one is looked through first, without running it: it may name nothing but plain tensors and
the dict around them. Only then does torch's weights-only loader run it, with the numbers left in the file (mmap).
"""

import pickle
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from groundup.checkpoint.fields import printable
from groundup.errors import CheckpointError

LIMIT = 2 << 20  # bytes of data.pkl, and of the list of files in the archive: some 100 are needed for each tensor
MOST_STEPS = 250_000  # of the pickle program: a tensor takes some 40
FIX = "use a copy in safetensors form, or convert it where you trust it"
PLAIN = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
PLAIN |= {f"torch {kind}Storage" for kind in ("Float", "Half", "BFloat16", "Double")}
PLAIN |= {f"torch {kind}Storage" for kind in ("Long", "Int", "Short", "Char", "Byte", "Bool")}  # stored masks
NAMING = ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4", "PERSID")  # other ways to name code or what lies outside
TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


class PickledFile:
    """One file of `torch.save` that holds a dict of plain tensors; their numbers stay in the file until read.

    Raises CheckpointError for anything else, saying what it holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _look_through(path)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError,
                OverflowError, RecursionError, OSError) as error:  # fmt: skip
            raise _refused(path, f"torch's weights-only loader says {_first_line(error)}") from None
        self._tensors = _plain(path, content)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def types(self) -> set[str]:
        """The number formats in the file, as safetensors names them."""
        return {TYPES.get(tensor.dtype, str(tensor.dtype)) for tensor in self._tensors.values()}

    def read(self, name: str) -> Tensor:
        """One tensor of fp32, fp16 or bf16, copied out of the file."""
        tensor = self._tensors[name]
        if tensor.dtype not in TYPES:
            raise _refused(self.path, f"{name} is stored as {tensor.dtype}")
        return tensor.clone(memory_format=torch.contiguous_format)


def _look_through(path: Path) -> None:
    """Refuse an archive with compressed or oversized parts, and a pickle that names more than plain tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        listed = _directory_bytes(path, file, size)
        if listed > min(LIMIT, size):
            raise _refused(path, f"its list of files is said to have {listed:,} bytes")
        try:
            program = _program(path, file, size)
        except (zipfile.BadZipFile, OSError, ValueError, EOFError, RuntimeError) as error:
            raise _refused(path, f"it is truncated or damaged ({_first_line(error)})") from None
    _check_names(path, program)


def _program(path: Path, file: BinaryIO, size: int) -> bytes:
    """The pickle inside the archive: the only part that is read here."""
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1 for part in parts):
            raise _refused(path, "it has compressed or encrypted parts, which torch.save does not write")
        if sum(part.file_size for part in parts) > size:
            raise _refused(path, "its parts are said to be larger than the file")
        found = [part for part in parts if part.filename.rpartition("/")[2] == "data.pkl"]
        if len(found) != 1 or found[0].file_size > LIMIT:
            raise _refused(path, f"it has {len(found)} data.pkl, or one of more than {LIMIT:,} bytes")
        return archive.read(found[0])


def _directory_bytes(path: Path, file: BinaryIO, size: int) -> int:
    """How many bytes the list of files in a zip archive takes (APPNOTE.TXT 6.3, sections 4.3.14 and 4.3.16)."""
    begin = max(0, size - (1 << 16) - 22)
    file.seek(begin)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 22:
        raise _refused(path, "it is no zip archive, the form torch.save has had since 1.6, or is truncated")
    listed = int(struct.unpack_from("<I", tail, at + 12)[0])
    if listed != 0xFFFFFFFF:
        return listed
    more = tail.rfind(b"PK\6\6", 0, at)  # the 64-bit record; torch puts it right before
    if more < 0 or len(tail) < more + 48:
        raise _refused(path, "its list of files has no size")
    return int(struct.unpack_from("<Q", tail, more + 40)[0])


def _check_names(path: Path, program: bytes) -> None:
    try:
        for step, (operation, argument, _) in enumerate(pickletools.genops(program)):
            if step == MOST_STEPS:
                raise _refused(path, f"its pickle has more than {MOST_STEPS:,} steps")
            named = operation.name == "GLOBAL" and argument not in PLAIN
            if named or operation.name in NAMING:
                held = printable(str(argument or operation.name), 100).replace(" ", ".")
                raise _refused(path, f"it holds {held}, not only tensors")
    except ValueError as error:
        raise _refused(path, f"its pickle is damaged ({_first_line(error)})") from None


def _plain(path: Path, content: object) -> dict[str, Tensor]:
    """The dict of tensors that a pickle gave, with as many numbers behind them as their shapes say."""
    if not isinstance(content, dict):
        raise _refused(path, f"it holds a {type(content).__name__}, not a dict of tensors")
    if not content:
        raise _refused(path, "it holds no tensors")
    total = 0
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise _refused(path, f"{printable(str(name), 100)} is a {type(tensor).__name__}, not a plain tensor")
        size = tensor.numel() * tensor.element_size()
        if size > tensor.untyped_storage().nbytes():  # strides of 0 repeat numbers
            raise _refused(
                path, f"{printable(name, 100)} has shape {tuple(tensor.shape)}, more numbers than the file holds for it"
            )
        total += size
    # Several tensors may show the same numbers, and each becomes one of its own. A tied head does, the token table a
    # second time: less than the file again.
    if total > 2 * path.stat().st_size:
        raise _refused(path, f"its tensors have {total:,} bytes, more than twice those of the file")
    return {name: tensor.detach() for name, tensor in content.items()}


def _first_line(error: BaseException) -> str:
    return printable(f"{type(error).__name__}: {error}".splitlines()[0])


def _refused(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is not read: {why}", FIX)
