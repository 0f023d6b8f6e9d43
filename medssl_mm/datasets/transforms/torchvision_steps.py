"""Steps of torchvision, drawn from the sample's own random generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from medssl_mm.datasets.transforms.base import Transform, get_rng
from medssl_mm.registry import TRANSFORMS


@contextmanager
def seeded_torch(rng: np.random.Generator) -> Iterator[None]:
    """Let torch draw from a seed of ``rng``; its state comes back after."""
    state = torch.random.get_rng_state()
    # Not torch.manual_seed, which would seed the accelerators as well.
    torch.default_generator.manual_seed(int(rng.integers(2**63 - 1)))
    try:
        yield
    finally:
        torch.random.set_rng_state(state)


def image_to_tensor(image: np.ndarray, owner: str) -> torch.Tensor:
    """Turn ``(H, W)`` or ``(H, W, 3)`` into ``(C, H, W)``, same type.

    Raises:
        ValueError: When the image has another shape.
    """
    if image.ndim == 2:
        return torch.from_numpy(np.ascontiguousarray(image))[None]
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f'{owner}: img must be (H, W) or (H, W, 3), got shape {image.shape}.'
        )
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def build_step(step: dict) -> Callable[[torch.Tensor], torch.Tensor]:
    """Build one torchvision transform (version 2) from its config.

    ``type`` is a name of ``torchvision.transforms.v2``; steps inside
    ``transforms`` are built as well, and ``interpolation`` may be a name.

    Raises:
        ValueError: Unknown name, or arguments the transform refuses.
        TypeError: When the step is no dict with a type.
    """
    from torchvision.transforms import InterpolationMode, v2

    if not isinstance(step, dict) or not isinstance(step.get('type'), str):
        raise TypeError(
            "TorchvisionSteps: every step must be a dict(type='Name', ...), "
            f'got {step!r}.'
        )
    arguments = dict(step)
    name = arguments.pop('type')
    made = getattr(v2, name, None)
    if not (isinstance(made, type) and issubclass(made, v2.Transform)):
        raise ValueError(
            f'TorchvisionSteps: torchvision.transforms.v2 has no transform '
            f'{name!r}; write the name of a class there, e.g. '
            "dict(type='ColorJitter', brightness=0.4)."
        )
    if 'transforms' in arguments:
        arguments['transforms'] = [
            build_step(inner) for inner in arguments['transforms']
        ]
    if isinstance(arguments.get('interpolation'), str):
        arguments['interpolation'] = InterpolationMode(arguments['interpolation'])
    try:
        return made(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f'TorchvisionSteps: {name} refuses {arguments}: {error}'
        ) from None


@TRANSFORMS.register_module()
class TorchvisionSteps(Transform):
    """Apply transforms of ``torchvision.transforms.v2``, then scale to 0-1.

    torchvision draws from torch's global generator; here that is seeded from
    ``rng`` for the time of the steps and restored afterwards, so the result
    is a function of (seed, epoch, sample) alone. On uint8 images every step
    rounds to whole grey values, as it does on pictures read by Pillow.

    Required Keys: img (uint8, or float of 0-1; ``(H, W)`` or ``(H, W, 3)``),
    rng. Modified Keys: img (float32, uint8 divided by 255), img_shape.

    Args:
        steps (Sequence[dict]): Steps in order, ``type`` being a class name
            of torchvision.transforms.v2. May be empty. Defaults to ().

    Example:
        >>> TorchvisionSteps([
        ...     dict(type='RandomResizedCrop', size=255, scale=(0.4, 1.0)),
        ...     dict(type='RandomApply', p=0.8, transforms=[
        ...         dict(type='ColorJitter', brightness=0.4)])])
    """

    def __init__(self, steps: Sequence[dict] = ()) -> None:
        self.steps = list(steps)
        self._built = [build_step(step) for step in self.steps]

    def transform(self, results: dict) -> dict:
        """Apply the steps."""
        rng = get_rng(results, 'TorchvisionSteps')
        tensor = image_to_tensor(results['img'], 'TorchvisionSteps')
        with seeded_torch(rng):
            for step in self._built:
                tensor = step(tensor)
        if tensor.dtype == torch.uint8:
            tensor = tensor.to(torch.float32).mul_(1 / 255)
        tensor = tensor.to(torch.float32)
        # A view: packing goes back to channels first without a copy.
        image = tensor[0] if len(tensor) == 1 else tensor.permute(1, 2, 0)
        results['img'] = image.numpy()
        results['img_shape'] = tuple(results['img'].shape[:2])
        return results
