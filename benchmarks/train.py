"""Training tokens per second beside nanoGPT: the same architecture, batch, dropout and data in both, in one run.

    python benchmarks/train.py --peer PATH/TO/nanoGPT [--model 10m|124m] [--dropout 0.2] [--repeats 5]

nanoGPT runs as it ships on a CPU (fp32, eager, its own optimizer) and under bf16 autocast, eager and compiled; ours
runs through `groundup.train.loop.steps`, as `groundup pretrain` does, eager and compiled. A round is a few steps of
each. Differences that remain: nanoGPT's GELU is the exact one, ours the tanh form that GPT-2 was trained with.
"""

import argparse
import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import interleaved
import torch

from groundup import machine as machines
from groundup import optim
from groundup.batches.batch import Batch, next_token
from groundup.losses import next_token as loss
from groundup.model.config import ModelConfig
from groundup.model.gpt import GPT
from groundup.train import compiling
from groundup.train.loop import steps

SHAPES = {  # layers, heads, width, context, batch, vocabulary, steps in one round
    "10m": (6, 6, 384, 256, 16, 65, 4),
    "124m": (12, 12, 768, 256, 4, 50304, 2),
}
LR, BETAS, DECAY, CLIP = 6e-4, (0.9, 0.95), 0.1, 1.0


def rows(model: str) -> torch.Tensor:
    """Ids (B, T + 1), drawn once."""
    _, _, _, context, batch, vocabulary, _ = SHAPES[model]
    return torch.randint(vocabulary, (batch, context + 1), generator=torch.Generator().manual_seed(1))


def ours(model: str, *, dropout: float, dtype: str, compiled: bool) -> Callable[[], float]:
    """Our model in our loop."""
    layers, heads, width, context, batch, vocabulary, count = SHAPES[model]
    machine = machines.choose(device="cpu", dtype=dtype)
    kept = machines.kept_memory()  # as `groundup pretrain` has it
    kept.__enter__()
    config = ModelConfig(
        family="gpt2", layers=layers, heads=heads, width=width, context=context, vocabulary=vocabulary, qkv_bias=True,
        dropout_embedding=dropout, dropout_attention=dropout, dropout_shortcut=dropout,
    )  # fmt: skip
    network = GPT(config, seed=1)
    optimizer = optim.adamw(network, lr=LR, betas=BETAS, weight_decay=DECAY)
    forever: Iterator[Batch] = itertools.repeat(next_token(rows(model)))
    forward = compiling.compiled(network) if compiled else network
    loop = steps(forward, optimizer, forever, loss, until=10**9, machine=machine, clip=CLIP)

    def work(_kept: object = kept) -> float:
        begin = time.perf_counter()
        for _ in range(count):
            next(loop)
        return count * batch * context / (time.perf_counter() - begin)

    return work


def nanogpt(path: str, model: str, *, dropout: float, dtype: str, compiled: bool) -> Callable[[], float]:
    """Its model and optimizer in the loop of its train.py, without the logging."""
    sys.path.insert(0, path)
    import model as peer  # nanoGPT's model.py

    layers, heads, width, context, batch, vocabulary, count = SHAPES[model]
    torch.manual_seed(1)
    config = peer.GPTConfig(
        n_layer=layers, n_head=heads, n_embd=width, block_size=context, vocab_size=vocabulary, dropout=dropout
    )
    network: Any = peer.GPT(config).train()
    optimizer = network.configure_optimizers(DECAY, LR, BETAS, "cpu")
    ids = rows(model)
    x, y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    run = torch.compile(network) if compiled else network
    precision = torch.autocast("cpu", dtype=torch.bfloat16) if dtype == "bf16" else contextlib.nullcontext()

    def work() -> float:
        begin = time.perf_counter()
        for _ in range(count):
            with precision:
                _, value = run(x, y)
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return count * batch * context / (time.perf_counter() - begin)

    return work


def matmul_rate(seconds: float = 2.0) -> float:
    """GFLOP/s of bf16 matrix products of 2048 numbers a side: what this machine has to give."""
    a, b = torch.randn(2048, 2048).bfloat16(), torch.randn(2048, 2048).bfloat16()
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        torch.mm(a, b)
        best = max(best, 2 * 2048**3 / (time.perf_counter() - begin) / 1e9)
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="a checkout of nanoGPT")
    parser.add_argument("--model", choices=SHAPES, default="10m")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="these contenders alone")
    wish = parser.parse_args()
    peak = matmul_rate()
    plain, fp32 = {"dropout": wish.dropout, "compiled": False}, {"dtype": "fp32"}
    compiled, bf16 = plain | {"compiled": True}, {"dtype": "bf16"}
    contenders: dict[str, tuple[Callable[..., Callable[[], float]], list[str], dict[str, Any]]] = {
        "groundup": (ours, [wish.model], plain | bf16),
        "groundup compiled": (ours, [wish.model], compiled | bf16),
        "groundup fp32": (ours, [wish.model], plain | fp32),
        "nanoGPT as it ships": (nanogpt, [wish.peer, wish.model], plain | fp32),
        "nanoGPT bf16": (nanogpt, [wish.peer, wish.model], plain | bf16),
        "nanoGPT bf16 compiled": (nanogpt, [wish.peer, wish.model], compiled | bf16),
    }
    chosen = {
        name: interleaved.apart(make, *given, **options)
        for name, (make, given, options) in contenders.items()
        if not wish.only or name in wish.only
    }
    found = interleaved.rates(chosen, repeats=wish.repeats)
    layers, _, width, context, _, vocabulary, _ = SHAPES[wish.model]
    first = next(iter(chosen))
    title = f"Training, {wish.model}, dropout {wish.dropout}"
    print(interleaved.table(found, ours=first, unit="tokens/s", title=title))
    flops = 6 * (12 * layers * width**2 + vocabulary * width) + 6 * layers * width * context  # causal half counted
    for name, values in found.items():
        print(f"{name}: {max(values) * flops / 1e9 / peak:.0%} of {peak:,.0f} GFLOP/s (bf16 matrix products)")


if __name__ == "__main__":
    main()
