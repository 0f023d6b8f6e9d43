"""What all families of backbones have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from medssl_mm.errors import UserError
from medssl_mm.functional.features import evaluation_mode

STEM = 'stem'


@dataclass(frozen=True, eq=False)
class Tap:
    """Where the map of a place passes.

    Args:
        module (nn.Module): A part of the network.
        entering (bool): Whether the map is what the part gets, rather than
            what it returns. Defaults to False.
        index (int, optional): Which entry of what it returns. Defaults to
            None: all of it.
        then (nn.Module, optional): Applied to the map. Defaults to None.
    """

    module: nn.Module
    entering: bool = False
    index: int | None = None
    then: nn.Module | None = None


class Backbone(ABC):
    """A network seen as a sequence of places.

    Args:
        network (nn.Module): Of the family; not changed.
    """

    #: How the family is called in messages.
    family = ''
    #: Whether networks start as their class has it; else as ResNets do.
    own_start = True

    def __init__(self, network: nn.Module) -> None:
        # Its parts are those of some host, which no type describes.
        self.network: Any = network

    @staticmethod
    @abstractmethod
    def fits(network: nn.Module) -> bool:
        """Whether a network is of this family."""

    @staticmethod
    def describe(names: Iterable[str]) -> str:
        """Name the architecture that parameter names belong to, '' if other."""
        return ''

    @classmethod
    def stated_channels(cls, settings: Mapping) -> dict[int, int]:
        """Channels of all places that a config states, without building.

        For a family of which nearly every config is: building one imports
        its host, which takes seconds.

        Args:
            settings (Mapping): Config of a network.

        Returns:
            dict[int, int]: By the number of the place; empty when the config
            is of another family, or this one must be built.
        """
        return {}

    @abstractmethod
    def taps(self) -> dict[str, Tap]:
        """All places by name, in their order, the stem first if it has one."""

    def entry(self) -> Tap | None:
        """What the first stage gets: the stem as the feature tools see it."""
        return next(
            (
                Tap(tap.module, entering=True)
                for name, tap in self.taps().items()
                if name != STEM
            ),
            None,
        )

    def block_taps(self) -> dict[str, Tap]:
        """The blocks that the stages are made of, 'stage1.0', 'stage1.1', ...

        Raises:
            UserError: When the blocks of this family return no maps.
        """
        raise UserError(
            f'the blocks of {self.family} cannot be looked at one by one; '
            'compare its stages'
        )

    def helpers(self) -> dict[str, nn.Module]:
        """Further parts whose output ``as_map`` needs, by name."""
        return {}

    def as_map(self, found: Any, helped: Mapping[str, Any]) -> Tensor:
        """Turn what passes a tap into a map.

        Shape: returns ``(N, C, H, W)``.
        """
        return found

    def image_size(self) -> tuple[int, int]:
        """Height and width of an image that the network takes."""
        return 64, 64

    @property
    def outputs(self) -> int:
        """How many maps the network itself returns."""
        return len(self.network.out_indices)

    # ------------------------------------------------------- the same for all

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each place by its name; 0 is the stem."""
        names = list(self.taps())
        first = 0 if names[0] == STEM else 1
        return {name: number for number, name in enumerate(names, first)}

    @cached_property
    def names(self) -> dict[int, str]:
        """The name of each place by its number."""
        return {number: name for name, number in self.numbers.items()}

    @property
    def last(self) -> int:
        """The number of the last place."""
        return max(self.names)

    def feature_taps(self) -> dict[str, Tap]:
        """All places; as the stem what the first stage gets.

        In a ResNet that is the map after max-pooling, while ``stem`` of
        ``maps`` is the one before it, as in mmselfsup.
        """
        taps = self.taps()
        entry = self.entry()
        if entry is None:
            return taps
        return {STEM: entry, **{n: tap for n, tap in taps.items() if n != STEM}}

    def maps(self, images: Tensor, wanted: Iterable[int]) -> dict[int, Tensor]:
        """Return the maps at some places, by their number.

        Shape: images ``(N, C, H, W)``. Returns ``(N, C', H', W')`` each.

        Raises:
            UserError: When there is no such place.
        """
        wanted = sorted(set(wanted))
        unknown = [number for number in wanted if number not in self.names]
        if unknown:
            raise UserError(
                f'{type(self.network).__name__} has no stage {unknown[0]}; it has '
                + ', '.join(f'{number} ({name})' for number, name in self.names.items())
            )
        taps = self.taps()
        return self.run(images, {n: taps[self.names[n]] for n in wanted})

    def run(
        self,
        images: Tensor,
        taps: Mapping,
        keep: Callable[[Tensor], Tensor] = lambda level: level,
    ) -> dict:
        """Pass images through the network and collect maps on the way.

        Args:
            images (Tensor): As the network takes them.
            taps (Mapping): From any key to a :class:`Tap`.
            keep (Callable): From a map to what is kept of it, called as soon
                as the map is there. Defaults to the map itself.

        Shape: images ``(N, C, H, W)``. Returns what is kept, by key.

        Raises:
            UserError: When something else than a map passes.
        """
        found: dict = {}
        helped: dict[str, Any] = {}

        def see(key: object, tap: Tap, value: Any) -> None:
            found[key] = keep(self._map_at(key, tap, value, helped))

        with ExitStack() as stack:
            for name, part in self.helpers().items():
                handle = _listen(Tap(part), partial(helped.__setitem__, name))
                stack.callback(handle.remove)
            for key, tap in taps.items():
                stack.callback(_listen(tap, partial(see, key, tap)).remove)
            self.network(images)
        absent = [str(key) for key in taps if key not in found]
        if absent:
            raise UserError(
                f'{type(self.network).__name__} did not pass {", ".join(absent)}: '
                'its forward leaves that part out'
            )
        return {key: found[key] for key in taps}

    def _map_at(
        self, key: object, tap: Tap, value: Any, helped: Mapping[str, Any]
    ) -> Tensor:
        level = self.as_map(value if tap.index is None else value[tap.index], helped)
        if not isinstance(level, Tensor) or level.ndim != 4:
            shape = tuple(getattr(level, 'shape', ())) or type(level).__name__
            raise UserError(
                f'{type(self.network).__name__} has no map (N, C, H, W) at '
                f'{key}, but {shape}'
            )
        return level if tap.then is None else tap.then(level)

    @torch.no_grad()
    def pooled(self, images: Tensor, taps: Mapping[str, Tap]) -> dict[str, Tensor]:
        """Means over all positions of the maps at some places.

        Pools as soon as a map is there: a batch of maps of every block would
        take gigabytes.

        Args:
            images (Tensor): As the network takes them.
            taps (Mapping[str, Tap]): Of the network.

        Shape: images ``(N, C, H, W)`` -> ``(N, channels)`` each, float32.
        """
        return self.run(
            images, taps, lambda level: level.mean(dim=(2, 3), dtype=torch.float32)
        )

    @cached_property
    def in_channels(self) -> int:
        """Channels of the images that the network takes."""
        for part in self.network.modules():
            if isinstance(part, nn.Conv2d):
                return part.in_channels
        raise UserError(f'{type(self.network).__name__} has no convolution')

    @contextmanager
    def _probing(self) -> Iterator[Tensor]:
        """Give a small image to find shapes with.

        In evaluation mode, without gradient and with the random generator
        put back, so nothing of the network changes.
        """
        weight = next(self.network.parameters())
        image = weight.new_zeros(1, self.in_channels, *self.image_size())
        devices = [weight.device] if weight.is_cuda else []
        with (
            torch.random.fork_rng(devices),
            torch.no_grad(),
            evaluation_mode(self.network),
        ):
            yield image

    @cached_property
    def _probed(self) -> dict[int, tuple[int, int]]:
        """Channels and stride of each place."""
        with self._probing() as image:
            maps = self.maps(image, self.names)
        return {
            number: (level.shape[1], round(image.shape[2] / level.shape[2]))
            for number, level in maps.items()
        }

    def input_strides(self, parts: Mapping[str, nn.Module]) -> dict[str, int]:
        """Pixels of the image per cell of the map that each of some parts gets.

        Args:
            parts (Mapping[str, nn.Module]): Of the network, by name.

        Returns:
            dict[str, int]: By name, without parts that no image passes.
        """
        widths: dict[str, int] = {}

        def see(name: str, level: Tensor) -> None:
            widths.setdefault(name, level.shape[-1])

        with ExitStack() as stack, self._probing() as image:
            for name, part in parts.items():
                tap = Tap(part, entering=True)
                stack.callback(_listen(tap, partial(see, name)).remove)
            self.network(image)
        return {name: round(image.shape[-1] / width) for name, width in widths.items()}

    @cached_property
    def output_channels(self) -> tuple[int, ...]:
        """Channels of what the network itself returns, in its order.

        Shape: of maps ``(N, C, H, W)`` and vectors ``(N, C)`` they are C, of
            tokens ``(N, L, C)`` as well.
        """
        with self._probing() as image:
            outputs = self.network(image)
        if isinstance(outputs, Tensor):
            outputs = [outputs]
        return tuple(out.shape[2 if out.ndim == 3 else 1] for out in outputs)

    @property
    def channels(self) -> dict[int, int]:
        """Channels of the map of each place, by its number."""
        return {number: found[0] for number, found in self._probed.items()}

    @property
    def strides(self) -> dict[int, int]:
        """Pixels of the image per cell of the map, by the place's number."""
        return {number: found[1] for number, found in self._probed.items()}

    @property
    def named_strides(self) -> dict[str, int]:
        """The same by the place's name, in the order of the network."""
        return {self.names[number]: stride for number, stride in self.strides.items()}


def _listen(tap: Tap, see: Callable[[Any], None]) -> RemovableHandle:
    if tap.entering:
        return tap.module.register_forward_pre_hook(lambda _, args: see(args[0]))
    return tap.module.register_forward_hook(lambda _, __, out: see(out))
