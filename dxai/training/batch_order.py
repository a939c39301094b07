"""The order of the images: a function of seed and step alone."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dxai.types import Batch, Images
from dxai.utils import keyed_random


class Order:
    """An endless stream of shuffled passes over `n` images, cut into batches.

    A dataset that does not fit in memory has its row groups shuffled, then the images within each
    window of row groups: a shuffle buffer whose state is a function of the step, so that resuming
    needs none.

    Parameters
    ----------
    seed : int
        Determines the order.
    n, batch_size : int
        Images in the split and in a batch.
    blocks : ndarray, optional
        (R + 1,), the starts of the row groups, and the end; None shuffles all images together.
    window : int
        Row groups whose images are shuffled together.
    """

    def __init__(
        self,
        seed: int,
        n: int,
        batch_size: int,
        blocks: np.ndarray | None = None,
        window: int = 1,
    ) -> None:
        self.seed, self.n, self.batch_size = seed, n, batch_size
        self.blocks, self.window = blocks, window
        self._passes: dict[int, np.ndarray] = {}

    @classmethod
    def over(cls, data: Images, seed: int, batch_size: int) -> Order:
        """Make the order for a dataset: windowed unless it fits in memory."""
        blocks = None if data.resident else data.blocks
        return cls(seed, len(data), batch_size, blocks, data.window)

    def indices(self, step: int, share: range | None = None) -> np.ndarray:
        """Indices into the split of the images of `step`, (batch_size,), or of a share of them."""
        positions = step * self.batch_size + np.array(share or range(self.batch_size))
        return np.array([self._pass(int(p) // self.n)[int(p) % self.n] for p in positions])

    def _pass(self, number: int) -> np.ndarray:
        if number not in self._passes:
            self._passes = {k: v for k, v in self._passes.items() if k == number - 1}
            self._passes[number] = self._shuffled(number)
        return self._passes[number]

    def _shuffled(self, number: int) -> np.ndarray:
        if self.blocks is None:
            return keyed_random.permutation(self.seed, "order", number, self.n)
        ranges = [np.arange(a, b) for a, b in itertools.pairwise(self.blocks)]
        shuffled = keyed_random.permutation(self.seed, "order of row groups", number, len(ranges))
        windows = []
        for start in range(0, len(ranges), self.window):
            indices = np.concatenate([ranges[i] for i in shuffled[start : start + self.window]])
            rng = keyed_random.generator(self.seed, "order in a window", number, start)
            windows.append(rng.permutation(indices))
        return np.concatenate(windows)


def prefetch(
    data: Images, order: Order, steps: Iterable[int], share: range | None = None, depth: int = 4
) -> Generator[Batch, None, None]:
    """Yield the batches of `steps`, read and decoded ahead by one thread.

    `share` selects positions within each batch; up to `depth` batches are read ahead. An error is
    raised when its batch is due. Closing or exhausting the generator ends the thread.
    """

    def read(step: int) -> Batch:
        return data.batch(order.indices(step, share))

    pool = ThreadPoolExecutor(1, "reader")
    waiting = iter(steps)
    try:
        pending = deque(pool.submit(read, step) for step in itertools.islice(waiting, depth))
        while pending:
            batch = pending.popleft().result()
            pending.extend(pool.submit(read, step) for step in itertools.islice(waiting, 1))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
