"""Random numbers that belong to a run, not to the order in which things happen.

Every block of random numbers is a function of its key alone. Conditions of one seed use the same keys and so the same
numbers: the comparison between them is paired (common random numbers).
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(*key: int | str) -> np.random.Generator:
    """A generator of its own for a key such as `(seed, round, "response")`."""
    digest = hashlib.sha256("/".join(str(part) for part in key).encode()).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], dtype=np.uint64)))


def uniforms(count: int, *key: int | str) -> np.ndarray:
    """A block of `count` float64 values in [0, 1) for a key."""
    return generator(*key).random(count)


def shuffled_index(count: int, seed: int, position: int) -> int:
    """Which of `count` items comes at a position of an endless sequence of shuffled epochs.

    Args:
        count: Number of items.
        seed: Seed of the order; each epoch has its own.
        position: Position in the sequence, from 0.
    """
    epoch, offset = divmod(position, count)
    return int(generator(seed, "order", epoch).permutation(count)[offset])
