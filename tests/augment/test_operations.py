"""Operations with numbers chosen by hand, against torchvision's image by image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as V

from potstill.data.augment import searched, tone, warp
from potstill.data.augment.erase import Cutout, Erase
from potstill.data.augment.place import Flip, FlipVertical, PadCrop, Shift
from potstill.data.augment.policy import OPERATIONS, parse_policy

COUNT = 9


def photos(count: int = COUNT, *, channels: int = 3, size: tuple[int, int] = (24, 20)) -> torch.Tensor:
    """Return smooth random uint8 images, so that resampling differences stay small."""
    noise = torch.rand(count, channels, 6, 5, generator=torch.manual_seed(1))
    smooth = torch.nn.functional.interpolate(noise, size, mode="bicubic")
    return (smooth * 255).clamp(0, 255).to(torch.uint8)


def differs_by(ours: torch.Tensor, theirs: torch.Tensor) -> int:
    """Return the largest difference in levels of 255."""
    assert ours.dtype == theirs.dtype == torch.uint8 and ours.shape == theirs.shape
    return int((ours.int() - theirs.int()).abs().max())


def middle(draws: int) -> np.ndarray:
    return np.full((1, draws), 0.5)


def test_shift_moves_by_whole_pixels_and_fills_with_black():
    images = photos(3) + 1
    u = np.array([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.999, 0.5]])  # -2, 0 and +2 rows of 5 choices
    moved = Shift(pixels=2).apply(images, u, (24, 20))
    assert torch.equal(moved[1], images[1])
    assert torch.equal(moved[0, :, 2:, 2:], images[0, :, :-2, :-2]) and not moved[0, :, :2].any()
    assert torch.equal(moved[2, :, :-2], images[2, :, 2:]) and not moved[2, :, -2:].any()
    edge = Shift(pixels=2, fill="edge").apply(images, u, (24, 20))
    assert torch.equal(edge[2, :, -1], images[2, :, -1])


def test_shift_without_a_number_is_a_small_part_of_the_image():
    for side, most in ((8, 1), (28, 1), (64, 3)):
        lit = torch.zeros(500, 1, side, side, dtype=torch.uint8)
        lit[:, :, side // 2, side // 2] = 1
        moved = Shift().apply(lit, np.random.default_rng(0).random((500, 3)), (side, side)).nonzero()
        assert (moved[:, 2:] - side // 2).abs().amax() == most


def test_pad_crop_agrees_with_torchvision():
    images, rng = photos(), np.random.default_rng(0)
    u = rng.random((COUNT, 2))
    ours = PadCrop(pad=3).apply(images, u, (22, 20))
    top, left = (np.floor(u * (9, 7))).astype(int).T
    for row in range(COUNT):
        padded = V.pad(images[row], [3], padding_mode="reflect")
        assert torch.equal(ours[row], V.crop(padded, int(top[row]), int(left[row]), 22, 20))


def test_flips_follow_their_probability():
    images = photos(4)
    u = np.array([[0.49], [0.51], [0.1], [0.9]])
    assert torch.equal(Flip().apply(images, u, (24, 20))[::2], images[::2].flip(-1))
    assert torch.equal(Flip().apply(images, u, (24, 20))[1::2], images[1::2])
    assert torch.equal(FlipVertical().apply(images, u, (24, 20))[::2], images[::2].flip(-2))


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_rotation_agrees_with_torchvision(interpolation):
    images, degrees = photos(), np.linspace(-170, 190, COUNT)
    ours = warp.warp(images, warp.rotation(degrees), interpolation=interpolation)
    mode = V.InterpolationMode(interpolation)
    for row in range(COUNT):
        theirs = V.rotate(images[row], float(degrees[row]), interpolation=mode)
        differing = (ours[row].int() - theirs.int()).abs() > 1
        assert differing.float().mean() < (0.02 if interpolation == "nearest" else 0.003)


def test_affine_without_turning_scales_moves_and_shears():
    images = photos()
    u = np.random.default_rng(0).random((COUNT, 6))
    ours = OPERATIONS["affine"](degrees=20, scale=0.3, shear=15, translate=0.2).apply(images, u, (24, 20))
    turn, scale, shear, right, down = ((2 * u[:, 1:6] - 1) * (20, 0.3, 15, 0.2 * 20, 0.2 * 24)).T
    for row in range(COUNT):
        theirs = V.affine(
            images[row],
            angle=-float(turn[row]),
            translate=[float(right[row]), float(down[row])],
            scale=1 + float(scale[row]),
            shear=[float(shear[row]), 0.0],
            interpolation=V.InterpolationMode.BILINEAR,
        )
        assert ((ours[row].int() - theirs.int()).abs() > 1).float().mean() < 0.01


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (tone.brighten, V.adjust_brightness),
        (tone.adjust_contrast, V.adjust_contrast),
        (tone.adjust_colour, V.adjust_saturation),
        (tone.adjust_sharpness, V.adjust_sharpness),
    ],
    ids=lambda function: function.__name__,
)
def test_factors_agree_with_torchvision(ours, theirs, channels):
    images, factors = photos(channels=channels), np.linspace(0, 2, COUNT)
    changed = ours(images, factors)
    for row in range(COUNT):  # torchvision cuts the fraction off, here it is rounded
        assert differs_by(changed[row], theirs(images[row], float(factors[row]))) <= 2


def test_hue_agrees_with_torchvision():
    images, turns = photos(), np.linspace(-0.5, 0.5, COUNT)
    changed = tone.shift_hue(images, turns)
    for row in range(COUNT):
        assert differs_by(changed[row], V.adjust_hue(images[row], float(turns[row]))) <= 1


def test_bits_and_thresholds_agree_with_torchvision():
    images, bits, thresholds = photos(), np.arange(COUNT), np.linspace(0, 1, COUNT)
    fewer, solar = tone.reduce_bits(images, bits), tone.solarized(images, thresholds)
    for row in range(COUNT):
        assert torch.equal(fewer[row], V.posterize(images[row], int(bits[row])))
        assert torch.equal(solar[row], V.solarize(images[row], 255 * float(thresholds[row])))


def test_grey_is_pillows():
    images = photos()
    for row in range(COUNT):
        pillow = np.asarray(V.to_pil_image(images[row]).convert("L"))
        assert np.array_equal(tone.grey(images)[row, 0].numpy(), pillow)


@pytest.mark.parametrize("name", ["equalize", "autocontrast", "invert"])
def test_what_has_no_strength_agrees_with_torchvision(name):
    images = photos()
    changed = OPERATIONS[name](p=1).apply(images, middle(1).repeat(COUNT, 0), (24, 20))
    for row in range(COUNT):
        assert torch.equal(changed[row], getattr(V, name)(images[row]))


def test_the_size_of_resized_crops_is_torchvisions():
    images, operation = photos(size=(48, 40)), parse_policy("random-resized-crop").operations[0]
    u = np.random.default_rng(0).random((4000, operation.draws))
    ours = operation.boxes(u, 48, 40)
    assert (ours[:, :2] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= (48, 40)).all()
    torch.manual_seed(0)
    drawn = v2.RandomResizedCrop(24)
    theirs = [drawn.make_params([images[0]]) for _ in range(4000)]
    theirs = np.array([[box[key] for key in ("top", "left", "height", "width")] for box in theirs])
    error = theirs.std(0) / math.sqrt(4000)
    assert (abs(ours.mean(0) - theirs.mean(0)) < 5 * error).all()
    assert np.allclose(ours.std(0), theirs.std(0), rtol=0.06)


def test_resized_crops_agree_with_torchvision_and_between_devices():
    from potstill.data.augment.resized_crop import resize, resize_on_cpu

    images = photos(6, size=(40, 48))
    boxes = np.array([[0, 0, 40, 48], [3, 5, 11, 9], [0, 7, 40, 13], [20, 0, 7, 48], [5, 5, 24, 20], [39, 47, 1, 1]])
    ours, by_matrices = resize_on_cpu(images, boxes, (24, 20)), resize(images, boxes, (24, 20))
    assert differs_by(ours, by_matrices) <= 1
    for row, (top, left, height, width) in enumerate(boxes.tolist()):
        theirs = V.resized_crop(images[row], top, left, height, width, [24, 20], antialias=True)
        assert torch.equal(ours[row], theirs)


def test_a_shape_that_never_fits_becomes_the_largest_that_does():
    operation = OPERATIONS["random-resized-crop"](scale=(1, 1), ratio=(2, 2))
    boxes = operation.boxes(np.full((1, operation.draws), 0.5), 30, 30)
    assert boxes.tolist() == [[8, 0, 15, 30]]


def test_erasing_hides_about_the_area_asked_for():
    images = torch.full((2000, 3, 32, 32), 7, dtype=torch.uint8)
    u = np.random.default_rng(0).random((2000, 8))
    hidden = (Erase(p=1, scale=(0.1, 0.3), fill="zero").apply(images, u, (32, 32)) == 0).float().mean((1, 2, 3))
    assert 0.08 < hidden.min() and hidden.max() < 0.33 and abs(hidden.mean() - 0.2) < 0.01
    assert torch.equal(Erase(p=1, fill="mean").apply(images, u, (32, 32)), images)
    cut = (Cutout(pixels=8, fill="zero").apply(images, u[:, :6], (32, 32)) == 0).float().mean((1, 2, 3)) * 1024
    assert cut.max() == 64 and cut.min() >= 16


SPACES = {
    "randaugment": v2.RandAugment._AUGMENTATION_SPACE,
    "trivialaugment": v2.TrivialAugmentWide._AUGMENTATION_SPACE,
    "autoaugment": v2.AutoAugment._AUGMENTATION_SPACE,
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_entry_of_torchvisions_tables_does_the_same_here(space, channels):
    images = photos(2, channels=channels)
    names, table, signed = searched._table(SPACES[space], 10, images)
    theirs = v2.RandAugment(interpolation=V.InterpolationMode.BILINEAR)
    for name, strengths, both in zip(names, table, signed, strict=True):
        for strength in {strengths[3], strengths[9], -strengths[6] if both else strengths[6]}:
            ours = searched.strengthen(name, images, np.full(2, strength), interpolation="bilinear")
            expected = theirs._apply_image_or_video_transform(images, name, float(strength), theirs.interpolation, {})
            assert ((ours.int() - expected.int()).abs() > 2).float().mean() < 0.01, (name, strength)


@pytest.mark.parametrize("dataset", ["cifar10", "imagenet", "svhn"])
def test_autoaugment_applies_the_pairs_of_the_table(dataset):
    """A draw that picks pair k, always acts and never turns the sign gives the k-th pair's operations in turn."""
    images = photos(25, size=(16, 16))
    policies = v2.AutoAugment(v2.AutoAugmentPolicy(dataset))._policies
    u = np.concatenate([(np.arange(25)[:, None] + 0.5) / 25, np.zeros((25, 2)), np.full((25, 2), 0.9)], 1)
    ours = OPERATIONS["autoaugment"](dataset=dataset).change(images, u)
    for row, pair in enumerate(policies):
        image = images[row : row + 1]
        for name, probability, level in pair:
            table = SPACES["autoaugment"][name][0](10, 16, 16)
            strength = np.array([0.0 if table is None else float(table[level])])
            if probability > 0:
                image = searched.strengthen(name, image, strength, interpolation="bilinear")
        assert torch.equal(ours[row : row + 1], image)


def test_trivialaugment_chooses_every_operation_equally_often():
    u = np.random.default_rng(0).random((7000, 3))
    counts = np.bincount(np.floor(u[:, 0] * 14).astype(int))
    assert len(counts) == 14 and counts.min() > 400
    images = photos(1, size=(8, 8)).expand(7000, -1, -1, -1)
    unchanged = (OPERATIONS["trivialaugment"]().change(images, u) == images).all(-1).all(-1).all(-1)
    assert 1 / 14 <= unchanged.float().mean() < 0.2


@pytest.mark.parametrize("name", ["saturation", "hue", "grayscale"])
def test_colour_operations_on_grey_images_say_that_they_do_nothing(name):
    from potstill.progress import Display, use

    images, operation = photos(channels=1), OPERATIONS[name]()
    with use(Display()) as shown:
        unchanged = operation.change(images, np.full((COUNT, operation.draws - 1), 0.1))
    assert torch.equal(unchanged, images)
    assert shown.notes == [f"The images are grey, so the augmentation {name} has no effect."]
