"""Draws which patches of a view are hidden."""

from __future__ import annotations

import numpy as np

from medssl_mm.datasets.transforms.base import (
    Transform,
    check_number,
    check_size,
    get_rng,
)
from medssl_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class HidePatches(Transform):
    """Draw the patches of the (first) view that masked restoration hides.

    The same number in every image. The image itself stays whole: it is what is
    restored.

    Required Keys: img (list of views, or one image), rng. Added Keys:
    hidden_patches (bool array of rows and columns of patches).

    Args:
        patch_size (int | tuple[int, int]): Height and width of a patch in pixels
            of the view; they divide its sides.
        share (float): Share of the patches that is hidden, above 0 and below 1.
            Defaults to 0.6.
    """

    def __init__(self, patch_size: int | tuple[int, int], share: float = 0.6) -> None:
        self.patch_size = check_size(self.owner, 'patch_size', patch_size)
        self.share = check_number(self.owner, 'share', share, 0.0, 1.0)

    def transform(self, results: dict) -> dict:
        """Draw them."""
        image = results['img']
        image = image[0] if isinstance(image, (list, tuple)) else image
        sides = image.shape[:2]
        if any(side % patch for side, patch in zip(sides, self.patch_size)):
            raise ValueError(
                f'HidePatches: a view of {sides[0]} x {sides[1]} pixels is not made of '
                f'whole patches of {self.patch_size[0]} x {self.patch_size[1]}; choose '
                'another patch_size or size of the view.'
            )
        rows, columns = (side // patch for side, patch in zip(sides, self.patch_size))
        count = round(self.share * rows * columns)
        if not 0 < count < rows * columns:
            raise ValueError(
                f'HidePatches: share={self.share} of {rows} x {columns} patches hides '
                f'{count} of them; choose smaller patches or another share.'
            )
        hidden = np.zeros(rows * columns, dtype=bool)
        order = get_rng(results, self.owner).permutation(rows * columns)
        hidden[order[:count]] = True
        results['hidden_patches'] = hidden.reshape(rows, columns)
        return results
