"""Pretrained encoders as backbones of the hosts' classifiers."""

import torch
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS

from .encoder import fill_encoder
from .settings import parse_source, weights_digest


@MODELS.register_module()
class EncoderBackbone(nn.Module):
    """A pretrained encoder that is trained on.

    Takes images in [0, 1] and normalises them as the encoder wants; returns
    its last map in a tuple, as backbones do.

    Args:
        source (str): See :func:`medssl_mm.encoders.load_encoder`.
        seed (int, optional): Of random weights. Defaults to None: of the run.
        in_channels (int): Of the images; grey ones are repeated. Defaults to 3.
        digest (str, optional): Of the file with the weights, which must not
            have changed. Defaults to None: not looked at.

    Raises:
        UserError: Other weights, or images that the encoder does not take.
    """

    def __init__(
        self,
        source: str,
        seed: int | None = None,
        in_channels: int = 3,
        digest: str | None = None,
    ) -> None:
        super().__init__()
        parsed = parse_source(source)
        found = weights_digest(parsed.path)
        if digest is not None and found != digest:
            raise UserError(
                f'the weights of {source} have changed (SHA-256 {found[:16]}, were '
                f'{digest[:16]}); run the table again, which plans anew'
            )
        if seed is None:
            seed = int(torch.randint(2**31, ()))  # the run has seeded torch
        self.encoder = fill_encoder(parsed, seed).requires_grad_(True).train()
        self.channels = self.encoder.preprocessing.channels
        if in_channels not in (1, self.channels):
            raise UserError(
                f'the encoder {source} takes grey pictures, the images have '
                f'{in_channels} channels; choose an encoder of colour pictures'
            )

    @property
    def output_channels(self) -> tuple[int]:
        """Channels of the last map."""
        return (self.encoder.settings.embedding_length,)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """The last map. Shape: ``(N, 1 or C, h, w)`` -> ``(N, C', h', w')``."""
        images = images.expand(-1, self.channels, -1, -1)
        return (self.encoder.maps(self.encoder.preprocessing.normalise(images)),)
