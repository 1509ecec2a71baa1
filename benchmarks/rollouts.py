"""Learning from rewards beside TRL: tokens of answers per second, and answers written and learnt from per second.

    python benchmarks/rollouts.py --model MODEL_FOLDER --data prompts.jsonl [--repeats 5] [--dtype bf16]

Both sides open the same folder in fp32, answer the same prompts in groups at temperature 1, are paid by the same
function of the answer's length and by nothing else, hold a frozen reference, and make the same number of steps of the
same size from each rollout, with AdamW and clipping. TRL is everything at its default otherwise; it is no dependency:
where it is not installed, this prints our own rates alone. An answer's tokens are counted up to and with the one that
ends it, and the copy of the policy that writes them is part of our time of writing.

Formats: with --dtype fp32 everything is fp32. With bf16 both sides keep the weights that learn in fp32 and multiply in
bf16; ours, as `groundup ppo` does, holds the reference in bf16 and writes with a copy in bf16, TRL holds its reference
in fp32.
"""

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import interleaved
import torch

from groundup import machine as machines
from groundup import optim
from groundup.checkpoint import folder
from groundup.generate.chat import template_of
from groundup.losses.policy import policy
from groundup.model import config_of
from groundup.rollouts import collect as collecting
from groundup.rollouts.collect import Actors
from groundup.rollouts.prompts import prompts
from groundup.rollouts.rewards import parse
from groundup.rollouts.source import Rollouts
from groundup.settings import Ppo
from groundup.text import conversations
from groundup.tokens.rows import prompt_ids
from groundup.train.loop import steps

LR, BETAS, DECAY, CLIP, PRICE = 1e-6, (0.9, 0.999), 0.0, 1.0, 0.04


