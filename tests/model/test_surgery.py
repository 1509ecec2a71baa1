"""Tables grow by the mean of what they know, and nothing else about the network changes."""

import dataclasses

import pytest
import torch

from groundup.errors import ModelError
from groundup.model import build
from groundup.model.config import BigramConfig, ModelConfig
from groundup.model.surgery import extend_vocabulary, with_config

TINY = {"vocabulary": 3, "context": 6, "width": 2, "layers": 1, "heads": 1}
TABLE = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 1.0]])


def network(family="llama", *, tie=True, **changes):
    model = build(ModelConfig(family=family, tie=tie, **(TINY | changes)), seed=3)
    with torch.no_grad():
        model.token_table.weight.copy_(TABLE)
    return model


def test_a_tied_table_by_hand():
    """(1 + 3 + 5) / 3 = 3 and (2 + 6 + 1) / 3 = 3; a tied head is the table, and grows with it."""
    longer = extend_vocabulary(network(), 5, known=3)
    assert longer.token_table.weight.tolist() == [*TABLE.tolist(), [3.0, 3.0], [3.0, 3.0]]
    assert longer.head is None and longer.config.vocabulary == 5
    assert longer(torch.tensor([[4]])).shape == (1, 1, 5)


def test_an_untied_head_grows_by_its_own_mean():
    model = network(tie=False)
    with torch.no_grad():
        model.head.weight.copy_(2 * TABLE)
    longer = extend_vocabulary(model, 4, known=3)
    assert longer.token_table.weight[3].tolist() == [3.0, 3.0]
    assert longer.head.weight[3].tolist() == [6.0, 6.0]


def test_rows_of_filler_are_used_first_and_count_for_nothing():
    """Row 2 is filler: the mean is (1 + 3) / 2 = 2 and (2 + 6) / 2 = 4, and the table stays as long as it was."""
    longer = extend_vocabulary(network(), 3, known=2)
    assert longer.token_table.weight.tolist() == [[1.0, 2.0], [3.0, 6.0], [2.0, 4.0]]
    assert longer.config.vocabulary == 3
    assert extend_vocabulary(network(), 4, known=2).token_table.weight[2:].tolist() == [[2.0, 4.0], [2.0, 4.0]]


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_logits_of_the_old_ids_stay(family, tie):
    model = build(ModelConfig(family=family, tie=tie, **(TINY | {"width": 8, "heads": 2, "vocabulary": 20})), seed=5)
    ids = torch.tensor([[3, 19, 0, 7]])
    before = model.eval()(ids)
    longer = extend_vocabulary(model, 23, known=20).eval()
    after = longer(ids)
    assert torch.equal(after[..., :20], before)
    # a new id's logit is the mean of the old ones, as the head is linear
    assert torch.allclose(after[..., 20:], before.mean(-1, keepdim=True).expand(-1, -1, 3), atol=1e-6)


def test_half_precision_takes_its_mean_in_full():
    """In bf16 a sum of numbers near 1 stops growing at 256, where the next number is 258."""
    model = build(ModelConfig(family="llama", **(TINY | {"vocabulary": 4000})), seed=1).bfloat16()
    with torch.no_grad():
        model.token_table.weight.fill_(1 + 1 / 128)
    assert extend_vocabulary(model, 4001, known=4000).token_table.weight[4000].tolist() == [1 + 1 / 128] * 2


def test_everything_but_the_tables_is_not_copied():
    model = network()
    longer = extend_vocabulary(model, 5, known=3)
    assert longer.blocks[0].attention.qkv.weight.data_ptr() == model.blocks[0].attention.qkv.weight.data_ptr()
    assert model.token_table.weight.shape == (3, 2) and model.config.vocabulary == 3


@pytest.mark.parametrize(("vocabulary", "known"), [(2, 3), (5, 4), (5, 0)])
def test_a_vocabulary_only_grows(vocabulary, known):
    with pytest.raises(ModelError, match="can only grow"):
        extend_vocabulary(network(), vocabulary, known=known)


def test_a_bigram_table_is_refused():
    with pytest.raises(ModelError, match="bigram"):
        extend_vocabulary(build(BigramConfig(vocabulary=3, context=4), seed=0), 4, known=3)


def test_the_same_weights_with_dropout():
    model = network()
    other = with_config(model, dataclasses.replace(model.config, dropout_attention=0.5))
    assert other.config.dropout_attention == 0.5
    assert torch.equal(other.eval()(torch.tensor([[1, 2]])), model.eval()(torch.tensor([[1, 2]])))
