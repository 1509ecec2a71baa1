"""Kill a run of groundup ppo with SIGKILL, in the middle of rollouts and of passes, and compare it with one left alone.

    python tests/story/kill_ppo.py --kills 8 --inside-rollout 3 [--seed 1] [--folder DIR] [-- --algorithm grpo ...]

How it is known where a kill came. The reward is a function of a file that the run is given by path: while it scores a
rollout it leaves a marker and takes a moment, so a kill that finds the marker still there came when answers were
written and nothing had been learnt from them. Every other kill comes at a random step plus a random fraction of a
second; a checkpoint is written every seven steps, a pass has four and a rollout eight, so that nearly all of them are
resumed in the middle of a pass, from a buffer of answers that are not written again. None comes before the first
checkpoint. What stands after `--` is handed to `groundup ppo`.
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
from dataclasses import dataclass
from pathlib import Path

spec = importlib.util.spec_from_file_location("kill", Path(__file__).with_name("kill.py"))
kill = sys.modules["kill"] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
spec.loader.exec_module(kill)

STEPS = {"few": 40, "many": 160}
SAVE_EVERY, BATCH, RESPONSES, PASSES, PROMPTS = 7, 4, 16, 2, 24
IN_PASS = RESPONSES // BATCH  # steps
MARKER = "GROUNDUP_TEST_MARKER"  # environment variable: the file that is there while a rollout is scored
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 ?.\n"
TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %}|{% else %}{{ eos_token }}{% endif %}{% endfor %}"
)
REWARD = f'''"""The share of letters that are an a; takes a moment for a rollout, and leaves a marker meanwhile."""

import os
import pathlib
import time


def score(prompts, responses, references):
    """One number for each response."""
    if len(responses) == {RESPONSES}:
        marker = pathlib.Path(os.environ["{MARKER}"])
        marker.touch()
        time.sleep(0.1)
        marker.unlink(missing_ok=True)
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


@dataclass(frozen=True)
class Run(kill.Run):
    """One run of groundup ppo; `more` holds all its settings."""

    def start(self, *, resume: bool) -> subprocess.Popen[bytes]:
        """One process of the run; the first is started with all settings, the others with --resume alone."""
        self.marker.unlink(missing_ok=True)  # what the last kill left
        words = ["--out", str(self.out), *(["--resume"] if resume else [*self.more, "--steps", str(self.steps)])]
        environment = os.environ | {"OMP_NUM_THREADS": "1", MARKER: str(self.marker)}
        with self.out.with_name(f"{self.out.name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "groundup", "ppo", *words], stdout=log, stderr=log, env=environment
            )

    @property
    def marker(self) -> Path:
        """The file that is there while a rollout is scored."""
        return self.out.with_name(f"{self.out.name}.scoring")

    def digest(self) -> str:
        """SHA-256 of the final weights, the values among them."""
        files = sorted((self.out / "model").glob("*.safetensors"))
        return " ".join(kill.hashlib.sha256(file.read_bytes()).hexdigest()[:32] for file in files)

    def journal(self) -> list[dict[str, float]]:
        """What the journal says, without clocks."""
        records = (json.loads(line) for line in (self.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        clocks = ("seconds", "tokens_per_second")
        return [{name: value for name, value in each.items() if name not in clocks} for each in records]


@dataclass(frozen=True)
class Kill:
    """One kill: the step the run stood at, and whether a rollout was being made."""

    step: int
    inside: bool

    @property
    def within_pass(self) -> bool:
        """Whether some answers of a pass had been learnt from and others not."""
        return not self.inside and self.step % IN_PASS != 0

    @property
    def words(self) -> str:
        """Where it came."""
        return "inside a rollout" if self.inside else "inside a pass" if self.within_pass else "between passes"


def kill_once(run: Run, *, resume: bool, inside: bool, stride: int, dice: random.Random) -> Kill | None:
    """Start a process of the run and kill it; None if it came to its end first."""
    if resume:
        run.clear()
    child = run.start(resume=resume)
    target = min(run.steps - 1, run.done() + dice.randint(1, stride))
    delay = dice.random() * 0.05
    while child.poll() is None:
        if run.saved() and run.done() >= target and (run.marker.exists() or not inside):
            time.sleep(delay)
            child.kill()
            child.wait()
            return Kill(run.done(), run.marker.exists())  # after the kill: nothing moves any more
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
        stride = max(2, (run.steps - SAVE_EVERY) // (2 * kills))  # so that the steps last for all the kills
        found = kill_once(run, resume=bool(done), inside=within, stride=stride, dice=dice)
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
    main()