class Clock:
    """Seconds and tokens of what is written, over all calls of a function."""

    def __init__(self) -> None:
        self.seconds, self.tokens = 0.0, 0

    def timed(self, function: Callable[..., Any], tokens: Callable[[Any], int]) -> Callable[..., Any]:
        """The same function; `tokens` counts what it wrote."""

        def work(*args: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            found = function(*args, **options)
            self.seconds += time.perf_counter() - begin
            self.tokens += tokens(found)
            return found

        return work


def alternating(round_: Callable[[], float], clock: Clock) -> Callable[[], float]:
    """Called once it does a round and returns its rate, called again the rate of writing in that round."""
    turns = count()
    last = [0.0, 0]

    def work() -> float:
        if next(turns) % 2:
            return (clock.tokens - last[1]) / (clock.seconds - last[0])
        last[:] = [clock.seconds, clock.tokens]
        return round_()

    return work


def ours(wish: argparse.Namespace) -> Callable[[], float]:
    """Our rollouts and our loop, as `groundup ppo --algorithm grpo` has them; a round is a rollout with its steps."""
    machine = machines.choose(device="cpu", dtype=wish.dtype, threads=wish.threads)
    loaded, frozen = folder.load(wish.model, dtype=torch.float32), folder.load(wish.model, dtype=machine.dtype).model
    template = template_of(loaded.tokenizer)
    if template is None:
        raise SystemExit(f"{wish.model} has no chat template")
    settings = Ppo(algorithm="grpo", reward=[f"length:{wish.tokens // 2}"], responses=wish.responses, group=wish.group,
                   passes=wish.passes, batch=wish.batch, response_tokens=wish.tokens, kl=PRICE,
                   unfinished=0.0)  # fmt: skip
    asked = prompts(conversations.read(wish.data), loaded.tokenizer, template,
                       context=config_of(loaded.model).context, response_tokens=wish.tokens)  # fmt: skip
    actors = Actors(loaded.model, frozen.eval().requires_grad_(False), loaded.tokenizer, template,
                    parse(settings.reward), machine)  # fmt: skip
    clock = Clock()
    collecting.writer = clock.timed(collecting.writer, lambda found: 0)  # a copy, made anew for every rollout
    collecting.answered = clock.timed(collecting.answered, lambda found: sum(len(answer.ids) for answer in found))
    loss = policy(clip_ratio=0.2, value_clip=0.2, value_weight=0.0, entropy_weight=0.0, kl=PRICE)
    optimizer = optim.adamw(loaded.model, lr=LR, betas=BETAS, weight_decay=DECAY)
    drawn = iter(Rollouts(actors, asked, settings, micro=wish.batch))
    loop = steps(loaded.model, optimizer, drawn, loss, until=10**9, machine=machine, clip=CLIP)

    def round_() -> float:
        begin = time.perf_counter()
        for _ in islice(loop, wish.responses // wish.batch * wish.passes):
            pass
        return wish.responses / (time.perf_counter() - begin)

    return alternating(round_, clock)


def theirs(wish: argparse.Namespace) -> Callable[[], float]:
    """TRL's trainer; a round is a call of `train` for as many steps as one rollout has, without its setting up."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(wish.threads)
    each = wish.responses // wish.batch
    talks = conversations.read(wish.data)
    rows = [{"prompt": [{"role": m["role"], "content": m["content"]} for m in talk.messages[:-1]]} for talk in talks]
    place = tempfile.mkdtemp()
    config = GRPOConfig(
        output_dir=place, use_cpu=True, bf16=wish.dtype == "bf16", seed=1, report_to="none", save_strategy="no",
        logging_strategy="no", disable_tqdm=True, max_steps=each * wish.passes, learning_rate=LR,
        lr_scheduler_type="constant", weight_decay=DECAY, max_grad_norm=CLIP, per_device_train_batch_size=wish.batch,
        steps_per_generation=each, num_generations=wish.group, num_iterations=wish.passes, beta=PRICE,
        max_completion_length=wish.tokens, temperature=1.0, gradient_checkpointing=False,
        model_init_kwargs={"dtype": "float32"},
    )  # fmt: skip
    stamps, clock = list[float](), Clock()

    class Stamps(TrainerCallback):
        """When training begins, and when each step ends."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            stamps.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(time.perf_counter())

    def paid(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        return [max(0.0, 1 - abs(len(ids) - wish.tokens // 2) / (wish.tokens // 2)) for ids in completion_ids]

    trainer = GRPOTrainer(model=str(wish.model), reward_funcs=paid, args=config, train_dataset=Dataset.from_list(rows),
                          callbacks=[Stamps()])  # fmt: skip
    _same_prompts(wish, trainer.processing_class, rows[0]["prompt"])
    trainer._generate = clock.timed(trainer._generate, lambda found: sum(len(ids) for ids in found[1]))

    def round_() -> float:
        stamps.clear()
        trainer.train()
        # the first batch, with its rollout, is made after the first stamp
        return wish.responses / (stamps[-1] - stamps[0])

    return alternating(round_, clock)


def _same_prompts(wish: argparse.Namespace, tokenizer: Any, messages: list[dict[str, str]]) -> None:
    """Stop where the two sides would answer other ids."""
    known = folder.load(wish.model, dtype=torch.float32).tokenizer
    template = template_of(known)
    assert template is not None
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    if tokenizer(text, add_special_tokens=False).input_ids != prompt_ids(known, template, messages):
        raise SystemExit("the two sides read the prompts as other ids: a rate would mean nothing")


def measured(wish: argparse.Namespace) -> list[interleaved.Rates]:
    """Rates of whole rounds, and of writing alone, round by round and in turn."""
    makers = {"groundup": ours} | ({"TRL": theirs} if importlib.util.find_spec("trl") else {})
    if len(makers) == 1:
        print("TRL is not installed here: our own rates alone (`pip install trl` in an environment of its own)\n")
    work = {name: interleaved.apart(make, wish) for name, make in makers.items()}
    found: list[interleaved.Rates] = [{name: [] for name in work} for _ in range(2)]
    for number in range(wish.repeats + 1):
        for name, one in work.items():
            rates = [one(), one()]
            print(f"round {number}: {name} {rates[0]:.3g} answers/s, {rates[1]:,.4g} tokens/s", file=sys.stderr)
            if number:  # the first warms up
                for kept, rate in zip(found, rates, strict=True):
                    kept[name].append(rate)
    return found


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder with a chat template")
    parser.add_argument("--data", required=True, help="prompts, as for groundup ppo")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--responses", type=int, default=32, help="answers of a rollout")
    parser.add_argument("--group", type=int, default=8, help="answers to each prompt")
    parser.add_argument("--batch", type=int, default=8, help="answers of a step")
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64, help="tokens of an answer at most")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=machines.cores())
    wish = parser.parse_args()
    for name in ("batch", "group"):
        if wish.responses % getattr(wish, name):
            parser.error(f"--responses {wish.responses} cannot be divided by --{name} {getattr(wish, name)}")
    return wish


def main() -> None:
    """Measure and print."""
    wish = options()
    title = (f"GRPO, {wish.model.name}, {wish.dtype}, {wish.responses} answers in groups of {wish.group}, at most "
             f"{wish.tokens} tokens, {wish.batch} a step, {wish.passes} passes")  # fmt: skip
    whole, writing = measured(wish)
    print(interleaved.table(whole, ours="groundup", unit="answers/s", title=f"{title}: rollout and steps"))
    print(interleaved.table(writing, ours="groundup", unit="tokens/s", title=f"{title}: writing alone"))


if __name__ == "__main__":
    main()
