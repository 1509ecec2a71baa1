"""Time to a loss on tiny Shakespeare by characters: whole processes, from the start to the loss of all validation text.

    python benchmarks/time_to_loss.py --peer PATH/TO/nanoGPT --data tinyshakespeare.txt [--repeats 5]

The peer is nanoGPT's recipe for a CPU (its README: 4 layers, 4 heads, width 128, context 64, batch 12, 2,000 steps, no
dropout, and the rates of config/train_shakespeare_char.py), its model.py in the loop of its train.py but without its
evaluations and logging on the way, which spares it time. Ours is `groundup pretrain --config shakespeare-quick`.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import interleaved

STEPS, BATCH, CONTEXT, LR, MIN_LR, WARMUP = 2000, 12, 64, 1e-3, 1e-4, 100


def nanogpt(path: str, data: str) -> None:
    """The recipe, in this process; prints the validation loss."""
    import numpy as np
    import torch

    sys.path.insert(0, path)
    import model as peer  # nanoGPT's model.py

    text = Path(data).read_text(encoding="utf-8")
    codes = {letter: code for code, letter in enumerate(sorted(set(text)))}
    ids = np.array([codes[letter] for letter in text], dtype=np.int64)
    train, valid = (torch.from_numpy(part) for part in (ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]))
    torch.manual_seed(1337)
    shape = {"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": CONTEXT, "bias": False}
    network = peer.GPT(peer.GPTConfig(**shape, vocab_size=len(codes), dropout=0.0))
    optimizer = network.configure_optimizers(0.1, LR, (0.9, 0.99), "cpu")
    for step in range(STEPS):
        done = (step - WARMUP) / (STEPS - WARMUP)
        rate = LR * (step + 1) / (WARMUP + 1) if step < WARMUP else (
            MIN_LR + 0.5 * (1 + math.cos(math.pi * done)) * (LR - MIN_LR))  # fmt: skip
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(train) - CONTEXT, (BATCH,))
        x = torch.stack([train[start : start + CONTEXT] for start in starts])
        y = torch.stack([train[start + 1 : start + 1 + CONTEXT] for start in starts])
        _, loss = network(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    print(json.dumps({"validation_loss": whole(network.eval(), valid)}))


def whole(network: "torch.nn.Module", valid: "torch.Tensor") -> float:  # noqa: F821
    """Mean loss over every token of the validation part, in windows side by side."""
    import torch

    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(valid) - 1, CONTEXT * 64):
            row = valid[start : start + CONTEXT * 64 + 1]
            full = (len(row) - 1) // CONTEXT * CONTEXT
            for x, y in ((row[:full], row[1 : full + 1]), (row[full:-1], row[full + 1 :])):
                if len(x):
                    shaped = (part.reshape(-1, CONTEXT if len(part) % CONTEXT == 0 else len(part)) for part in (x, y))
                    _, loss = network(*shaped)
                    total, count = total + float(loss) * len(x), count + len(x)
    return total / count


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds of a process, and the validation loss it prints last as JSON."""
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - begin
    return seconds, float(json.loads(done.stdout[done.stdout.index("{") :])["validation_loss"])


def main() -> None:
    """Take turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="a checkout of nanoGPT")
    parser.add_argument("--data", required=True, help="tiny Shakespeare as a file")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="be the peer's process")
    wish = parser.parse_args()
    if wish.alone:
        nanogpt(wish.peer, wish.data)
        return
    found: dict[str, list[tuple[float, float]]] = {"groundup": [], "nanoGPT": []}
    for number in range(wish.repeats):
        with tempfile.TemporaryDirectory() as place:
            ours = ["groundup", "pretrain", "--config", "shakespeare-quick", "--data", wish.data]
            ours = [sys.executable, "-m", *ours, "--seed", str(number + 1), "--out", f"{place}/run", "--json"]
            found["groundup"].append(timed(ours))
        found["nanoGPT"].append(timed([sys.executable, *sys.argv, "--alone"]))
        print(
            f"round {number + 1}: " + "  ".join(f"{name} {runs[-1]}" for name, runs in found.items()), file=sys.stderr
        )
    print("| | median s | range | validation loss, range |\n|---|---|---|---|")
    for name, runs in found.items():
        seconds, losses = [run[0] for run in runs], [run[1] for run in runs]
        print(f"| {name} | {median(seconds):.1f} | {min(seconds):.1f} to {max(seconds):.1f} "
              f"| {min(losses):.3f} to {max(losses):.3f} |")  # fmt: skip
    print(interleaved.circumstances())


if __name__ == "__main__":
    main()
