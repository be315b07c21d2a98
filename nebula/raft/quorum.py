"""Counting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def majority(size: int) -> int:
    """How many of `size` voters decide."""
    return size // 2 + 1


def agreed(values: Iterable[Any]) -> Any:
    """The largest value that a majority has reached."""
    ordered = sorted(values, reverse=True)
    return ordered[majority(len(ordered)) - 1]
