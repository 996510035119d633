"""A preallocated key/value cache for rows of different lengths, behind transformers' own Cache interface.

Rows are right-aligned: the newest token of every row is in the same column, and a row's first token is in column
``starts[row]``. That is the left-padded layout which every transformers model understands, and it lets one decode step
write all rows with one slice. Active rows are always ``0 .. rows - 1``, so a batch of one costs one row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

__all__ = ["RowCache"]

_FIRST_ROWS = 4
_FIRST_COLUMNS = 128


class _Window:
    """The rows and columns of the forward pass that runs now; shared by all layers."""

    def __init__(self) -> None:
        self.first_row = 0
        self.rows = 0
        self.start = 0
        self.new = 0  # columns [new, end) are written by this pass
        self.end = 0
        self.row_capacity = 0
        self.column_capacity = 0


class _RowLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped here
    """Keys and values of one layer, ``[rows, heads, columns, head_dim]``."""

    is_sliding = False
    is_initialized: bool
    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, window: _Window) -> None:
        super().__init__()
        self.window = window

    def lazy_initialization(self, key_states: torch.Tensor) -> None:
        """Nothing to do before the first update, which knows the shapes of both keys and values."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, cache_kwargs: dict[str, Any] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new columns and return the whole window."""
        del cache_kwargs
        window = self.window
        if not self.is_initialized:
            self.keys = self._allocate(key_states)
            self.values = self._allocate(value_states)
            self.is_initialized = True
        rows = slice(window.first_row, window.first_row + window.rows)
        self.keys[rows, :, window.new : window.end] = key_states
        self.values[rows, :, window.new : window.end] = value_states
        seen = slice(window.start, window.end)
        return self.keys[rows, :, seen], self.values[rows, :, seen]

    def _allocate(self, states: torch.Tensor) -> torch.Tensor:
        return states.new_zeros(self.window.row_capacity, states.shape[1], self.window.column_capacity, states.shape[3])

    def resize(self, rows: int, columns: int) -> None:
        """Grow both buffers, keeping what is there."""
        if not self.is_initialized:
            return
        for name in ("keys", "values"):
            old: torch.Tensor = getattr(self, name)
            new = old.new_zeros(rows, old.shape[1], columns, old.shape[3])
            new[: old.shape[0], :, : old.shape[2]] = old
            setattr(self, name, new)

    def get_mask_sizes(self, cache_position: torch.Tensor) -> tuple[int, int]:
        """Length and offset of what attention sees."""
        del cache_position
        return self.window.end - self.window.start, 0

    def get_seq_length(self) -> int:
        """Columns before this pass."""
        return self.window.new - self.window.start

    def get_max_cache_shape(self) -> int:
        """No limit of its own."""
        return -1


class RowCache(Cache):  # type: ignore[misc]  # transformers is untyped here
    """The cache of all active rows. Columns outside a row's range are masked, so they only have to be finite."""

    def __init__(self) -> None:
        self._window = _Window()
        super().__init__(layers=[])
        self.starts: list[int] = []
        self.epoch = 0  # counts every change of rows or starts, so that what is derived from them can be kept
        self._end = 0

    @property
    def rows(self) -> int:
        """Active rows."""
        return len(self.starts)

    @property
    def window(self) -> tuple[int, int]:
        """Columns [start, end) that the pass in preparation attends to."""
        return self._window.start, self._window.end

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        cache_kwargs: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store one layer's new keys and values; layers appear as the model names them."""
        while len(self.layers) <= layer_idx:
            self.layers.append(_RowLayer(self._window))
        keys, values = self.layers[layer_idx].update(key_states, value_states, cache_kwargs)
        return keys, values

    def open_prefill(self, lengths: list[int]) -> None:
        """Append rows with prompts of these lengths and make them the window of the next pass."""
        longest = max(lengths)
        self.epoch += 1
        if not self.starts:
            self._end = longest
        elif self._end < longest:
            self._shift(longest - self._end)
        first = len(self.starts)
        self.starts += [self._end - length for length in lengths]
        self._fit(len(self.starts), self._end)
        window = self._window
        window.first_row, window.rows = first, len(lengths)
        window.start = window.new = self._end - longest
        window.end = self._end

    def open_decode(self) -> None:
        """Add one column for all active rows and make them the window of the next pass."""
        start = min(self.starts)
        if self._end >= self._window.column_capacity and start >= max(1, self._window.column_capacity // 4):
            self._shift(-start)
            start = 0
        self._end += 1
        self._fit(len(self.starts), self._end)
        window = self._window
        window.first_row, window.rows = 0, len(self.starts)
        window.start, window.new, window.end = start, self._end - 1, self._end

    def release(self, row: int) -> None:
        """Free a row; the last row takes its place. What is left is zeroed, because NaN spreads through a mask."""
        self.epoch += 1
        last = len(self.starts) - 1
        freed, moved = slice(self.starts[row], self._end), slice(self.starts[last], self._end)
        for buffer in self._buffers():
            buffer[row, :, freed].zero_()
            if row != last:
                buffer[row, :, moved] = buffer[last, :, moved]
                buffer[last, :, moved].zero_()
        self.starts[row] = self.starts[last]
        self.starts.pop()

    def clear(self) -> None:
        """Forget all rows and whatever a failed pass may have left."""
        self.epoch += 1
        self.starts.clear()
        self._end = 0
        for buffer in self._buffers():
            buffer.zero_()

    def _buffers(self) -> Iterator[torch.Tensor]:
        for layer in self.layers:
            if layer.is_initialized:
                yield from (layer.keys, layer.values)

    def _shift(self, columns: int) -> None:
        """Move all rows right (or left when negative) by whole columns, zeroing the columns they leave."""
        self.epoch += 1
        low, high = min(self.starts), self._end
        self._fit(len(self.starts), high + columns)
        rows = slice(0, len(self.starts))
        left = slice(low, min(low + columns, high)) if columns > 0 else slice(max(high + columns, low), high)
        for buffer in self._buffers():
            moved = buffer[rows, :, low:high].clone()
            buffer[rows, :, left].zero_()
            buffer[rows, :, low + columns : high + columns] = moved
        self.starts = [start + columns for start in self.starts]
        self._end += columns

    def _fit(self, rows: int, columns: int) -> None:
        window = self._window
        if rows <= window.row_capacity and columns <= window.column_capacity:
            return
        if rows > window.row_capacity:
            window.row_capacity = max(rows, 2 * window.row_capacity, _FIRST_ROWS)
        if columns > window.column_capacity:
            window.column_capacity = max(columns + _FIRST_COLUMNS, 2 * window.column_capacity)
        for layer in self.layers:
            layer.resize(window.row_capacity, window.column_capacity)
