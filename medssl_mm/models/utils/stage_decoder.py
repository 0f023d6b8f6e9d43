"""The decoder of a segmentation, which gives its map instead of classes."""

from collections.abc import Mapping

from mmengine.model import BaseModule
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS

#: What loss terms call the map of a decoder, beside the numbers of stages.
DECODER = 'decoder'


class StageDecoder(BaseModule):
    """A decode head of mmseg without its layer of classes.

    Its other weights have the names that they have in a segmentor, so that they can
    go on in one. Dropout is off unless it is asked for.

    Args:
        decoder (dict): The decode head, on the stages 1, 2 ... (its ``in_index`` 0,
            1 ...); channels of the maps and classes are none of its business.
        map_channels (Mapping[int, int]): Channels of the stages by their number.
        init_cfg (dict, optional): Initialisation of mmengine. Defaults to None.

    Raises:
        UserError: It asks for a stage that there is not.
    """

    def __init__(
        self,
        decoder: dict,
        map_channels: Mapping[int, int],
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.stages = tuple(sorted(map_channels))
        widths = [map_channels[stage] for stage in self.stages]
        self.decode_head = MODELS.build(_completed(decoder, widths))
        # Classes belong to the task that follows.
        self.decode_head.conv_seg = nn.Identity()

    def decode(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Return the decoder's map.

        Shape: maps ``(N, C, H, W)`` by the number of the stage -> ``(N, D, H', W')``.
        """
        return self.decode_head([maps[stage] for stage in self.stages])


def _completed(decoder: dict, widths: list[int]) -> dict:
    """Fill in the channels of the maps, and classes that nothing uses."""
    decoder = dict(decoder)
    index = decoder.get('in_index', -1)
    try:
        of_index = (
            widths[index] if isinstance(index, int) else [widths[i] for i in index]
        )
    except IndexError:
        raise UserError(
            f'the decoder has in_index={index}, but the backbone has '
            f'{len(widths)} stages; 0 to {len(widths) - 1} stand for them'
        ) from None
    decoder.setdefault('in_channels', of_index)
    if 'c1_channels' in decoder:
        decoder.setdefault('c1_in_channels', widths[0])
    loss = dict(type='mmseg.CrossEntropyLoss', avg_non_ignore=True)
    unused = dict(num_classes=2, loss_decode=loss)
    # mmseg warns about two classes unless this is given.
    return {**unused, 'out_channels': 2, 'dropout_ratio': 0.0, **decoder}
