"""One head: rows A17, A18 and P16 of the coverage."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from groundup.lessons.ladder import find
from groundup.model.gpt import attention, attention_by_hand


@pytest.fixture(scope="module")
def lesson(climb):
    """The variables of the rung."""
    return climb("one_head")


def test_one_head_gathers_by_query_key_and_value(lesson):
    """A17: (4, 8, 32) becomes (4, 8, 16), and each number is what torch's own function makes of the same matrices."""
    torch.manual_seed(5)
    head, x = lesson["Head"](32, 16), torch.randn(4, 8, 32)
    q, k, v = (part(x)[:, None] for part in (head.query, head.key, head.value))
    twin = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert head(x).shape == (4, 8, 16)
    torch.testing.assert_close(head(x), twin[:, 0])
    torch.testing.assert_close(attention(q, k, v), twin)
    # by hand: the second place likes the first key three times as much as its own
    q, k, v = (torch.tensor(numbers).view(1, 1, 2, 1) for numbers in ([0.0, 1.0], [math.log(3), 0.0], [8.0, 4.0]))
    for way in (attention, attention_by_hand):
        torch.testing.assert_close(way(q, k, v).flatten(), torch.tensor([8.0, 7.0]))


def test_scores_are_divided_by_the_root_of_the_head_size():
    """A18: raw scores of head size 16 spread with variance 16, the library's with 1; seen in what it returns."""
    torch.manual_seed(5)
    q, k = torch.randn(64, 4, 32, 16), torch.randn(64, 4, 32, 16)
    raw = q @ k.transpose(2, 3)
    assert raw.var().item() == pytest.approx(16, rel=0.05)
    assert (raw / 4).var().item() == pytest.approx(1, rel=0.05)
    # 2 ln 3 / root 4 = ln 3: three quarters of the last place's answer come from the first key. Unscaled: nine tenths.
    q = torch.tensor([0.0, 2.0])[:, None] * torch.eye(4)[0]  # (T, K)
    k = torch.tensor([math.log(3), 0.0])[:, None] * torch.eye(4)[0]
    v = torch.tensor([1.0, 0.0])[:, None].expand(2, 4).contiguous()
    for way in (attention, attention_by_hand):
        answer = way(*(part.view(1, 1, 2, 4) for part in (q, k, v)))
        assert answer[0, 0, 1].tolist() == pytest.approx([0.75] * 4)


class Page(nn.Module):
    """The page's model with one head, as its listing has it."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(65, 32), nn.Embedding(8, 32)
        self.key, self.query, self.value = (nn.Linear(32, 32, bias=False) for _ in range(3))
        self.register_buffer("tril", torch.tril(torch.ones(8, 8)))
        self.head = nn.Linear(32, 65)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.places(torch.arange(8))
        k, q = self.key(x), self.query(x)
        wei = (q @ k.transpose(-2, -1) * 32**-0.5).masked_fill(self.tril == 0, float("-inf"))
        return self.head(F.softmax(wei, dim=-1) @ self.value(x))


def test_the_training_of_one_head_is_that_of_the_page(data_dir, monkeypatch):
    """P16: 40 steps of the rung end in the very weights of the page's loop (the printed 2.3698 takes 19,800)."""
    monkeypatch.setenv("GROUNDUP_DATA", str(data_dir))
    source = find("one_head_trained").path.read_text(encoding="utf-8")
    short = source.replace("steps = 20_000", "steps = 40").partition("# ## A sample")[0]
    short = "\n".join(line for line in short.splitlines() if not line.startswith("check("))  # 40 steps print no figure
    assert "steps = 40" in short
    threads = torch.get_num_threads()
    rung: dict = {"__name__": "rung"}
    try:
        exec(compile(short, "one_head_trained", "exec"), rung)
    finally:
        torch.set_num_threads(threads)

    def loss_on(part: torch.Tensor) -> torch.Tensor:
        starts = torch.randint(len(part) - 8, (32,))
        inputs = torch.stack([part[start : start + 8] for start in starts])
        targets = torch.stack([part[start + 1 : start + 9] for start in starts])
        return F.cross_entropy(model(inputs).view(256, 65), targets.view(256))

    torch.manual_seed(1337)
    model = Page()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with torch.no_grad():
        means = [sum(loss_on(rung["parts"][part]).item() for _ in range(200)) / 200 for part in ("train", "validation")]
    for _ in range(40):
        optimizer.zero_grad()
        loss_on(rung["parts"]["train"]).backward()
        optimizer.step()
    assert rung["log"][0][1:] == pytest.approx(means, abs=1e-5)
    ours = rung["model"]
    pairs = {"token_table": model.tokens, "position_table": model.places}
    pairs |= {name: getattr(model, name) for name in ("key", "query", "value", "head")}
    for name, part in pairs.items():
        torch.testing.assert_close(
            getattr(ours, name).weight, part.weight, msg=lambda text, name=name: f"{name}: {text}"
        )
