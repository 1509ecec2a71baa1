"""Prompt in, text out: choose a token (sample.py), one after the other (decode.py), as text (stream.py)."""

from groundup.generate.decode import Step, generate, generate_by_hand
from groundup.generate.ready import ready
from groundup.generate.sample import Sampler
from groundup.generate.stream import Delta, generate_text, write

__all__ = ["Delta", "Sampler", "Step", "generate", "generate_by_hand", "generate_text", "ready", "write"]
