"""Kill a run of groundup ppo with SIGKILL, in the middle of rollouts and of passes, and compare it with one left alone.

    python tests/story/kill_ppo.py --kills 8 --inside-rollout 3 [--seed 1] [--folder DIR] [-- --algorithm grpo ...]

How it is known where a kill came. The run is a process of this file, in which whatever makes a rollout (answers are
written, then scored, then their log-probabilities read) leaves a marker that says so, and takes a moment; a kill that
finds the marker still there came inside of that. The kills that are to come there take turns. Every other kill comes at
a random step plus a random fraction of a second; a checkpoint is written every seven steps, a pass has four and a
rollout eight, so that nearly all of them are resumed in the middle of a pass, from a buffer of answers that are not
written again. None comes before the first checkpoint. What stands after `--` is handed to `groundup ppo`.
"""

import argparse
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

spec = importlib.util.spec_from_file_location("kill", Path(__file__).with_name("kill.py"))
kill = sys.modules["kill"] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
spec.loader.exec_module(kill)

STEPS = {"few": 40, "many": 160}
SAVE_EVERY, BATCH, RESPONSES, PASSES, PROMPTS = 7, 4, 16, 2, 24
IN_PASS = RESPONSES // BATCH  # steps
MARKER = "GROUNDUP_TEST_MARKER"  # environment variable: the file that is there while a rollout is made
PHASES = ("answers are written", "answers are scored", "log-probabilities are read")
CHILD = "--child"  # as the first word: groundup ppo with markers
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 ?.\n"
TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %}|{% else %}{{ eos_token }}{% endif %}{% endfor %}"
)
REWARD = '''"""The share of letters that are an a."""


def score(prompts, responses, references):
    """One number for each response."""
    return [response.count("a") / max(1, len(response)) for response in responses]
'''


