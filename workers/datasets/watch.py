"""Tells how far a pass over many images is, twice a second."""

from __future__ import annotations

import time

from workers.progress import Progress

_EVERY_S = 0.5


class Watch:
    """Turns images into progress: how many of how many, the speed, the time left."""

    def __init__(self, progress: Progress, stage: str, images: int) -> None:
        self._progress, self._stage, self._images = progress, stage, images
        self._begun_s = self._reported_s = time.perf_counter()

    def step(self, done: int) -> None:
        now_s = time.perf_counter()
        if done < self._images and now_s - self._reported_s < _EVERY_S:
            return
        self._reported_s = now_s
        per_image_s = (now_s - self._begun_s) / done
        left = round(per_image_s * (self._images - done))
        message = (
            f"{done:,} of {self._images:,} images, {1 / max(per_image_s, 1e-9):,.0f} images/s, "
            f"{left // 60}:{left % 60:02d} left"
        )
        self._progress(self._stage, done / self._images, message)
