"""Where the work runs: device, number format, threads, rank. Decided once, passed on, never asked again.

In: the wishes of the settings. Out: a `Machine`, which every room takes as an argument.
"""

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from groundup import __version__
from groundup.errors import SettingsError

PACKAGES = "torch numpy safetensors tokenizers tiktoken pydantic cyclopts rich".split()
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Machine:
    """A device, the number format of its matrix products, CPU threads, and this process's place among several.

    >>> machine = choose(device="cpu", dtype="fp32")
    >>> machine.device.type, machine.is_main, machine.sum(2.0)
    ('cpu', True, 2.0)
    """

    device: torch.device
    dtype: torch.dtype
    threads: int
    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """True on the one process that writes files and talks."""
        return self.rank == 0

    @property
    def dtype_name(self) -> str:
        """`fp32`, `bf16` or `fp16`, as in the settings."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Matrix products in `dtype`, weights and sums in fp32 (Micikevicius et al. 2018, section 3.1)."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def loss_scaler(self) -> torch.amp.GradScaler:
        """Keeps small gradients from vanishing in fp16 (Micikevicius et al. 2018, section 3.2); idle for other formats.

        >>> choose(device="cpu", dtype="fp32").loss_scaler().get_scale()
        1.0
        """
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    def sum(self, value: float) -> float:
        """Add a number over all ranks."""
        if self.world == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device if self.device.type == "cuda" else "cpu")
        torch.distributed.all_reduce(total)
        return float(total)


def choose(*, device: str = "auto", dtype: str = "auto", threads: int | None = None) -> Machine:
    """Pick device, number format and threads; raises SettingsError where the wish cannot be met."""
    found = _device(device)
    wanted = DTYPES[dtype if dtype != "auto" else best_dtype(found)]
    threads = threads or cores()
    torch.set_num_threads(threads)
    return Machine(found, wanted, threads)


def _device(wish: str) -> torch.device:
    there = devices()
    if wish == "auto":
        return torch.device(there[-1])
    if wish not in there:
        raise SettingsError(f"no {wish} device on this machine", f"choose one of: auto, {', '.join(there)}")
    return torch.device(wish)


def devices() -> list[str]:
    """The kinds of device torch can use here, the fastest last."""
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.append("mps")
    if torch.cuda.is_available():
        found.append("cuda")
    return found


def has_bf16(device: torch.device) -> bool:
    """True where bf16 matrix products run in hardware: CUDA from Ampere on, CPUs with AVX512-BF16 or AMX.

    Elsewhere a CPU would emulate them, which is slower than fp32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return False


def best_dtype(device: torch.device) -> str:
    """The quickest number format of a device: bf16, fp16 on CUDA before Ampere (its fp32 is far slower), else fp32."""
    if has_bf16(device):
        return "bf16"
    return "fp16" if device.type == "cuda" else "fp32"


def has_compiler() -> bool:
    """Whether the C++ compiler that torch.compile needs on a CPU is there."""
    usual = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    return shutil.which(os.environ.get("CXX") or usual) is not None


def reason(error: BaseException) -> str:
    """The first line of what a failed compilation says.

    >>> reason(RuntimeError("no compiler\\nlong story"))
    'RuntimeError: no compiler'
    """
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"


@contextlib.contextmanager
def kept_memory(*, alike: bool = True) -> Iterator[None]:
    """Let the C library keep memory that tensors give back, as training wants the same sizes again at every step.

    Else each step asks the system for new pages and has them zeroed: 7 % of a step of 10M parameters (2 cores, Linux).
    alike: whether the sizes are the same at every step. Where they are not, large blocks leave holes that the next, a
    little larger, does not fit into (a classifier of 135M parameters grew to 5 GiB): those of 32 MiB and more, the most
    that glibc allows to be told, are then lent and given back each time.
    Afterwards all is given back. Does nothing where the C library is not glibc.
    """
    glibc = platform.libc_ver()[0] == "glibc"
    library = ctypes.CDLL(None) if glibc else ctypes.pythonapi
    # of malloc.h: M_TRIM_THRESHOLD -1 (here: the largest there is), M_TOP_PAD -2, M_MMAP_THRESHOLD -3, M_MMAP_MAX -4
    large = (-4, 0) if alike else (-3, 2**25)
    for name, value in (large, (-1, -1), (-2, 2**26)) if glibc else ():
        library.mallopt(name, value)
    try:
        yield
    finally:
        # Once told, glibc no longer finds its thresholds by itself: leave those it ends up with (M_MMAP_THRESHOLD -3).
        for name, value in ((-4, 65_536), (-1, 2**26), (-2, 2**17), (-3, 2**25)) if glibc else ():
            library.mallopt(name, value)
        if glibc:
            library.malloc_trim(0)


@contextlib.contextmanager
def lent_memory() -> Iterator[None]:
    """Let the C library take each large block from the system by itself and give it back when it is free.

    Else freed blocks leave holes between those that stay, which the next, a little larger, does not fit into: opening
    1.5B parameters in bf16 then took 1.32 times their size (Linux). Does nothing where the C library is not glibc.
    """
    glibc = platform.libc_ver()[0] == "glibc"
    library = ctypes.CDLL(None) if glibc else ctypes.pythonapi
    if glibc:
        library.mallopt(-3, 2**20)  # M_MMAP_THRESHOLD of malloc.h
    try:
        yield
    finally:
        if glibc:
            library.mallopt(-3, 2**25)  # as kept_memory leaves it


def versions() -> dict[str, str]:
    """Versions of Groundup, Python and the libraries it stands on."""
    found = {"groundup": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a library put on the path without being installed
            found[name] = "not installed as a package"
    return found


def cores() -> int:
    """CPU cores this process may use: $OMP_NUM_THREADS if set, else those it is bound to."""
    wish = os.environ.get("OMP_NUM_THREADS", "")
    if wish.isdigit() and int(wish) > 0:
        return int(wish)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory(device: torch.device) -> int:
    """Bytes free for us on the device now; on a CPU also within the control group's limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(psutil.virtual_memory().available, _cgroup_free())


def _cgroup_free() -> int:
    """Bytes left under the memory limit of a Linux container; a huge number where there is none."""
    try:
        with (
            open("/sys/fs/cgroup/memory.max", encoding="ascii") as limit,
            open("/sys/fs/cgroup/memory.current", encoding="ascii") as used,
        ):
            text = limit.read().strip()
            return 2**63 if text == "max" else int(text) - int(used.read())
    except (OSError, ValueError):
        return 2**63


def describe() -> dict[str, Any]:
    """Facts about this machine for a run's records: processor, cores, memory, versions."""
    facts = {
        "system": platform.platform(terse=True),
        "processor": torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def seed_all(seed: int) -> None:
    """Seed torch's global generators, which dropout draws from, on every device."""
    torch.manual_seed(seed)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a generator of its own: the global one is as before afterwards."""
    before = rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_rng_state(before)


def rng_state() -> dict[str, torch.Tensor]:
    """The state of torch's global generators, to be kept with a checkpoint."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: dict[str, torch.Tensor]) -> None:
    """Put back what `rng_state` returned; a device that is not here is passed over."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
