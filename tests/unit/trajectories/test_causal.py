"""Patches: nets whose decision is planted in an interval, and patches of everything and nothing."""

from itertools import combinations

import numpy as np
import pytest
import torch

from node_robustness.models.classifier import Classifier, Spec
from node_robustness.trajectories import causal
from node_robustness.trajectories.causal import (
    UNDETERMINED,
    everything,
    find_causes,
    flow_of,
    intervals,
    nothing,
    patch_intervals,
    restored_shares,
)
from planted import cued, cued_blocks
from rounding import OtherRounding

pytestmark = pytest.mark.numerical

TENTHS = intervals([k / 10 for k in range(11)])
WINDOWS = [(0.0, 0.2), (0.4, 0.9)]


def zeros_and_ones(n=3):
    clean = torch.zeros(n, 1, 2, 2, dtype=torch.float64)
    return clean, clean + 1


@pytest.mark.parametrize("window", WINDOWS)
def test_the_window_of_a_planted_decision_is_found(window):
    model, (clean, moved) = cued(*window), zeros_and_ones()
    flow = flow_of(model, 10)
    found = find_causes(model, flow, clean, moved)
    # Repair helps where it covers the window, insertion where it touches enough of it.
    ends = np.array(intervals(flow.ends))
    covers = (ends[:, 0] <= window[0] + 1e-9) & (ends[:, 1] >= window[1] - 1e-9)
    touches = (ends[:, 0] < window[1] - 1e-9) & (ends[:, 1] > window[0] + 1e-9)
    np.testing.assert_array_equal(found.repaired, np.tile(covers, (3, 1)))
    np.testing.assert_array_equal(found.inserted, np.tile(touches, (3, 1)))


def test_a_window_between_the_cuts_is_found_in_the_parts_around_it():
    model, (clean, moved) = cued(0.33, 0.47), zeros_and_ones(1)
    found = find_causes(model, flow_of(model, 10), clean, moved)
    assert found.repaired[0].tolist() == [a <= 0.3 and b >= 0.5 for a, b in TENTHS]


@pytest.mark.parametrize("number", [0, 2, 4])
def test_the_block_of_a_planted_decision_is_found(number):
    model, (clean, moved) = cued_blocks(number, 5), zeros_and_ones(2)
    found = find_causes(model, flow_of(model, 10), clean, moved)
    covers = [a <= number < b for a, b in combinations(range(6), 2)]
    np.testing.assert_array_equal(found.repaired, [covers] * 2)
    np.testing.assert_array_equal(found.inserted, [covers] * 2)


