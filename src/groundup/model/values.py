"""A policy that also says what it expects: for every token, how much reward the text will still bring from there on.

In: a language model. Out: `ActorCritic`: the same network, asked and decoded as before, and beside it one small row of
numbers, `value`, that reads its last state. PPO learns both together (Schulman et al. 2017, "Proximal Policy
Optimization Algorithms", section 5); whoever uses the model afterwards needs the policy alone.

Shapes: B batch, T time, D width, V vocabulary.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.errors import ModelError
from groundup.model.config import ModelConfig
from groundup.model.gpt import GPT


class ActorCritic(nn.Module):
    """A `policy` that writes and a `value` in fp32 that judges every state it writes from.

    The policy is taken over, not copied. The value begins at zero: a model that has judged nothing yet expects nothing,
    and the first advantages are the rewards themselves. So nothing is drawn, whatever `seed` is; it is taken so that
    this network is made as every other one is.

    What freezes a network (`requires_grad_`, `surgery.train_only`, `lora.add`) freezes the policy: the value always
    learns. Adapters belong to the policy, and `lora` is the policy's, so that whoever asks this network about them
    (`lora.config_of`, `lora.off`, `lora.merge`) is told the truth. Names of parameters begin with "policy." or
    "value.".

    Raises ModelError for a policy that is no network of blocks: a bigram table has no state, a classifier writes
    nothing.

    >>> from groundup.model.config import from_name
    >>> model = ActorCritic(GPT(from_name("1m", vocabulary=100), seed=0))
    >>> states = model(torch.tensor([[5, 17, 99]]), head=False)
    >>> model.values(states)
    tensor([[0., 0., 0.]], grad_fn=<SqueezeBackward1>)
    """

    policy: GPT
    value: "Value"

    def __init__(self, policy: nn.Module, *, seed: int | None = None) -> None:
        super().__init__()
        if not isinstance(policy, GPT):
            raise ModelError(
                f"a {type(policy).__name__} cannot be given values", "take a model that writes: gpt2, llama or qwen3"
            )
        table = policy.token_table.weight
        self.policy, self.value = policy, Value(table.shape[1], device=table.device)
        self.train(policy.training)

    def forward(self, tokens: Tensor, **context: Any) -> Tensor:
        """What the policy answers to ids (B, T): logits (B, T, V), or states (B, T, D) with head=False; see `GPT`."""
        answer: Tensor = self.policy(tokens, **context)
        return answer

    def values(self, states: Tensor) -> Tensor:
        """What is expected from each state (B, T, D) on: (B, T) in fp32, whatever the policy computes in."""
        with torch.autocast(states.device.type, enabled=False):
            found: Tensor = self.value(states)
        return found

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Let the policy learn, or freeze it; the value learns in any case."""
        self.policy.requires_grad_(requires_grad)
        return self

    @property
    def trunk(self) -> GPT:
        """The policy, under the name by which a classifier has its own."""
        return self.policy

    @property
    def token_table(self) -> nn.Embedding:
        """The policy's table of tokens, which may be trained whole beside adapters."""
        return self.policy.token_table

    @property
    def head(self) -> nn.Linear | None:
        """The policy's head, None where it is the table of tokens."""
        return self.policy.head

    @property
    def config(self) -> ModelConfig:
        """The settings of the policy."""
        return self.policy.config

    @property
    def head_weight(self) -> Tensor:
        """The policy's matrix (V, D) that turns a state into logits."""
        return self.policy.head_weight

    @property
    def recompute(self) -> bool:
        """Whether each block is run again for the backward pass instead of kept (gpt.py)."""
        return self.policy.recompute

    @recompute.setter
    def recompute(self, value: bool) -> None:
        self.policy.recompute = value

    @property
    def lora(self) -> Any:
        """What adapters the policy has (lora.py), or None."""
        return getattr(self.policy, "lora", None)

    @lora.setter
    def lora(self, attached: Any) -> None:
        self.policy.lora = attached

    @lora.deleter
    def lora(self) -> None:
        """Forget the adapters: they are part of the matrices now."""
        del self.policy.lora

    def flops_per_token(self) -> float:
        """Floating point operations of training on one token: the policy's; the value's do not count beside them."""
        return self.policy.flops_per_token()


class Value(nn.Module):
    """One number for each state (B, T, D): (B, T) in fp32; weight (1, D) and bias (1,) begin at zero.

    It is no nn.Linear on purpose: whoever goes through a network's matrices, to give them adapters (one target of these
    is named "value") or to lay them out for decoding, means those of the policy.
    """

    def __init__(self, width: int, *, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, width, device=device, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(1, device=device, dtype=torch.float32))

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, D) -> (B, T)."""
        return F.linear(states.to(self.weight.dtype), self.weight, self.bias).float().squeeze(-1)
