"""Networks of timm through ``TIMMBackbone`` of a host."""

import importlib.util
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from medssl_mm.errors import InstallError

from .base import STEM, Backbone, Tap
from .hosts import VisionTransformerBackbone, pair


def require_timm(user: str) -> None:
    """Refuse to go on without timm.

    Args:
        user (str): What needs it, for the message.

    Raises:
        InstallError: Names the extra to install.
    """
    if importlib.util.find_spec('timm') is None:
        raise InstallError(f'{user} needs timm; install medssl_mm[models]')


def require_parts(config: Mapping[str, Any], user: str) -> None:
    """Refuse a network of timm where there is no timm, before a host builds it.

    Args:
        config (Mapping): Of a backbone.
        user (str): What it is of, for the message.

    Raises:
        InstallError: Names the extra to install.
    """
    if str(config.get('type')).rpartition('.')[2] == 'TIMMBackbone':
        require_timm(user)


class TimmPyramidBackbone(Backbone):
    """timm networks of ``TIMMBackbone(features_only=True)``.

    Places are what timm returns: a first map of stride 2 is the stem, the
    others are the stages.
    """

    family = 'timm network'

    @staticmethod
    def fits(network: nn.Module) -> bool:
        """Whether timm returns several maps."""
        inner: Any = getattr(network, 'timm_model', None)
        return inner is not None and hasattr(
            getattr(inner, 'feature_info', None), 'reduction'
        )

    @staticmethod
    def describe(names: Iterable[str]) -> str:
        """Only that it is one."""
        return 'a timm network' if any('timm_model.' in name for name in names) else ''

    def taps(self) -> dict[str, Tap]:
        """The maps that are returned."""
        inner = self.network.timm_model
        strides = list(inner.feature_info.reduction())
        has_stem = len(strides) > 1 and strides[0] == 2
        return {
            STEM if has_stem and not i else f'stage{i + (not has_stem)}': Tap(
                inner, index=i
            )
            for i in range(len(strides))
        }

    @property
    def outputs(self) -> int:
        """All of them."""
        return len(self.network.timm_model.feature_info.out_indices)

    def entry(self) -> None:
        """Not known to timm; its own first map stands for it."""
        return None

    def as_map(self, found: Any, helped: Mapping[str, Any]) -> Tensor:
        """Put the channels first where timm has them last.

        Shape: ``(N, C, H, W)`` or ``(N, H, W, C)`` -> ``(N, C, H, W)``.
        """
        layout = getattr(self.network.timm_model, 'output_fmt', 'NCHW')
        if 'NHWC' in str(getattr(layout, 'value', layout)):
            return found.permute(0, 3, 1, 2)
        return found

    @cached_property
    def _probed(self) -> dict[int, tuple[int, int]]:
        # As timm states them: some of its networks take one size only.
        info = self.network.timm_model.feature_info
        return dict(zip(self.names, zip(info.channels(), info.reduction())))

    @cached_property
    def output_channels(self) -> tuple[int, ...]:
        """As timm states them."""
        return tuple(self.channels.values())


class TimmNetworkBackbone(TimmPyramidBackbone):
    """Whole timm networks of maps, of ``TIMMBackbone(features_only=False)``.

    The last place is what the network returns before its classifier, after the
    final convolution or normalisation that a pyramid leaves out. None of
    ``FAMILIES``: what trains needs the pyramid.
    """

    family = 'whole timm network'

    @staticmethod
    def fits(network: nn.Module) -> bool:
        """Whether timm lists the parts that give maps of other sizes."""
        inner: Any = getattr(network, 'timm_model', None)
        listed = getattr(inner, 'feature_info', None)
        return bool(listed) and isinstance(listed, list)

    @staticmethod
    def describe(names: Iterable[str]) -> str:
        """Left to :class:`TimmPyramidBackbone`."""
        return ''

    def taps(self) -> dict[str, Tap]:
        """The parts that timm lists; of the last one, the network itself."""
        inner = self.network.timm_model
        listed = list(inner.feature_info)
        has_stem = len(listed) > 1 and listed[0]['reduction'] < listed[-1]['reduction']
        has_stem = has_stem and listed[0]['reduction'] <= 2
        names = [
            STEM if has_stem and not i else f'stage{i + (not has_stem)}'
            for i in range(len(listed))
        ]
        taps = {
            name: Tap(inner.get_submodule(part['module']))
            for name, part in zip(names, listed)
        }
        return {**taps, names[-1]: Tap(self.network, index=0)}

    @property
    def outputs(self) -> int:
        """The last map alone."""
        return 1

    @cached_property
    def _probed(self) -> dict[int, tuple[int, int]]:
        # timm's list does not know the final convolution.
        return Backbone._probed.func(self)  # type: ignore[attr-defined]

    @cached_property
    def output_channels(self) -> tuple[int, ...]:
        """Those of the last map."""
        return (self.channels[self.last],)

    def image_size(self) -> tuple[int, int]:
        """What the weights of timm were made for: some take no other."""
        known = getattr(self.network.timm_model, 'pretrained_cfg', None) or {}
        return pair(known.get('input_size', (3, 64, 64))[1:])


class TimmTransformerBackbone(VisionTransformerBackbone):
    """Vision Transformers of timm through ``TIMMBackbone``."""

    family = 'timm Vision Transformer'

    @staticmethod
    def fits(network: nn.Module) -> bool:
        """Whether timm's network has blocks of tokens."""
        inner: Any = getattr(network, 'timm_model', None)
        return (
            inner is not None
            and isinstance(getattr(inner, 'blocks', None), nn.Sequential)
            and all(hasattr(inner, n) for n in ('patch_embed', 'num_prefix_tokens'))
        )

    @staticmethod
    def describe(names: Iterable[str]) -> str:
        """Left to :class:`TimmPyramidBackbone`."""
        return ''

    def taps(self) -> dict[str, Tap]:
        """The tokens that the first block gets, and the blocks."""
        inner = self.network.timm_model
        taps = {
            STEM: Tap(inner.blocks[0], entering=True),
            **{f'block{i}': Tap(block) for i, block in enumerate(inner.blocks, 1)},
        }
        taps[f'block{len(inner.blocks)}'] = Tap(inner.norm)
        return taps

    @property
    def outputs(self) -> int:
        """Its tokens, which are no map."""
        return 1

    def helpers(self) -> dict[str, nn.Module]:
        """The convolution that makes the patches."""
        return dict(patches=self.network.timm_model.patch_embed.proj)

    def as_map(self, found: Any, helped: Mapping[str, Any]) -> Tensor:
        """Lay the patch tokens out.

        Shape: ``(N, tokens, C)`` -> ``(N, C, H, W)``.
        """
        extra = self.network.timm_model.num_prefix_tokens
        return found[:, extra:].mT.unflatten(2, helped['patches'].shape[2:])

    def image_size(self) -> tuple[int, int]:
        """The size that the positions are made for."""
        size = self.network.timm_model.patch_embed.img_size
        return pair(size) if size else super().image_size()
