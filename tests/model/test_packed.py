"""Attention document by document: the answers of a mask of blocks, written out; what stands ready for CUDA."""

import sys
import types

import pytest
import torch

from groundup.model import build
from groundup.model.config import ModelConfig
from groundup.model.gpt import attention_by_hand, visible
from groundup.model.packed import _one_kernel, separable, separately, spans

DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 2], [4, 4, 4, 4, 4, 4], [0, 1, 2, 3, 0, 0]])


def inputs(groups=2):
    draw = torch.Generator().manual_seed(0)
    sizes = [(3, 4, 6, 8), (3, groups, 6, 8), (3, groups, 6, 8)]
    return [torch.randn(size, generator=draw, requires_grad=True) for size in sizes]


@pytest.mark.parametrize("groups", [2, 4])
def test_one_by_one_is_the_mask_written_out(groups):
    """Values and gradients; a document number that comes back later is another document in both."""
    q, k, v = inputs(groups)
    mask = visible(torch.zeros(3, 6, dtype=torch.long), start=0, documents=DOCUMENTS, padding=None)
    slope = torch.randn(3, 4, 6, 8, generator=torch.Generator().manual_seed(1))
    answers = []
    for answer in (separately(q, k, v, spans(DOCUMENTS)), attention_by_hand(q, k, v, mask)):
        answer.backward(slope)
        answers.append([answer.detach(), q.grad.clone(), k.grad.clone(), v.grad.clone()])
        q.grad = k.grad = v.grad = None
    torch.testing.assert_close(*answers, atol=1e-5, rtol=1e-5)


def test_bf16_is_fp32_to_its_precision():
    q, k, v = (x.detach() for x in inputs())
    where = spans(DOCUMENTS)
    short = separately(q.bfloat16(), k.bfloat16(), v.bfloat16(), where)
    torch.testing.assert_close(short.float(), separately(q, k, v, where), atol=0.03, rtol=0.03)


def test_a_number_that_comes_back_is_another_document():
    seen = visible(torch.zeros(1, 3, dtype=torch.long), start=0, documents=torch.tensor([[7, 3, 7]]), padding=None)
    assert torch.equal(seen[0, 0], torch.eye(3, dtype=torch.bool))
    assert spans(torch.tensor([[7, 3, 7]])).sizes == [1, 1, 1]


def test_cuda_is_told_the_same_documents(monkeypatch):
    """The kernel itself needs a GPU; here a stand-in reads its arguments as its documentation says."""

    def varlen_attn(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size, enable_gqa):
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        assert window_size == (-1, 0)  # causal
        lengths = cu_seq_q.diff().tolist()
        assert torch.equal(cu_seq_q, cu_seq_k) and max_q == max_k == max(lengths)
        parts = []
        for a, b, c in zip(*(x.split(lengths) for x in (q, k, v)), strict=True):
            assert enable_gqa
            parts.append(attention_by_hand(*(x.transpose(0, 1)[None] for x in (a, b, c)))[0].transpose(0, 1))
        return torch.cat(parts)

    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", types.SimpleNamespace(varlen_attn=varlen_attn))
    q, k, v = inputs()
    where = spans(DOCUMENTS)
    flat = [x.transpose(1, 2).flatten(0, 1) for x in (q, k, v)]
    found = _one_kernel(*flat, where).unflatten(0, (3, 6)).transpose(1, 2)
    torch.testing.assert_close(found, separately(q, k, v, where), atol=1e-5, rtol=1e-5)


def test_compiled_code_and_other_devices_take_the_mask(monkeypatch):
    assert separable(DOCUMENTS, dtype=torch.float32, dropout=0.5)
    assert separable(DOCUMENTS.to("meta"), dtype=torch.float32, dropout=0.0) is None
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert separable(DOCUMENTS, dtype=torch.float32, dropout=0.0) is None


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_recomputing_changes_no_bit_of_loss_and_gradient(family):
    """With dropout at every place, so a block that ran again with other random numbers would show."""
    config = ModelConfig(family=family, vocabulary=40, context=16, width=32, layers=3, heads=4, tie=True,
                         dropout_embedding=0.2, dropout_attention=0.2, dropout_shortcut=0.2)  # fmt: skip
    tokens = torch.randint(40, (2, 16), generator=torch.Generator().manual_seed(0))
    found = []
    for again in (False, True):
        model = build(config, seed=1).train()
        model.recompute = again
        torch.manual_seed(5)
        with torch.autograd.graph.saved_tensors_hooks(count := Kept(), lambda tensor: tensor):
            loss = model(tokens, documents=tokens // 20).logsumexp(dim=2).sum()
        loss.backward()
        found.append(([loss.detach(), *(parameter.grad for parameter in model.parameters()), torch.rand(1)], count))
    (plain, many), (again, few) = found
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))
    assert few.bytes < many.bytes / 2


class Kept:
    """Bytes that the forward pass keeps for the backward pass."""

    bytes = 0

    def __call__(self, tensor):
        self.bytes += tensor.nbytes
        return tensor


def test_nothing_is_recomputed_without_a_backward_pass(monkeypatch):
    def refuse(*args, **more):
        raise AssertionError("there is nothing to run again for")

    monkeypatch.setattr("groundup.model.gpt.checkpoint", refuse)
    config = ModelConfig(family="gpt2", vocabulary=40, context=16, width=32, layers=1, heads=4)
    model = build(config, seed=1)
    model.recompute = True
    with torch.inference_mode():
        assert model(torch.tensor([[1, 2]])).isfinite().all()
