"""A policy answers, the answers are scored, and become batches to learn from (PPO, GRPO).

Prompts (prompts.py), rewards (rewards.py), answers (write.py, collect.py), and batches that a resumed run goes on with
(source.py).
"""

from groundup.rollouts.collect import Actors
from groundup.rollouts.prompts import Answer, Prompt, Prompts, RewardFunction
from groundup.rollouts.rewards import Rewards, parse
from groundup.rollouts.source import Examples, Rollouts

__all__ = [
    "Actors",
    "Answer",
    "Examples",
    "Prompt",
    "Prompts",
    "RewardFunction",
    "Rewards",
    "Rollouts",
    "parse",
]