def test_the_channel_and_the_places_of_a_planted_decision():
    for model in (cued(0.2, 0.6), cued_blocks(1, 3)):
        clean, moved = zeros_and_ones(2)
        by_channel, by_place = restored_shares(model, flow_of(model, 1), clean, moved)
        # Channel 0 does not move: the repair of what the dynamics add to it changes nothing.
        expected = torch.tensor([[0.0, 1, 0]] * 2)
        torch.testing.assert_close(by_channel, expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(by_place, torch.full((2, 2, 2), 0.25), rtol=0, atol=2e-3)


@pytest.mark.parametrize("body", ["ode", "residual"])
def test_what_is_not_perturbed_has_no_shares_and_no_causes(body):
    model, (clean, moved) = network(body), pairs(4)
    moved[1] = clean[1]
    moved[2] = torch.nextafter(clean[2], clean[2] + 1)
    with OtherRounding():
        by_channel, by_place = restored_shares(model, flow_of(model, 1), clean, moved)
        causes = find_causes(model, flow_of(model, 3), clean, moved)
    nothing_lost = torch.tensor([False, True, True, False])
    for shares in (by_channel.flatten(1), by_place.flatten(1)):
        assert torch.equal(shares.isnan().all(1), nothing_lost)
        assert shares[~nothing_lost].isfinite().all()
    for outcomes in (causes.repaired, causes.inserted):
        assert (outcomes[nothing_lost] == UNDETERMINED).all()


def network(body="ode", dtype=torch.float64):
    torch.manual_seed(4)
    spec = Spec(1, 4, (0.4,), (0.3,), "convolution", body, filters=8, blocks=3)
    return Classifier(spec).eval().to(dtype)


def pairs(n=4, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    clean, change = (
        torch.rand(n, 1, 8, 8, dtype=torch.float64, generator=generator) for _ in range(2)
    )
    return clean.to(dtype), (clean + 0.5 * (change - 0.5)).clamp(0, 1).to(dtype)


def unbroken(model, flow, clean, moved):
    with torch.no_grad():
        both = flow.unbroken(model.embed(torch.cat([clean, moved])))
        return both[:, : len(clean)], both[:, len(clean) :]


@pytest.mark.parametrize("body", ["ode", "residual"])
def test_patching_nothing_leaves_the_run_as_it_is(body):
    model, (clean, moved) = network(body), pairs()
    solved = model.at(tolerance=1e-7)
    with torch.no_grad():
        flow = flow_of(solved, 3)
        before, after = unbroken(solved, flow, clean, moved)
        logits = patch_intervals(flow, after, before, solved.head, part=nothing)
        torch.testing.assert_close(logits, solved(moved).expand_as(logits), rtol=0, atol=1e-5)


@pytest.mark.parametrize("body", ["ode", "residual"])
def test_what_the_dynamics_add_is_undone_and_what_has_entered_stays(body):
    model, (clean, moved) = network(body), pairs()
    solved = model.at(tolerance=1e-7)
    with torch.no_grad():
        flow = flow_of(solved, 2)
        before, after = unbroken(solved, flow, clean, moved)
        choice = torch.zeros(len(clean), dtype=torch.int64)
        found = flow.patched(after[0], before[0], 0, everything, choice)
        torch.testing.assert_close(found[-1], before[-1] + after[0] - before[0], rtol=0, atol=1e-3)


def only(mask):
    return lambda difference, choice: difference * mask


def test_a_part_is_patched_and_the_rest_is_not():
    """Against a solve by hand, with a fixed fine grid, of the system as it is written down."""
    model, (clean, moved) = network(), pairs(2)
    mask = torch.zeros(8, 1, 1, dtype=torch.float64)
    mask[[1, 5]] = 1
    solved = model.at(tolerance=1e-8)
    with torch.no_grad():
        flow = flow_of(solved, 4)
        before, after = unbroken(solved, flow, clean, moved)
        choice = torch.zeros(2, dtype=torch.int64)
        found = flow.patched(after[1], before[1], 1, only(mask), choice)[1]

        def slopes(t, p, s):
            time = torch.tensor([t], dtype=torch.float64)
            f_p, f_s = solved.ode.function(time, p), solved.ode.function(time, s)
            return f_p + mask * (f_s - f_p), f_s

        p, s, steps = after[1], before[1], 200
        for k in range(steps):
            t, h = 0.25 + 0.25 * k / steps, 0.25 / steps
            p1, s1 = slopes(t, p, s)
            p2, s2 = slopes(t + h / 2, p + h / 2 * p1, s + h / 2 * s1)
            p3, s3 = slopes(t + h / 2, p + h / 2 * p2, s + h / 2 * s2)
            p4, s4 = slopes(t + h, p + h * p3, s + h * s3)
            p = p + h / 6 * (p1 + 2 * p2 + 2 * p3 + p4)
            s = s + h / 6 * (s1 + 2 * s2 + 2 * s3 + s4)
        torch.testing.assert_close(found, p, rtol=0, atol=1e-5)
        assert (found - after[2]).abs().amax((0, 2, 3))[[1, 5]].min() > 1e-2


def test_each_channel_by_itself_is_that_channel():
    model, (clean, moved) = network(), pairs(2)
    solved = model.at(tolerance=1e-7)
    with torch.no_grad():
        flow = flow_of(solved, 1)
        by_channel, by_place = restored_shares(solved, flow, clean, moved)
        before, after = unbroken(solved, flow, clean, moved)
        decided = solved(clean).argmax(1)
        base = solved(torch.cat([clean, moved]))
        own, misled = causal._final_margins(base, decided.repeat(2)).chunk(2)
        channel, place = torch.zeros(2, 8, 4, 4, dtype=torch.float64)
        channel[3] = 1
        place[:, 1, 2] = 1
        for mask, share in ((channel, by_channel[:, 3]), (place, by_place[:, 1, 2])):
            logits = patch_intervals(flow, after, before, solved.head, part=only(mask))[0]
            expected = (causal._final_margins(logits, decided) - misled) / (own - misled)
            torch.testing.assert_close(share, expected.float(), rtol=1e-3, atol=1e-4)


def test_a_run_that_an_empty_patch_changes_is_undetermined(monkeypatch):
    """As at a loose tolerance, where a restart of the solver may change the result."""
    model, (clean, moved) = cued(0.3, 0.5), zeros_and_ones(2)
    flow, real = flow_of(model, 5), causal.patch_intervals

    def patch(flow, states, sources, read, *, part):
        logits = real(flow, states, sources, read, part=part)
        if part is nothing and float(states[0].sum()) > 0:  # the run of ones, patched with nothing
            logits[4] = logits[4].flip(1)
        return logits

    monkeypatch.setattr(causal, "patch_intervals", patch)
    found = find_causes(model, flow, clean, moved)
    assert (found.repaired[:, 4] == UNDETERMINED).all()
    assert (found.repaired[:, :4] != UNDETERMINED).all()
    assert (found.inserted != UNDETERMINED).all()


def test_an_insertion_that_leads_to_a_third_class_takes_the_decision_away(monkeypatch):
    model, (clean, moved) = cued(0.3, 0.5), zeros_and_ones(2)
    real = causal.patch_intervals

    def patch(flow, states, sources, read, *, part):
        logits = real(flow, states, sources, read, part=part)
        third = torch.full_like(logits[..., :1], -1e3)
        if part is everything and float(states[0].sum()) == 0:  # the run of zeros, patched
            third = third.abs()
        return torch.cat([logits, third], dim=2)

    monkeypatch.setattr(causal, "patch_intervals", patch)
    found = find_causes(model, flow_of(model, 5), clean, moved)
    assert (found.inserted == 1).all()


def test_a_failed_solve_is_undetermined():
    model, (clean, moved) = network(), pairs()
    solved = model.at(tolerance=1e-8, max_steps=3)
    found = find_causes(solved, flow_of(solved, 3), clean, moved)
    assert (found.repaired == UNDETERMINED).all()
    assert (found.inserted == UNDETERMINED).all()


@pytest.mark.parametrize("body", ["ode", "residual"])
def test_causes_depend_neither_on_the_batch_nor_on_the_memory(body, monkeypatch):
    model, (clean, moved) = network(body, torch.float32), pairs(6, torch.float32)
    solved = model.at(tolerance=1e-2)
    flow = flow_of(solved, 4)
    together = find_causes(solved, flow, clean, moved)
    shares = restored_shares(solved, flow_of(solved, 1), clean, moved)
    monkeypatch.setattr(causal, "_ROWS_BYTES", 1)
    alone = [find_causes(solved, flow, *(x[i : i + 1] for x in (clean, moved))) for i in range(6)]
    for name in ("repaired", "inserted"):
        found = torch.cat([getattr(one, name) for one in alone])
        np.testing.assert_array_equal(found, getattr(together, name))
    for found, expected in zip(
        restored_shares(solved, flow_of(solved, 1), clean[:2], moved[:2]), shares, strict=True
    ):
        torch.testing.assert_close(found, expected[:2], rtol=1e-3, atol=1e-3)
