"""Memory to open a large model: one copy of its weights and one tensor more, or not?

In: the name of a size (gpt2-xl), a number format and a number of shards; a folder of that shape with random numbers is
written into a temporary place. Out: peak resident memory of a process that does nothing but open it, beside the bytes
that the weights take, for the stored format and for a conversion.

    python benchmarks/load_memory.py --size gpt2-xl --stored bf16 --shards 4
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file

from groundup.checkpoint import folder, huggingface
from groundup.checkpoint.fields import hf_config
from groundup.checkpoint.names import pairs
from groundup.model.config import ModelConfig, from_name

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
KILOBYTE = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in


def write(place: Path, config: ModelConfig, dtype: torch.dtype, shards: int) -> tuple[int, int]:
    """A folder of random weights, one shard in memory at a time; returns the bytes of all and of the largest tensor."""
    (place / "config.json").write_text(json.dumps(hf_config(config)), encoding="utf-8")
    shapes = _shapes(config)
    names = list(shapes)
    each = -(-len(names) // shards)
    weight_map: dict[str, str] = {}
    sizes = []
    for number in range(0, len(names), each):
        file = f"model-{number // each + 1:05}-of-{shards:05}.safetensors" if shards > 1 else huggingface.WEIGHTS
        held = {
            name: torch.empty(shapes[name], dtype=dtype).normal_(std=0.02) for name in names[number : number + each]
        }
        save_file(held, place / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(held, file)
        sizes += [tensor.nbytes for tensor in held.values()]
    if shards > 1:
        index = json.dumps({"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map})
        (place / (huggingface.WEIGHTS + huggingface.INDEX)).write_text(index, encoding="utf-8")
    return sum(sizes), max(sizes)


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape as it stands in the file."""
    keys = config.kv_heads * config.head_size
    shapes: dict[str, tuple[int, ...]] = {}
    for pair in pairs(config):
        shape = pair.shape[::-1] if pair.transposed else pair.shape
        rows = [shape[0]] if len(pair.theirs) == 1 else [config.heads * config.head_size, keys, keys]
        shapes |= {name: (count, *shape[1:]) for name, count in zip(pair.theirs, rows, strict=True)}
    return shapes


def open_it(place: Path, dtype: torch.dtype | None) -> dict[str, float]:
    """What opening the folder takes, measured in this process, which should have done nothing before."""
    before = psutil.Process().memory_info().rss
    started = time.monotonic()
    model = folder.read_model(place, dtype=dtype)
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE
    held = sum(parameter.nbytes for parameter in model.parameters())
    return {"grown": peak - before, "held": held, "seconds": seconds}


def apart(place: Path, dtype: str) -> dict[str, float]:
    """`open_it` in a process of its own."""
    words = [sys.executable, __file__, "--open", str(place), "--as", dtype]
    return dict(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    """Write, open in a child, print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="gpt2-xl")
    parser.add_argument("--layers", type=int, help="fewer layers, to try the script itself")
    parser.add_argument("--stored", choices=DTYPES, default="bf16")
    parser.add_argument("--as", dest="wanted", default="", help="a number format; in the child: what to open it as")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.open:
        print(json.dumps(open_it(asked.open, DTYPES.get(asked.wanted))))
        return
    config = from_name(asked.size, layers=asked.layers)
    with tempfile.TemporaryDirectory() as name:
        size, largest = write(Path(name), config, DTYPES[asked.stored], asked.shards)
        print(f"{asked.size} in {asked.stored}, {asked.shards} files, {size / 1e6:,.0f} MB, "
              f"largest tensor {largest / 1e6:,.0f} MB")  # fmt: skip
        for wanted in [asked.wanted] if asked.wanted else ["", "fp32", "bf16"]:
            seen = apart(Path(name), wanted)
            over = (seen["grown"] - seen["held"]) / 1e6
            print(f"opened as {wanted or 'stored':6} in {seen['seconds']:5.1f} s: the network is "
                  f"{seen['held'] / 1e6:,.0f} MB, memory grew by {seen['grown'] / 1e6:,.0f} MB "
                  f"({over:+,.0f} MB, {seen['grown'] / seen['held']:.2f} copies)")  # fmt: skip


if __name__ == "__main__":
    main()
