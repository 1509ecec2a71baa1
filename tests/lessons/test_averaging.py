"""Averages of the past: row A16 of the coverage."""

import torch

from groundup.model.gpt import attention, attention_by_hand


def test_three_ways_and_the_library_give_the_same_means():
    """A16: means of 2, 4, 9, 1 so far are 2, 3, 5, 4: by the loop, the triangle, the softmax, and by attention."""
    x = torch.tensor([[[2.0, 0.0], [4.0, -2.0], [9.0, -4.0], [1.0, 6.0]]])
    means = torch.tensor([[[2.0, 0.0], [3.0, -1.0], [5.0, -2.0], [4.0, 0.0]]])
    looped = torch.stack([x[:, : place + 1].mean(dim=1) for place in range(4)], dim=1)
    triangle = torch.ones(4, 4).tril() / torch.arange(1, 5)[:, None]
    masked = torch.zeros(4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), float("-inf")).softmax(dim=-1)
    nothing = torch.zeros(1, 1, 4, 2)  # queries and keys that find everything equally interesting
    ways = {
        "loop": looped,
        "triangle": triangle @ x,
        "softmax": masked @ x,
        "attention": attention(nothing, nothing, x[:, None])[:, 0],
        "attention by hand": attention_by_hand(nothing, nothing, x[:, None])[:, 0],
    }
    for name, found in ways.items():
        torch.testing.assert_close(found, means, msg=lambda text, name=name: f"{name}: {text}")


def test_the_rung_makes_the_same_weights_twice(climb):
    """A16: triangle and masked softmax are one matrix, whose row t holds 1 / (t + 1) as far as t."""
    lesson = climb("averaging")
    expected = torch.tensor([[1 / (row + 1) if column <= row else 0.0 for column in range(8)] for row in range(8)])
    torch.testing.assert_close(lesson["weights"], expected)
    torch.testing.assert_close(lesson["softened"], expected)
    for way in ("looped", "multiplied", "averaged"):
        torch.testing.assert_close(lesson[way][:, -1], lesson["x"].mean(dim=1))
