"""Classification by nearest neighbours, beside the pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.runner import Runner
from torch import Tensor

from medssl_mm.engine.hooks.image_probe_hook import ImageProbeHook
from medssl_mm.functional.distributed import is_main_process
from medssl_mm.functional.nearest_neighbours import nearest_neighbour_probabilities
from medssl_mm.registry import HOOKS


@HOOKS.register_module()
class NearestNeighbourProbeHook(ImageProbeHook):
    """Classifies images by the most similar ones, with nothing to learn.

    Cosine similarity of the pooled features; each of the ``k`` nearest
    training images votes with weight exp(similarity / temperature), see
    :mod:`medssl_mm.functional.nearest_neighbours`. Of several labels at once
    each is voted for on its own. The zero line is the score of the encoder
    before its first step.

    The pretraining is not altered in any bit. Not in any config by default: a
    run that is tuned by it is not free of labels.

    Args:
        train_dataset (dict): See :class:`ImageProbeHook`; not augmented.
        val_dataset (dict): The same of other patients.
        k (int): Neighbours, at most the training images. Defaults to 20.
        temperature (float): Above 0. Defaults to 0.07.
        name (str): See :class:`ImageProbeHook`. Defaults to 'knn'.
        interval (int): Epochs, or iterations, between measurements. Defaults to
            10.
        **kwargs: Further arguments of :class:`ImageProbeHook`.
    """

    def __init__(
        self,
        train_dataset: Mapping,
        val_dataset: Mapping,
        k: int = 20,
        temperature: float = 0.07,
        name: str = 'knn',
        interval: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(train_dataset, val_dataset, name, interval, **kwargs)
        self.require_positive(k=k)
        if temperature <= 0:
            raise self.error(f'temperature must be above 0, got {temperature}')
        self.k = k
        self.temperature = temperature

    def state(self) -> dict | None:
        """The zero line."""
        return dict(start_scores=self.start_scores) if self.start_scores else None

    def prepare(self, runner: Runner) -> None:
        """Take the zero line of the run that is resumed."""
        if self.k > len(self.train_images):
            raise self.error(
                f'k={self.k} neighbours of {len(self.train_images)} images of '
                'train_dataset; set k lower'
            )
        saved = self.take_saved()
        if saved is not None:
            self.start_scores = saved['start_scores']

    def measurement(self, runner: Runner) -> tuple[Tensor | None, dict[str, float]]:
        """Classify the validation images by the training images."""
        bank = self.each_image(runner, self.train_images)
        queries = self.each_image(runner, self.val_images)
        if not is_main_process():
            return None, {}
        targets = torch.from_numpy(self.train_images.labels.targets)
        return nearest_neighbour_probabilities(
            queries, bank, targets, self.k, self.temperature
        ), {}
