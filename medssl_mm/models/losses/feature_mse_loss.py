"""Mean squared difference of the feature maps of a stage."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from medssl_mm.functional.feature_mse import cells_per_side, feature_mse
from medssl_mm.registry import MODELS

# Cells per side by stage, 0 = stem; further stages have the last one's.
GRIDS = (16, 16, 16, 4)


@MODELS.register_module()
class FeatureMSELoss(nn.Module):
    """Pulls the query's pooled map towards the key's, which has no gradient.

    See :func:`medssl_mm.functional.feature_mse.feature_mse`, whose log values
    (``norm``, ``relative``, ``spread``) go with it. For a level of
    :class:`medssl_mm.models.heads.MultiLevelHead` without a neck.

    Args:
        grid (int | Sequence[int], optional): Cells per side, or ``(rows,
            columns)``; 1 pools over the whole view. None means 16 for the
            stem, the stages 1 and 2 and a decoder, and 4 from stage 3 on. Defaults to
            None.
    """

    def __init__(self, grid: int | Sequence[int] | None = None) -> None:
        super().__init__()
        self.grid = None if grid is None else cells_per_side(grid)

    def forward(self, query: Tensor, key: Tensor, context: Any) -> dict[str, Tensor]:
        """Compare the maps ``(N, C, H, W)`` of the stage of ``context``."""
        # The map of a decoder is as fine as that of stage 1.
        stage = context.stage if isinstance(context.stage, int) else 1
        grid = self.grid or GRIDS[min(stage, len(GRIDS) - 1)]
        loss, logs = feature_mse(query, key, grid, return_logs=True)
        return dict(loss=loss, **logs)
