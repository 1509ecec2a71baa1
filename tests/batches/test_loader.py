"""The loader: each sample once per epoch, evenly shuffled, free of ranks and batch size, resumed exactly."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.batches import Loader, RandomWindows, Windows, sequential
from groundup.batches.loader import POOL, bucketed, permuted
from groundup.errors import CheckpointError, SettingsError


def numbered(samples):
    """Windows of one id, so that sample i reads i."""
    return Windows(np.arange(samples + 1), length=1, stride=1)


def drawn(loader, batches):
    """Sample numbers of the next batches, as one list."""
    return [int(i) for batch in itertools.islice(loader, batches) for i in batch.tokens[:, 0]]


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1), st.integers(0, 2**40))
@settings(deadline=None)
def test_every_epoch_is_a_permutation(size, seed, epoch):
    order = permuted(np.arange(size), np.full(size, epoch), size=size, seed=seed)
    assert np.array_equal(np.sort(order), np.arange(size))


@pytest.mark.parametrize("size", [4**k + d for k in range(2, 8) for d in (-1, 0, 1)] + [100_000])
def test_permutation_around_powers_of_the_network(size):
    order = permuted(np.arange(size), np.zeros(size, np.int64), size=size, seed=5)
    assert np.array_equal(np.sort(order), np.arange(size))


def test_permutation_of_more_samples_than_memory_holds():
    size = 10**13
    places = np.arange(size - 1000, size)
    order = permuted(places, np.full(1000, 3), size=size, seed=5)
    assert len(np.unique(order)) == 1000 and order.min() >= 0 and order.max() < size


@pytest.mark.parametrize("size", [2, 3, 4, 5, 18, 64])
def test_every_sample_comes_equally_often_to_every_place(size):
    """Chi-square over (place, sample) and over the first two samples of an epoch; both within 4.5 sigma."""
    epochs = 10_000
    order = permuted(np.tile(np.arange(size), epochs), np.repeat(np.arange(epochs), size), size=size, seed=11)
    order = order.reshape(epochs, size)  # (E*N,) -> (E, N)
    places = np.array([np.bincount(order[:, place], minlength=size) for place in range(size)])
    pairs = np.bincount(order[:, 0] * size + order[:, 1], minlength=size * size).reshape(size, size)
    pairs = pairs[~np.eye(size, dtype=bool)]
    for counts, freedom in ((places, (size - 1) ** 2), (pairs, pairs.size - 1)):
        expected = counts.mean()
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi_square - freedom) < 4.5 * (2 * freedom) ** 0.5


def test_all_orders_of_four_samples_are_equally_likely():
    epochs = 24_000
    order = permuted(np.tile(np.arange(4), epochs), np.repeat(np.arange(epochs), 4), size=4, seed=2).reshape(-1, 4)
    _, counts = np.unique(order, axis=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 1000) ** 2 / 1000).sum() < 58  # 23 degrees of freedom, p = 0.0001


def test_a_shuffled_epoch_is_uncorrelated_with_the_text_and_the_next_epoch():
    size = 10_000
    first, second = (permuted(np.arange(size), np.full(size, e), size=size, seed=1) for e in (0, 1))
    other = permuted(np.arange(size), np.zeros(size, np.int64), size=size, seed=2)
    for a, b in ((first, np.arange(size)), (first[1:], first[:-1]), (first, second), (first, other)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.045  # 4.5 sigma of 1 / sqrt(10,000)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(0, 2**63 - 1))
@settings(deadline=None, max_examples=30)
def test_epochs_follow_without_gap_whatever_the_batch(samples, batch, seed):
    line = drawn(Loader(numbered(samples), batch=batch, seed=seed), -(-3 * samples // batch))
    for epoch in range(3):
        assert sorted(line[epoch * samples : (epoch + 1) * samples]) == list(range(samples))


@pytest.mark.parametrize("shuffle", [True, False])
def test_order_is_free_of_ranks_and_micro_batches(shuffle):
    make = lambda **how: Loader(numbered(21), seed=9, shuffle=shuffle, **how)  # noqa: E731
    whole = drawn(make(batch=8), 10)  # 80 samples: almost four epochs
    assert drawn(make(batch=4), 20) == whole
    assert drawn(make(batch=1), 80) == whole
    for world in (2, 4):
        ranks = [iter(make(batch=8 // world, rank=rank, world=world)) for rank in range(world)]
        assert [i for _ in range(10) for rank in ranks for i in drawn(rank, 1)] == whole
    split = [iter(make(batch=2, rank=rank, world=2)) for rank in range(2)]  # 2 ranks x 2 micro-batches
    assert [i for _ in range(20) for rank in split for i in drawn(rank, 1)] == whole


def test_unshuffled_is_the_order_of_the_text():
    assert drawn(Loader(numbered(5), batch=2, seed=1, shuffle=False), 4) == [0, 1, 2, 3, 4, 0, 1, 2]


def test_seed_and_epoch_change_the_order():
    line = drawn(Loader(numbered(50), batch=50, seed=1), 2)
    assert line[:50] != line[50:]
    assert line[:50] != drawn(Loader(numbered(50), batch=50, seed=2), 1)
    assert line == drawn(Loader(numbered(50), batch=50, seed=1), 2)


@given(st.integers(0, 30), st.integers(1, 5), st.integers(1, 3))
@settings(deadline=None, max_examples=30)
def test_restored_continues_with_the_next_sample(before, batch, world):
    whole = drawn(Loader(numbered(17), batch=1, seed=4), before + 12 * batch * world)
    saved = Loader(numbered(17), batch=1, seed=4)
    drawn(saved, before)
    resumed = [Loader(numbered(17), batch=batch, seed=4, rank=rank, world=world) for rank in range(world)]
    for loader in resumed:
        loader.restore(saved.state())
    ranks = [iter(loader) for loader in resumed]
    assert [i for _ in range(12) for rank in ranks for i in drawn(rank, 1)] == whole[before:]


def test_state_is_the_place_behind_the_batch_in_hand():
    loader = Loader(numbered(10), batch=3, seed=4, rank=1, world=2)
    assert loader.state() == {"seed": 4, "epoch": 0, "cursor": 0, "samples": 10}
    draws = iter(loader)
    next(draws)
    assert loader.state()["cursor"] == 6
    next(draws)
    assert loader.state() == {"seed": 4, "epoch": 1, "cursor": 12, "samples": 10}


def test_other_data_or_seed_is_refused():
    state = Loader(numbered(10), batch=1, seed=4).state()
    with pytest.raises(CheckpointError, match="samples = 10, this data order has samples = 11"):
        Loader(numbered(11), batch=1, seed=4).restore(state)
    with pytest.raises(CheckpointError, match="seed = 4, this data order has seed = 5"):
        Loader(numbered(10), batch=1, seed=5).restore(state)


@pytest.mark.parametrize("damaged", [{}, {"cursor": -1}, {"cursor": "7"}, {"cursor": 1.5}, {"cursor": 3}])
def test_a_damaged_state_is_refused_and_changes_nothing(damaged):
    loader = Loader(numbered(10), batch=1, seed=4)
    drawn(loader, 2)
    with pytest.raises(CheckpointError):
        loader.restore(damaged)
    assert loader.state()["cursor"] == 2


@pytest.mark.parametrize("how", [{"batch": 0}, {"batch": 1, "rank": 2, "world": 2}, {"batch": 1, "rank": -1}])
def test_senseless_batches_and_ranks_are_refused(how):
    with pytest.raises(SettingsError):
        Loader(numbered(3), seed=0, **how)


def test_random_windows_are_never_repeated_by_epoch():
    source = RandomWindows(np.arange(1000), length=100, seed=3)
    loader = Loader(source, batch=len(source), seed=3)
    first, second = drawn(loader, 1), drawn(loader, 1)
    assert first != second
    assert first + second == source.rows(np.arange(2 * len(source)))[:, 0].tolist()
    again = Loader(source, batch=1, seed=3)
    again.restore(loader.state())
    assert drawn(again, 1) == source.rows(np.array([2 * len(source)]))[:, 0].tolist()


def test_tensors_are_ids_for_torch():
    batch = next(iter(Loader(Windows(np.arange(20, dtype=np.uint16), length=4, stride=4), batch=2, seed=0)))
    assert batch.tokens.dtype == batch.fields["targets"].dtype == torch.int64
    assert batch.tokens.shape == batch.fields["targets"].shape == (2, 4)
    assert batch.count == 8
    assert torch.equal(batch.fields["targets"], batch.tokens + 1)


def test_sequential_is_everything_once_the_last_batch_shorter():
    batches = [*sequential(numbered(7), 3)]
    assert [batch.tokens[:, 0].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [batch.count for batch in batches] == [3, 3, 1]


# --- samples of like length together -----------------------------------------------------------------------------


class Lengths:
    """A source of samples with lengths; its batches are never made."""

    endless = False

    def __init__(self, lengths):
        self.lengths = np.asarray(lengths)

    def __len__(self):
        return len(self.lengths)


def uneven(count, seed=0):
    return np.random.default_rng(seed).geometric(0.03, count)  # like messages: many short ones, few long


def line(loader, samples, first=0):
    return loader.samples(np.arange(first, first + samples)).tolist()


def filler(lengths, order, batch):
    """Share of places that hold nothing when batches are filled up to their longest."""
    rows = lengths[np.asarray(order)].reshape(-1, batch)
    return 1 - rows.sum() / (rows.max(1) * batch).sum()


@given(st.integers(1, 700), st.integers(0, 2**63 - 1))
@settings(deadline=None, max_examples=60)
def test_bucketed_epochs_hold_every_sample_once(count, seed):
    lengths = uneven(count)
    loader = Loader(Lengths(lengths), batch=1, seed=seed, lengths=lengths)
    drawn_samples = line(loader, 3 * count)
    for epoch in range(3):
        assert sorted(drawn_samples[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_bucketed_order_beyond_one_pool_holds_every_sample_once():
    count = 2 * POOL + 77
    lengths = uneven(count)
    loader = Loader(Lengths(lengths), batch=8, seed=3, lengths=lengths)
    first, second = line(loader, count), line(loader, count, first=count)
    assert sorted(first) == sorted(second) == list(range(count)) and first != second


def test_bucketed_order_is_free_of_batch_and_ranks():
    """The place in the line says which sample it is, however it is drawn: singly, in batches, backwards."""
    lengths = uneven(300)

    def loader(**how):
        return Loader(Lengths(lengths), seed=9, lengths=lengths, **how)

    whole = line(loader(batch=8), 900)
    assert [line(loader(batch=1), 1, first=place)[0] for place in range(0, 900, 7)] == whole[::7]
    backwards = loader(batch=4)
    assert [line(backwards, 1, first=place)[0] for place in reversed(range(900))] == whole[::-1]
    assert line(loader(batch=3, rank=1, world=2), 900) == whole
    assert line(Loader(Lengths(lengths), batch=8, seed=8, lengths=lengths), 900) != whole


@pytest.mark.parametrize("batch", [4, 8, 16, 32])
@pytest.mark.parametrize("count", [960, 5000])
def test_bucketing_leaves_less_filler(batch, count):
    """Counted over an epoch: unsorted batches are filled up by a third or more, bucketed ones hardly."""
    lengths = uneven(count)
    whole = count - count % batch
    unsorted = filler(lengths, line(Loader(Lengths(lengths), batch=batch, seed=4), whole), batch)
    bucketed_ = filler(lengths, line(Loader(Lengths(lengths), batch=batch, seed=4, lengths=lengths), whole), batch)
    assert unsorted > 0.4 and bucketed_ < 0.15 and bucketed_ < unsorted / 4


def test_lengths_do_not_come_in_order():
    """Chunks are shuffled: the length of a batch says little about that of the next, and long ones come anywhere."""
    lengths = uneven(64 * 60)
    loader = Loader(Lengths(lengths), batch=64, seed=4, lengths=lengths)
    means = lengths[np.array(line(loader, 64 * 60))].reshape(60, 64).mean(1)
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.4
    places = [line(loader, 64 * 60, first=epoch * 64 * 60).index(int(lengths.argmax())) for epoch in range(8)]
    assert max(places) - min(places) > 1000


def test_the_longest_are_not_always_the_last_of_an_epoch():
    """Samples that fill no chunk stand at the end of an epoch; which length they have is drawn."""
    count = 64 * 10 + 30
    loader = Loader(Lengths(np.arange(count)), batch=1, seed=4, lengths=np.arange(count))
    ends = [set(line(loader, 30, first=epoch * count + 640)) for epoch in range(12)]
    assert all(max(end) - min(end) < 29 + 0.05 * count + 1 for end in ends)  # of like length they are, too
    assert len({min(end) for end in ends}) > 5 and sum(count - 1 in end for end in ends) < 6


def test_who_stands_together_changes_from_epoch_to_epoch():
    loader = Loader(Lengths(np.ones(256)), batch=64, seed=4, lengths=np.ones(256))
    chunks = {frozenset(line(loader, 64, first=place)) for place in range(0, 4 * 256, 64)}
    assert len(chunks) == 16


def test_a_bucketed_run_goes_on_where_it_stopped():
    lengths = uneven(300)
    rows = Windows(np.arange(301), length=1, stride=1)
    whole = drawn(Loader(rows, batch=4, seed=4, lengths=lengths), 200)
    saved, again = Loader(rows, batch=2, seed=4, lengths=lengths), Loader(rows, batch=4, seed=4, lengths=lengths)
    drawn(saved, 100)
    assert saved.state() == {"seed": 4, "epoch": 0, "cursor": 200, "samples": 300, "lengths": saved.state()["lengths"]}
    again.restore(saved.state())
    assert drawn(again, 150) == whole[200:]


def test_another_bucketing_is_refused_on_resume():
    rows, lengths = Windows(np.arange(301), length=1, stride=1), uneven(300)
    plain, sorted_ = Loader(rows, batch=1, seed=4), Loader(rows, batch=1, seed=4, lengths=lengths)
    changed = Loader(rows, batch=1, seed=4, lengths=lengths + 1)
    for mine, other in ((plain, sorted_), (sorted_, plain), (sorted_, changed)):
        with pytest.raises(CheckpointError, match="lengths"):
            mine.restore(other.state())


def test_lengths_that_do_not_belong_to_the_samples_are_refused():
    rows, random = numbered(10), RandomWindows(np.arange(1000), length=100, seed=3)
    for source, how in ((rows, {"lengths": np.ones(9)}), (rows, {"lengths": np.ones(10), "shuffle": False}),
                        (random, {"lengths": np.ones(len(random))})):  # fmt: skip
        with pytest.raises(SettingsError, match="lengths do not order"):
            Loader(source, batch=1, seed=0, **how)


@pytest.mark.parametrize("count", [40, 100])
def test_few_samples_of_different_lengths_are_mixed_anew_in_every_epoch(count):
    """Fewer than a chunk, and every length another: sorted, they would come in one order for ever."""
    lengths = np.random.default_rng(1).permutation(count) + 20
    orders = [bucketed(lengths, seed=seed) for seed in range(6)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(count))
        assert not np.all(np.diff(lengths[order]) >= 0)
    assert len({tuple(order.tolist()) for order in orders}) == 6
    met = {frozenset(order[first : first + 8].tolist()) for order in orders for first in range(0, count - 7, 8)}
    assert len(met) > count // 8  # who shares a batch changes, too