def prepared(folder: Path) -> list[str]:
    """A model that has learnt nothing, prompts, a template and a reward in `folder`; the settings that use them."""
    from groundup import tokens
    from groundup.checkpoint import folder as models
    from groundup.model import ModelConfig, build

    tokenizer = tokens.train("chars", [LETTERS + "|"])
    config = ModelConfig(family="llama", vocabulary=tokenizer.vocabulary, context=64, width=32, layers=2, heads=2)
    models.save_model(folder / "base", build(config, seed=3), tokenizer, card={})
    asked = [{"messages": [{"role": "user", "content": f"what is {n}?"}, {"role": "assistant", "content": "a"}]}
             for n in range(PROMPTS)]  # fmt: skip
    (folder / "prompts.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked), encoding="utf-8")
    (folder / "plain.jinja").write_text(TEMPLATE, encoding="utf-8")
    (folder / "reward.py").write_text(REWARD, encoding="utf-8")
    return [
        *("--model", str(folder / "base"), "--data", str(folder / "prompts.jsonl"), "--validation", "0.1"),
        *("--template", str(folder / "plain.jinja"), "--reward", f"{folder / 'reward.py'}:score", "--kl-target", "2"),
        *("--responses", str(RESPONSES), "--batch", str(BATCH), "--micro-batch", "2", "--passes", str(PASSES)),
        *("--response-tokens", "12", "--lr", "1e-3", "--seed", "5", "--eval-every", "20"),
        *("--save-every", str(SAVE_EVERY), "--device", "cpu", "--dtype", "fp32", "--threads", "1"),
    ]


class Slowly:
    """What a rollout is at, in a file for whoever wants to kill it there; outside of rollouts nothing is marked."""

    def __init__(self, marker: Path) -> None:
        self.marker, self.making, self.phase = marker, False, ""

    def rollout(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """The function that makes a whole rollout."""

        def made(*given: Any, **named: Any) -> Any:
            self.making = True
            try:
                return plain(*given, **named)
            finally:
                self.making = False

        return made

    def marked(self, phase: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A function that is all of a phase."""

        def done(*given: Any, **named: Any) -> Any:
            if not self.making:
                return plain(*given, **named)
            self.phase = phase
            self.marker.write_text(phase, encoding="utf-8")
            try:
                return plain(*given, **named)
            finally:
                self.phase = ""
                self.marker.unlink(missing_ok=True)

        return done

    def slowed(self, phase: str, plain: Callable[..., Any], *, seconds: float) -> Callable[..., Any]:
        """A function that is called within a phase, perhaps often."""

        def slow(*given: Any, **named: Any) -> Any:
            if self.phase == phase:
                time.sleep(seconds)
            return plain(*given, **named)

        return slow


def child(words: list[str]) -> int:
    """`groundup ppo`, with a marker for each phase of a rollout, each of which takes about a tenth of a second."""
    from groundup.cli import main as groundup
    from groundup.generate.sample import Sampler
    from groundup.rollouts import collect, source
    from groundup.rollouts.rewards import Rewards

    slowly, (writing, scoring, reading) = Slowly(Path(os.environ[MARKER])), PHASES
    changes: list[tuple[Any, str, Callable[..., Any]]] = [
        (source, "collect", slowly.rollout(source.collect)),
        (collect, "answered", slowly.marked(writing, collect.answered)),
        (Sampler, "choose", slowly.slowed(writing, Sampler.choose, seconds=0.01)),  # once a token
        (Rewards, "apart", slowly.marked(scoring, slowly.slowed(scoring, Rewards.apart, seconds=0.1))),
        (collect.Known, "read", slowly.marked(reading, collect.Known.read)),
        (collect, "log_probabilities", slowly.slowed(reading, collect.log_probabilities, seconds=0.01)),
    ]
    for place, name, changed in changes:
        setattr(place, name, changed)
    return int(groundup(["ppo", *words]) or 0)


@dataclass(frozen=True)
class Run(kill.Run):
    """One run of groundup ppo; `more` holds all its settings."""

    def start(self, *, resume: bool) -> subprocess.Popen[bytes]:
        """One process of the run; the first is started with all settings, the others with --resume alone."""
        self.marker.unlink(missing_ok=True)  # what the last kill left
        words = ["--out", str(self.out), *(["--resume"] if resume else [*self.more, "--steps", str(self.steps)])]
        environment = os.environ | {"OMP_NUM_THREADS": "1", MARKER: str(self.marker)}
        with self.out.with_name(f"{self.out.name}.log").open("ab") as log:
            return subprocess.Popen([sys.executable, __file__, CHILD, *words], stdout=log, stderr=log, env=environment)

    @property
    def marker(self) -> Path:
        """The file that is there while a rollout is made."""
        return self.out.with_name(f"{self.out.name}.making")

    def phase(self) -> str:
        """What the rollout is at that is being made; "" where none is."""
        try:
            return self.marker.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def digest(self) -> str:
        """SHA-256 of the final weights, the values among them."""
        files = sorted((self.out / "model").glob("*.safetensors"))
        return " ".join(kill.hashlib.sha256(file.read_bytes()).hexdigest()[:32] for file in files)

    def journal(self) -> list[dict[str, float]]:
        """What the journal says, without clocks."""
        records = (json.loads(line) for line in (self.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        clocks = ("seconds", "tokens_per_second", "written_per_second")
        return [{name: value for name, value in each.items() if name not in clocks} for each in records]


@dataclass(frozen=True)
class Kill:
    """One kill: the step the run stood at, and what the rollout was at that was being made, or ""."""

    step: int
    phase: str

    @property
    def inside(self) -> bool:
        """Whether a rollout was being made."""
        return bool(self.phase)

    @property
    def within_pass(self) -> bool:
        """Whether some answers of a pass had been learnt from and others not."""
        return not self.inside and self.step % IN_PASS != 0

    @property
    def words(self) -> str:
        """Where it came."""
        return (
            f"inside a rollout: {self.phase}"
            if self.inside
            else "inside a pass"
            if self.within_pass
            else "between passes"
        )


def kill_once(run: Run, *, resume: bool, phase: str, stride: int, dice: random.Random) -> Kill | None:
    """Start a process of the run and kill it, where `phase` is not "" in that one; None if it ended first."""
    if resume:
        run.clear()
    child = run.start(resume=resume)
    target = min(run.steps - 1, run.done() + dice.randint(1, stride))
    delay = dice.random() * 0.05
    while child.poll() is None:
        if run.saved() and run.done() >= target and (not phase or run.phase() == phase):
            time.sleep(delay)
            child.kill()
            child.wait()
            return Kill(run.done(), run.phase())  # after the kill: nothing moves any more
        time.sleep(0.0005)
    assert child.returncode == 0, f"the run ended with status {child.returncode}, see {run.out}.log"
    return None


def killed_run(run: Run, *, kills: int, inside: int, seed: int) -> list[Kill]:
    """Bring a run to its end through `kills` kills, at least `inside` of them while a rollout is being made."""
    dice = random.Random(seed)
    done: list[Kill] = []
    while len(done) < kills:
        missing = inside - sum(each.inside for each in done)
        within = missing > 0 and dice.random() < max(0.5, missing / (kills - len(done)))
        met = [each.phase for each in done]
        phase = min(PHASES, key=met.count) if within else ""
        stride = max(2, (run.steps - SAVE_EVERY) // (2 * kills))  # so that the steps last for all the kills
        found = kill_once(run, resume=bool(done), phase=phase, stride=stride, dice=dice)
        if found is None:
            break
        done.append(found)
    run.finish(resume=True)
    return done


def main() -> None:
    """Both runs, and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--inside-rollout", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("more", nargs="*", help="after --: settings of groundup ppo")
    words = parser.parse_args()
    folder = words.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    steps = STEPS["few"] if words.kills <= 8 else STEPS["many"]
    more = (*prepared(folder), *words.more)
    whole, killed = (Run(folder / name, steps, more) for name in ("whole", "killed"))
    whole.finish(resume=False)
    done = killed_run(killed, kills=words.kills, inside=words.inside_rollout, seed=words.seed)
    for each in done:
        print(f"killed at step {each.step:>3}, {each.words}")
    inside, within = sum(each.inside for each in done), sum(each.within_pass for each in done)
    print(f"{len(done)} kills, {inside} inside a rollout, {within} inside a pass")
    print(f"uninterrupted {whole.digest()}\nkilled        {killed.digest()}")
    same = whole.digest() == killed.digest() and whole.journal() == killed.journal()
    enough = len(done) == words.kills and inside >= words.inside_rollout
    print("weights and journal are equal" if same else "THEY DIFFER")
    print("" if enough else "the run ended before it could be killed often enough: another --seed")
    sys.exit(not (same and enough))


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        sys.exit(child(sys.argv[2:]))
    main()
