"""What all probes of the features have in common."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence, Set

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from medssl_mm.errors import UserError


class ProbeHook(Hook, ABC):
    """Measures beside the pretraining what the features are good for.

    The pretraining is not altered in any bit: a probe seeds the random
    generators and puts them back (``observing.own_randomness``), has the
    encoder in evaluation mode and gets no gradient into it. What it has
    learned is in the checkpoint under :attr:`key`, not among the weights of
    the model, and a resumed run goes on with it exactly.

    Args:
        encoder (str, optional): Which encoder of the algorithm is looked at:
            'online', the one that learns, or 'target', its slow copy. Defaults
            to None: the one that the algorithm is evaluated by.
    """

    priority = 'LOW'

    def __init__(self, encoder: str | None = None) -> None:
        self.encoder = encoder
        self._saved: dict | None = None

    @property
    @abstractmethod
    def key(self) -> str:
        """Name of the probe's entry in a checkpoint."""

    @abstractmethod
    def state(self) -> dict | None:
        """What a checkpoint keeps of the probe; None: nothing yet."""

    @property
    def scored_dataset(self) -> Mapping | None:
        """Config of the data set that the probe scores; None: it has none."""
        return None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put what the probe has learned into the checkpoint."""
        state = self.state()
        if state is None:
            state = self._saved  # of a run that was resumed and not yet used
        if state is not None:
            checkpoint[self.key] = state

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take what the probe of a run that is resumed has learned."""
        if getattr(runner, '_resuming', False):
            self._saved = copy.deepcopy(checkpoint.get(self.key))

    def take_saved(self) -> dict | None:
        """Return the state of the run that is resumed, once."""
        saved, self._saved = self._saved, None
        return saved

    def error(self, message: str) -> UserError:
        """Make an error that names the hook."""
        return UserError(f'{type(self).__name__}: {message}')

    def require_positive(self, **settings: int) -> None:
        """Raise unless all settings are 1 or more."""
        for name, value in settings.items():
            if value < 1:
                raise self.error(f'{name} must be 1 or more, got {value}')

    def refuse_shared_patients(self, train: Set[str], val: Set[str]) -> None:
        """Raise when a patient is in both data sets of the probe."""
        shared = train & val
        if shared:
            raise self.error(
                'patients in both train_dataset and val_dataset: '
                f'{listed(shared)}; choose subsets without a patient in common'
            )

    def stacked(
        self,
        images: Sequence[Tensor],
        labels: Sequence[Tensor] = (),
        what: str = 'images',
        remedy: str = 'resize them in the pipeline',
    ) -> Tensor:
        """Stack images; say so when they, or their label maps, differ in size.

        Args:
            images (Sequence[Tensor]): ``(C, H, W)`` each.
            labels (Sequence[Tensor]): ``(H, W)`` each. Defaults to ().
            what (str): Names them in the message. Defaults to 'images'.
            remedy (str): End of the message. Defaults to the usual one.

        Shape: returns ``(N, C, H, W)``.
        """
        shapes = {tuple(part.shape[-2:]) for part in (*images, *labels)}
        if len(shapes) > 1:
            raise self.error(
                f'{what} must all have one size, found {sorted(shapes)}; {remedy}'
            )
        return torch.stack(list(images))


def listed(names: Iterable[str], most: int = 4) -> str:
    """Write the first of the sorted names, and how many there are more."""
    ordered = sorted(names)
    more = f' and {len(ordered) - most} more' if len(ordered) > most else ''
    return ', '.join(ordered[:most]) + more
