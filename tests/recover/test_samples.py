from __future__ import annotations

import pytest
import torch

from compress.data import Split, load_data
from compress.errors import InputError
from compress.recover.samples import Augmentation, batches, check_share, divided, share


def test_the_validation_part_is_disjoint_from_training_and_test() -> None:
    digits = load_data("digits")
    assert digits.train is not None
    train, validation = divided(digits.train, 0.1)
    assert (len(train), len(validation)) == (1437 - 144, 144)
    rows = [{image.numpy().tobytes() for image in part.inputs} for part in (train, validation, digits.test)]
    assert rows[0].isdisjoint(rows[1]) and rows[1].isdisjoint(rows[2])
    whole = sorted(image.numpy().tobytes() for image in digits.train.inputs)
    assert sorted(image.numpy().tobytes() for part in (train, validation) for image in part.inputs) == whole
    again = divided(digits.train, 0.1)[1]
    assert torch.equal(validation.inputs, again.inputs) and torch.equal(validation.targets, again.targets)


def test_one_sample_cannot_be_divided() -> None:
    with pytest.raises(InputError, match="1 training sample"):
        divided(Split(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)), 0.1)


def test_every_sample_once_an_epoch_in_even_batches() -> None:
    found = batches(100, 32, seed=0, epoch=3)
    assert [len(batch) for batch in found] == [25, 25, 25, 25]
    assert sorted(torch.cat(found).tolist()) == list(range(100))
    assert not torch.equal(torch.cat(found), torch.cat(batches(100, 32, seed=0, epoch=4)))
    assert torch.equal(torch.cat(found), torch.cat(batches(100, 32, seed=0, epoch=3)))


def test_processes_share_a_batch() -> None:
    batch = batches(50, 25, seed=0, epoch=0)[0]
    parts = [part for process in range(3) for part in share(batch, process, 3, 2)]
    assert len(parts) == 6 and min(map(len, parts)) >= 4
    assert sorted(torch.cat(parts).tolist()) == sorted(batch.tolist())
    # The first parts of all processes are the first part of one
    assert sorted(torch.cat(parts[::2]).tolist()) == sorted(share(batch, 0, 1, 2)[0].tolist())


def test_too_small_to_share() -> None:
    check_share(100, 8, 4, 1)
    with pytest.raises(InputError, match="batches of 7 samples cannot be divided over 4 processes in 2 parts"):
        check_share(100, 8, 4, 2)


def test_an_image_is_changed_in_its_own_way_whoever_does_it() -> None:
    images, numbers = torch.rand(40, 3, 8, 8), torch.arange(40)
    change = Augmentation("auto", (3, 8, 8), seed=0)
    state = torch.get_rng_state()
    whole = change(images, numbers, epoch=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(whole[20:], change(images[20:], numbers[20:], epoch=1))
    assert not torch.equal(whole, change(images, numbers, epoch=2))
    flips = Augmentation("flip", (3, 8, 8), seed=0)(images, numbers, epoch=0)
    mirrored = [bool(torch.equal(a, b.flip(2))) for a, b in zip(flips, images, strict=True)]
    assert 8 < sum(mirrored) < 32
    assert all(m or torch.equal(a, b) for m, a, b in zip(mirrored, flips, images, strict=True))


def test_crops_are_windows_of_the_padded_image() -> None:
    image = torch.rand(1, 1, 8, 16)
    (found,) = Augmentation("crop", (1, 8, 16), seed=3)(image, torch.tensor([5]), epoch=0)
    padded = torch.nn.functional.pad(image[0], (2, 2, 1, 1))
    windows = [padded[:, y : y + 8, x : x + 16] for y in range(3) for x in range(5)]
    assert any(torch.equal(found, window) for window in windows)


def test_grey_images_and_features_stay_as_they_are() -> None:
    for shape in ((1, 8, 8), (64,)):
        x = torch.rand(4, *shape)
        assert Augmentation("auto", shape, 0)(x, torch.arange(4), 0) is x
    with pytest.raises(InputError, match="--augment flip is for images, the samples are 64"):
        Augmentation("flip", (64,), 0)
