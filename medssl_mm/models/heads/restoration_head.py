"""Decoder and loss of masked restoration."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from medssl_mm.backbones import backbone_of
from medssl_mm.errors import UserError
from medssl_mm.functional.restoration import (
    hidden_at,
    masked_l1,
    mean_of_visible,
    own_statistics,
    resized,
    sparse,
)
from medssl_mm.models.utils import StageDecoder, stated_by
from medssl_mm.registry import MODELS

MASKINGS = ('sparse', 'zero')


@MODELS.register_module()
class RestorationHead(StageDecoder):
    """Restores the hidden patches of images from what a backbone sees of the rest.

    The patches are those that :class:`medssl_mm.datasets.transforms.HidePatches`
    draws with the sample, so that neither workers, processes nor a resume change
    them. The loss is the mean absolute error of the hidden pixels, on the scale
    of the images, in float32. Method of `Designing BERT for Convolutional
    Networks <https://arxiv.org/abs/2301.03580>`_ (``masking='sparse'``; it has
    learnt embeddings at hidden cells of the decoder's maps, here they are 0, and
    a target normalised patch by patch) and of `Revisiting MAE pre-training for
    3D medical image segmentation <https://arxiv.org/abs/2410.23132>`_.

    These passes normalise by the statistics of their own batch, in a validation loop
    as well, and leave the running ones of the backbone alone: a frozen network is
    evaluated on whole images, and normalised by statistics of such. A backbone that
    computes parts of itself once more in the backward pass (``with_cp``,
    ``activation_checkpointing``) is refused.

    Logged: ``loss_restoration``, weighted; ``restoration_of_mean``, weighted
    alike, what the mean of the visible pixels gets: above that nothing is
    learned.

    Args:
        decoder (dict): A decode head of mmseg on the stages 1, 2 ... (its
            ``in_index`` 0, 1 ...), without channels and classes. Its names in the
            checkpoint are those of a segmentor, ``decode_head.*``, and its
            layer of classes is left out.
        masking (str): ``'sparse'``: hidden cells stay hidden in every layer, see
            :func:`medssl_mm.functional.restoration.sparse`, for convolutional
            networks; ``'zero'``: hidden pixels are 0, and that is all. Defaults
            to 'sparse'.
        weight (float): Factor of the term. Defaults to 1.0.
        map_channels (Mapping[int, int]): Channels of the stages by their number;
            algorithms set it.
        image_channels (int): Of the images; algorithms set it. Defaults to 1.
        init_cfg (dict, optional): Initialisation of mmengine. Defaults to None.

    Raises:
        UserError: When a setting is wrong.
    """

    def __init__(
        self,
        decoder: dict,
        map_channels: Mapping[int, int],
        masking: str = 'sparse',
        weight: float = 1.0,
        image_channels: int = 1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(decoder, map_channels, init_cfg)
        if masking not in MASKINGS:
            raise UserError(f'masking must be one of {MASKINGS}, got {masking!r}')
        self.masking = masking
        self.weight = weight
        self.to_image = nn.Conv2d(self.decode_head.channels, image_channels, 1)

    def forward(
        self,
        backbone: nn.Module,
        images: Tensor,
        target: Tensor,
        data_samples: Sequence,
    ) -> dict[str, Tensor]:
        """Hide, restore and compare.

        Args:
            backbone (nn.Module): Sees the images without their hidden patches.
            images (Tensor): In the memory layout of the backbone.
            target (Tensor): What is restored: the images, or the same without
                noise.
            data_samples (Sequence): One per image, with ``hidden_patches``.

        Shape: both ``(N, C, H, W)``. Returns scalars.
        """
        hidden = hidden_patches(data_samples, len(images)).to(images.device)
        prediction = self.restore(backbone, images, hidden)
        loss = masked_l1(prediction, target, hidden)
        with torch.no_grad():
            guess = mean_of_visible(target, hidden).expand_as(target)
            of_mean = masked_l1(guess, target, hidden)
        return dict(
            loss_restoration=loss * self.weight,
            restoration_of_mean=of_mean * self.weight,
        )

    def restore(self, backbone: nn.Module, images: Tensor, hidden: Tensor) -> Tensor:
        """Restore images from their visible patches.

        Shape: images ``(N, C, H, W)``, hidden ``(N, h, w)`` -> ``(N, C, H, W)``,
            at least float32.
        """
        maps = self.visible_maps(backbone, images, hidden)
        level = self.decode(maps)
        size = (images.shape[-2], images.shape[-1])
        return resized(self.to_image(level), size)

    def visible_maps(
        self, backbone: nn.Module, images: Tensor, hidden: Tensor
    ) -> dict[int, Tensor]:
        """What the backbone makes of the visible patches, by stage.

        Shape: images ``(N, C, H, W)``, hidden ``(N, h, w)``.
        """
        shown = images * ~hidden_at(hidden, (images.shape[-2], images.shape[-1]))
        masked = sparse(backbone, hidden) if self.masking == 'sparse' else nullcontext()
        # A backbone may be set to keep its statistics while it learns.
        frozen = getattr(backbone, 'norm_eval', False)
        with masked, own_statistics(backbone, not (self.training or frozen)):
            return backbone_of(backbone).maps(shown, self.stages)


def hidden_patches(data_samples: Sequence, count: int) -> Tensor:
    """Which patches of each image are hidden, as the samples say.

    Args:
        data_samples (Sequence): One per image.
        count (int): Number of images.

    Shape: returns ``(N, h, w)``, bool.

    Raises:
        UserError: When a sample does not say it.
    """
    found = stated_by(data_samples, 'hidden_patches')
    if len(found) != count or any(one is None for one in found):
        raise UserError(
            'the samples do not say which patches are hidden; put '
            'medssl_mm.HidePatches after the views in the pipeline, before '
            'medssl_mm.PackViews'
        )
    return torch.stack([torch.as_tensor(one, dtype=torch.bool) for one in found])
