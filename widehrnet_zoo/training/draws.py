"""The random numbers of a batch: named columns of one table, a row for each sample.

All that is random in a sample is read from its row, and the table is a function of the seed and the step alone. So a
sample looks the same however the batch is spread over processes and devices.
"""

import torch
from torch import Tensor

_WIDTH = 64

_COLUMNS = (
    *('angle', 'angle_2', 'zoom', 'zoom_2', 'turn', 'mirror', 'shift_x', 'shift_y', 'half', 'which_half'),
    *('saturation', 'contrast', 'brightness', 'grey', 'blur', 'blur_size'),
    *('hide', 'hide_height', 'hide_width', 'hide_y', 'hide_x', 'hide_on_keypoint', 'hide_which', 'hide_by_piece'),
    *('piece_y', 'piece_x', 'dark', 'dark_size', 'far', 'far_size', 'gamma', 'noise', 'noise_size'),
    *('border', 'border_side', 'border_count', 'border_place', 'border_tight'),
    *('border_again', 'border_side_2', 'border_count_2', 'border_place_2'),
    *('box_left', 'box_top', 'box_right', 'box_bottom', 'small', 'small_size', 'noise_y', 'noise_x'),
    *('neighbour', 'neighbour_who', 'neighbour_side', 'neighbour_x', 'neighbour_y', 'neighbour_zoom'),
    *('stretch', 'photo'),
)
_PLACES = {name: place for place, name in enumerate(_COLUMNS)}


class Draws:
    """Uniform numbers in [0, 1) of the samples of a batch, by name.

    Args:
        table: (N, 64).
    """

    def __init__(self, table: Tensor):
        self.table = table

    @classmethod
    def of(cls, count: int, *seeds: int) -> 'Draws':
        """Those of `count` samples, for a seed such as (run, step)."""
        seed = 0
        for part in seeds:
            seed = (seed * 1_000_003 + part) % 2**63
        return cls(torch.rand(count, _WIDTH, generator=torch.Generator().manual_seed(seed)))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, name: str) -> Tensor:
        """(N,) numbers of one use."""
        return self.table[:, _PLACES[name]]

    def signed(self, *names: str) -> Tensor:
        """Numbers in [-1, 1), (N,) for one name, (N, n) for several."""
        columns = [self[name] * 2 - 1 for name in names]
        return columns[0] if len(columns) == 1 else torch.stack(columns, 1)

    def normal(self, name: str) -> Tensor:
        """Standard normal numbers from the columns `name` and `name_2` (Box and Muller, 1958)."""
        radius = torch.sqrt(-2 * torch.log1p(-self[name]))
        return radius * torch.cos(2 * torch.pi * self[f'{name}_2'])

    def part(self, rows: slice | Tensor) -> 'Draws':
        """Those of some samples."""
        return Draws(self.table[rows])
