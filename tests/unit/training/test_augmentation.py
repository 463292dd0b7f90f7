"""Augmentation: each change against its definition, colours against `colorsys`."""

import colorsys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from node_robustness.config.models import Augmentation
from node_robustness.errors import UserError
from node_robustness.training.augmentation import (
    augment,
    crop,
    flip,
    hsv_to_rgb,
    rgb_to_hsv,
    scale_saturation,
    turn_hue,
)

unit = st.floats(0, 1, width=32)
# Eighths meet the ties between channels, greys and pure colours that the hexagon of hues has.
level = st.one_of(unit, st.integers(0, 8).map(lambda eighth: eighth / 8))
colour = st.tuples(level, level, level)
seeds = st.integers(0, 2**32 - 1)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def pictures(seed, count=4, channels=3, height=5, width=6):
    return torch.rand(count, channels, height, width, generator=seeded(seed))


def pixel(rgb, dtype=torch.float64):
    return torch.tensor(rgb, dtype=dtype).view(1, 3, 1, 1)


@given(colour)
def test_hsv_is_that_of_colorsys(rgb):
    hue, saturation, value = rgb_to_hsv(pixel(rgb)).flatten().tolist()
    expected = colorsys.rgb_to_hsv(*rgb)
    # Hues 0 and 1 are the same.
    assert abs((hue - expected[0] + 0.5) % 1 - 0.5) < 1e-9
    assert (saturation, value) == pytest.approx(expected[1:], abs=1e-9)


@given(colour)
def test_rgb_is_that_of_colorsys(hsv):
    assert_close(
        hsv_to_rgb(pixel(hsv)).flatten().tolist(),
        list(colorsys.hsv_to_rgb(*hsv)),
        atol=1e-9,
        rtol=0,
    )


@given(colour)
def test_hsv_and_back_is_the_same_colour(rgb):
    image = pixel(rgb, torch.float32)
    assert_close(hsv_to_rgb(rgb_to_hsv(image)), image, atol=1e-6, rtol=0)


@given(colour, st.floats(-0.5, 0.5))
def test_turning_the_hue_is_that_of_colorsys(rgb, turn):
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    turned = turn_hue(pixel(rgb), torch.tensor([turn], dtype=torch.float64))
    assert_close(turned.flatten().tolist(), list(expected), atol=1e-6, rtol=0)


@given(seeds)
def test_a_turn_of_zero_or_of_the_whole_circle_changes_nothing(seed):
    images = pictures(seed)
    for turn in (0.0, 1.0, -1.0):
        assert_close(turn_hue(images, torch.full((4,), turn)), images, atol=1e-5, rtol=0)


@given(colour, unit)
def test_saturation_blends_with_the_luma(rgb, factor):
    red, green, blue = rgb
    luma = 0.2989 * red + 0.587 * green + 0.114 * blue
    expected = [min(max(factor * value + (1 - factor) * luma, 0), 1) for value in rgb]
    scaled = scale_saturation(pixel(rgb), torch.tensor([factor], dtype=torch.float64))
    assert_close(scaled.flatten().tolist(), expected, atol=1e-12, rtol=0)


@given(seeds)
def test_saturation_zero_is_grey_and_one_is_the_image(seed):
    images = pictures(seed)
    grey = scale_saturation(images, torch.zeros(4))
    assert torch.equal(grey, grey[:, :1].expand_as(grey))
    assert_close(rgb_to_hsv(grey)[:, 1], torch.zeros(4, 5, 6))
    assert torch.equal(scale_saturation(images, torch.ones(4)), images)


@given(seeds, st.floats(1, 2), colour)
def test_saturation_keeps_hue_and_stays_in_range(seed, factor, rgb):
    images = scale_saturation(pictures(seed), torch.full((4,), factor))
    assert images.min() >= 0
    assert images.max() <= 1
    # Below the clipping limit, blending with grey moves along a line of constant hue.
    muted = scale_saturation(pixel(rgb), torch.tensor([0.5], dtype=torch.float64))
    before, after = rgb_to_hsv(pixel(rgb)).flatten(), rgb_to_hsv(muted).flatten()
    if before[1] * before[2] > 1e-3:
        distance = (before[0] - after[0] + 0.5) % 1 - 0.5
        assert abs(distance) < 1e-6


@given(seeds, st.integers(1, 7), st.data())
def test_a_crop_is_a_shift_that_brings_in_zeros(seed, padding, data):
    image = pictures(seed, count=1, channels=2) + 0.01
    offsets = st.integers(0, 2 * padding)
    top, left = data.draw(offsets), data.draw(offsets)
    cut = crop(image, padding, torch.tensor([top]), torch.tensor([left]))
    down, right = padding - top, padding - left
    for row in range(5):
        for column in range(6):
            source = row - down, column - right
            inside = 0 <= source[0] < 5 and 0 <= source[1] < 6
            expected = image[0, :, *source] if inside else torch.zeros(2)
            assert torch.equal(cut[0, :, row, column], expected)


