"""The images that a training shows, in their order: shuffled, augmented and normalised, all by the recipe's seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # everybody calls it F
from torch import Tensor

from search_spaces.network import InputContract
from workers.recipe import Recipe, size_of_batch
from workers.splits import Split


def draw_batches(
    split: Split, contract: InputContract, recipe: Recipe, steps: int, first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented, normalised batches: float32 (n, C, H, W) channels last, and labels (n).

    Args:
        first: step to begin with. The lots of those before are drawn and thrown away, without touching an image, so
            that batches are the same wherever one begins.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    rows = _shuffled_rows(len(split), size_of_batch(len(split), recipe), generator)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (contract.mean, contract.std))
    for step in range(steps):
        chosen = next(rows)
        lots = _draw_lots(len(chosen), recipe, generator)
        if step < first:
            continue
        pixels, labels = map(torch.from_numpy, split.take(chosen.numpy()))
        normal = _augment(pixels, lots, recipe.shift_pixels).float().mul_(1 / (255 * std)).sub_(mean / std)
        yield normal.contiguous(memory_format=torch.channels_last), labels


def _shuffled_rows(images: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless row numbers, a batch at a time, in a new order for each epoch; what fills no batch is left out."""
    while True:
        order = torch.randperm(images, generator=generator)
        yield from torch.split(order[: images - images % batch_size], batch_size)


@dataclass(frozen=True, slots=True)
class _Lots:
    """What chance decides of each image: bool (n, 1), and int64 (2, n, 1) pixels down and right from the corner."""

    is_flipped: Tensor | None
    shifts: Tensor | None


def _draw_lots(count: int, recipe: Recipe, generator: torch.Generator) -> _Lots:
    flipped = torch.randint(2, (count, 1), generator=generator).bool() if recipe.flip else None
    reach = 2 * recipe.shift_pixels + 1
    return _Lots(flipped, torch.randint(reach, (2, count, 1), generator=generator) if reach > 1 else None)


def _augment(images: Tensor, lots: _Lots, reach: int) -> Tensor:
    """Mirror and shift each image of a uint8 batch (n, C, H, W) by its own lot."""
    if lots.is_flipped is None and lots.shifts is None:
        return images
    count, _, height, width = images.shape
    columns = torch.arange(width).expand(count, width)
    rows = torch.arange(height).expand(count, height)
    if lots.is_flipped is not None:
        columns = torch.where(lots.is_flipped, columns.flip(1), columns)
    if lots.shifts is not None:
        rows, columns = rows + lots.shifts[0], columns + lots.shifts[1]
        images = F.pad(images, (reach, reach, reach, reach))
    return images[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
