"""One random stream an image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from node_robustness.perturbations.streams import Streams

pytestmark = pytest.mark.numerical

LIKE = torch.zeros(1, dtype=torch.float64)


def draws(streams):
    return torch.cat(
        [
            streams.uniform((2, 3), LIKE).flatten(1),
            streams.normal((4,), LIKE),
            streams.integers(0, 1000, (2,)).double(),
        ],
        dim=1,
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**40), st.lists(st.integers(0, 10**6), min_size=1, max_size=6, unique=True))
def test_a_draw_for_an_image_depends_on_its_seed_and_row_alone(seed, rows):
    whole = draws(Streams.of(seed, rows))
    alone = torch.cat([draws(Streams.of(seed, [row])) for row in rows])
    assert torch.equal(whole, alone)
    assert torch.equal(draws(Streams.of(seed, rows[::-1])), whole.flip(0))
    assert not torch.equal(draws(Streams.of(seed + 1, rows)), whole)
    assert len({tuple(row) for row in whole.tolist()}) == len(rows)


def test_a_part_of_the_streams_shares_them():
    streams, twin = Streams.of(3, [5, 6, 7]), Streams.of(3, [5, 6, 7])
    some = streams[torch.tensor([True, False, True])]
    assert len(some) == 2
    first = some.uniform((2,), LIKE)
    assert torch.equal(first, twin.uniform((2,), LIKE)[[0, 2]])
    assert torch.equal(
        streams[torch.tensor([2, 0])].uniform((2,), LIKE),
        twin[torch.tensor([2, 0])].uniform((2,), LIKE),
    )
    # The stream in the middle has not moved on with the others.
    fresh = Streams.of(3, [6]).uniform((2,), LIKE)
    assert torch.equal(streams[torch.tensor([1])].uniform((2,), LIKE), fresh)


def test_the_draws_have_their_distributions():
    streams = Streams.of(0, range(4))
    uniform, normal = streams.uniform((5000,), LIKE), streams.normal((5000,), LIKE)
    whole = streams.integers(-2, 3, (5000,))
    assert bool(((uniform >= 0) & (uniform <= 1)).all())
    torch.testing.assert_close(uniform.mean(1), torch.full((4,), 0.5).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(normal.std(1), torch.ones(4).double(), atol=0.05, rtol=0)
    torch.testing.assert_close(normal.mean(1), torch.zeros(4).double(), atol=0.05, rtol=0)
    assert whole.dtype == torch.int64
    assert sorted(whole.unique().tolist()) == [-2, -1, 0, 1, 2]


def test_draws_are_the_same_in_every_precision_and_leave_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    exact = Streams.of(0, [1, 2]).normal((3, 3), LIKE)
    single = Streams.of(0, [1, 2]).normal((3, 3), torch.zeros(1))
    assert single.dtype == torch.float32
    assert torch.equal(exact.float(), single)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_streams_draw_nothing():
    streams = Streams.of(0, [])
    assert streams.uniform((2, 3), LIKE).shape == (0, 2, 3)
    assert streams.integers(0, 2, ()).shape == (0,)
    assert len(streams) == 0