@given(seeds)
def test_each_image_has_its_own_window(seed):
    images = pictures(seed)
    corners = torch.randint(5, (2, 4), generator=seeded(seed))
    together = crop(images, 2, *corners)
    apart = [crop(images[[i]], 2, corners[0, [i]], corners[1, [i]]) for i in range(4)]
    assert torch.equal(together, torch.cat(apart))


@given(seeds, st.lists(st.booleans(), min_size=4, max_size=4))
def test_flipping_mirrors_the_chosen_images_and_twice_is_nothing(seed, which):
    images, chosen = pictures(seed), torch.tensor(which)
    flipped = flip(images, chosen)
    for image, after, mirrored in zip(images, flipped, which, strict=True):
        assert torch.equal(
            after, torch.fliplr(image.movedim(0, 2)).movedim(2, 0) if mirrored else image
        )
    assert torch.equal(flip(flipped, chosen), images)


EVERYTHING = Augmentation(crop_padding=2, horizontal_flip=True, hue=0.1, saturation=0.4)


@settings(deadline=None)
@given(seeds)
def test_augmentation_repeats_with_its_generator_and_touches_nothing_else(seed):
    images = pictures(seed)
    copy, state = images.clone(), torch.get_rng_state()
    first = augment(images, EVERYTHING, seeded(seed))
    assert torch.equal(first, augment(images, EVERYTHING, seeded(seed)))
    assert torch.equal(images, copy)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == images.shape
    assert first.dtype == images.dtype
    assert first.min() >= 0
    assert first.max() <= 1


def test_without_changes_nothing_is_drawn():
    generator = seeded(0)
    state, images = generator.get_state(), pictures(0)
    assert torch.equal(augment(images, Augmentation(), generator), images)
    assert torch.equal(generator.get_state(), state)


def test_half_the_images_are_flipped_and_every_window_occurs():
    images = torch.arange(9.0).view(1, 1, 3, 3).expand(4000, 1, 3, 3) / 9 + 0.01
    flipped = augment(images, Augmentation(horizontal_flip=True), seeded(1))
    share = (flipped != images).any(3).any(2).float().mean().item()
    assert 0.46 < share < 0.54
    windows = augment(images, Augmentation(crop_padding=1), seeded(1)).flatten(1)
    distinct, counts = windows.unique(dim=0, return_counts=True)
    assert len(distinct) == 9
    assert counts.min() > 0.8 * 4000 / 9


def test_colour_changes_fill_their_range_and_come_in_both_orders():
    images = torch.tensor([0.8, 0.3, 0.2]).view(1, 3, 1, 1).expand(4000, 3, 1, 1)
    hue = rgb_to_hsv(images)[0, 0].item()
    turned = rgb_to_hsv(augment(images, Augmentation(hue=0.05), seeded(2)))[:, 0].flatten()
    turns = (turned - hue + 0.5) % 1 - 0.5
    assert_close(turns.aminmax(), (torch.tensor(-0.05), torch.tensor(0.05)), atol=1e-3, rtol=0)
    assert abs(turns.mean()) < 2e-3

    both = Augmentation(hue=0.3, saturation=0.9)
    draws = torch.rand(3, 4000, generator=seeded(2))
    turn, factor = 0.3 * (2 * draws[0] - 1), 1 + 0.9 * (2 * draws[1] - 1)
    hue_first = scale_saturation(turn_hue(images, turn), factor)
    saturation_first = turn_hue(scale_saturation(images, factor), turn)
    changed = augment(images, both, seeded(2))
    same = [
        (changed - other).abs().amax((1, 2, 3)) < 1e-5 for other in (hue_first, saturation_first)
    ]
    assert bool((same[0] | same[1]).all())
    assert 0.4 < (same[0] & ~same[1]).float().mean() / (same[0] ^ same[1]).float().mean() < 0.6


@pytest.mark.parametrize("key", ["hue", "saturation"])
@pytest.mark.parametrize("channels", [1, 4])
def test_colours_of_images_without_colours_are_the_users_mistake(key, channels):
    with pytest.raises(UserError, match=rf"^training\.augmentation\.{key}: .*set it to 0$"):
        augment(pictures(0, channels=channels), Augmentation(**{key: 0.1}), seeded(0))


def test_grey_images_can_be_cropped_and_flipped():
    changed = augment(
        pictures(0, channels=1), Augmentation(crop_padding=1, horizontal_flip=True), seeded(0)
    )
    assert changed.shape == (4, 1, 5, 6)
