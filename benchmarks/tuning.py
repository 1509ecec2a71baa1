"""Fine-tuning beside transformers and peft: tokens per second and memory of full, last-block and LoRA training.

    python benchmarks/tuning.py --model MODEL_FOLDER --data instruction-data.json [--repeats 5] [--only full lora]

Both sides open the same folder in fp32, learn the same rows in the same batches (rows of like length together, filled
up to the longest, the loss on the answers alone) under bf16 autocast, with fused AdamW, and clip. Theirs is a plain
loop over AutoModelForCausalLM with labels of -100; LoRA is peft's, rank 16 on every linear layer of the blocks.
Tokens are counted without filler. Memory is the growth of a process of its own over what it held before the model was
opened, at its peak.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import interleaved
import numpy as np
import psutil
import torch

from groundup import losses, optim
from groundup import machine as machines
from groundup.batches import Loader
from groundup.batches.batch import Batch
from groundup.batches.rows import Rows
from groundup.checkpoint import folder
from groundup.model import lora, surgery
from groundup.text import conversations, styles
from groundup.text.template import ChatTemplate
from groundup.tokens import rows as rowing
from groundup.train.loop import steps

BATCH, STEPS, LONGEST = 8, 4, 256
LR, BETAS, DECAY, CLIP = 5e-5, (0.9, 0.95), 0.1, 1.0
KINDS = ("full", "last-block", "lora")


def batches(model: str, data: str) -> list[Batch]:
    """The first batches that a run would draw, the same for both sides."""
    tokenizer = folder.opening.open_any(model).tokenizer
    special = {id: name for name, id in tokenizer.special.items()}
    style = styles.resolve("auto", tokenizer.chat_template)
    bos = special.get(tokenizer.bos, "") if tokenizer.bos is not None else ""
    eos = special.get(tokenizer.eos, "") if tokenizer.eos is not None else ""
    template = ChatTemplate(style.template, bos=bos, eos=eos)
    found = [
        rowing.shortened(rowing.chat_row(tokenizer, template, each, learn="answers"), LONGEST)
        for each in conversations.read(data)
    ]
    source = Rows(found, pad=tokenizer.ends[0])
    loader = iter(Loader(source, batch=BATCH, seed=1, lengths=source.lengths))
    return [next(loader) for _ in range(24)]


def ours(kind: str, model: str, given: list[Batch]) -> Callable[[], float]:
    """Our network in our loop."""
    machine = machines.choose(device="cpu", dtype="bf16")
    kept = machines.kept_memory(alike=False)
    kept.__enter__()
    network = folder.load(model, dtype=torch.float32).model
    if kind == "lora":
        config = lora.LoraConfig(rank=16, alpha=16.0)
        network = lora.add(network, config, seed=1)
    else:
        network = surgery.train_only(network, "all" if kind == "full" else kind)
    optimizer = optim.adamw(network, lr=LR, betas=BETAS, weight_decay=DECAY)
    drawn = Endless(given)
    loop = steps(network, optimizer, iter(drawn), losses.next_token, until=10**9, machine=machine, clip=CLIP)

    def work(_kept: object = kept) -> float:
        begin, before = time.perf_counter(), drawn.tokens
        for _ in range(STEPS):
            next(loop)
        return (drawn.tokens - before) / (time.perf_counter() - begin)

    return work


def theirs(kind: str, model: str, given: list[Batch]) -> Callable[[], float]:
    """transformers' network, and peft's adapters, in a plain loop."""
    from transformers import AutoModelForCausalLM

    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).train()
    if kind == "lora":
        from peft import LoraConfig, get_peft_model

        network = get_peft_model(network, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear"))
    if kind == "last-block":
        network.requires_grad_(False)
        base = getattr(network, "transformer", None) or network.model
        last = base.h[-1] if hasattr(base, "h") else base.layers[-1]
        for part in (last, base.ln_f if hasattr(base, "ln_f") else base.norm, network.lm_head):
            part.requires_grad_(True)
    learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=LR, betas=BETAS, weight_decay=DECAY, fused=True)
    drawn = Endless(given)
    forever = iter(drawn)

    def work() -> float:
        begin, before = time.perf_counter(), drawn.tokens
        for _ in range(STEPS):
            batch = next(forever)
            targets = batch.fields["targets"]
            ids = torch.cat((batch.tokens, targets[:, -1:]), dim=1)  # they take whole rows, and shift inside
            learnt_here = targets.masked_fill(batch.fields["weight"] == 0, -100)
            labels = torch.cat((torch.full_like(targets[:, :1], -100), learnt_here), dim=1)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                value = network(input_ids=ids, labels=labels)
            value.loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt, CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return (drawn.tokens - before) / (time.perf_counter() - begin)

    return work


class Endless:
    """The same batches over and over; `tokens` counts those handed out, filler left out."""

    def __init__(self, given: list[Batch]) -> None:
        self.given, self.tokens = given, 0

    def __iter__(self) -> Any:
        while True:
            for batch in self.given:
                self.tokens += batch.size
                yield batch


def peak(make: Callable[[], Callable[[], float]]) -> float:
    """MiB that a process of its own grows by, at most, while it opens the model and works once round all batches."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_grown, args=(there, make))
    process.start()
    found = here.recv()
    process.join()
    return float(found)


def _grown(pipe: Connection, make: Callable[[], Callable[[], float]]) -> None:
    import peft  # noqa: F401
    import transformers  # noqa: F401  # both sides hold the libraries

    before = psutil.Process().memory_info().rss
    work = make()
    for _ in range(3):
        work()
    pipe.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 2**20)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder that transformers opens, too")
    parser.add_argument("--data", type=Path, required=True, help="instructions, as for groundup instruct")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=KINDS)
    wish = parser.parse_args()
    given = batches(str(wish.model), str(wish.data))
    print(f"rows of {np.mean([batch.size / BATCH for batch in given]):.0f} tokens on average, {BATCH} a step\n")
    for kind in wish.only:
        makers = {"groundup": partial(ours, kind), "transformers": partial(theirs, kind)}
        work = {name: interleaved.apart(make, str(wish.model), given) for name, make in makers.items()}
        found = interleaved.rates(work, repeats=wish.repeats)
        print(interleaved.table(found, ours="groundup", unit="tokens/s", title=f"Tuning, {kind}"))
        del work
        grown = {name: peak(partial(make, str(wish.model), given)) for name, make in makers.items()}
        ratio = grown["groundup"] / grown["transformers"]
        print(
            "peak memory: " + ", ".join(f"{name} {size:,.0f} MiB" for name, size in grown.items()) + f" ({ratio:.2f})\n"
        )


if __name__ == "__main__":
    main()
