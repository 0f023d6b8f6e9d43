"""A linear classifier that learns beside the pretraining."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import BatchSampler

from medssl_mm.engine.hooks.image_probe_hook import ImageProbeHook
from medssl_mm.engine.hooks.linear_classifier import LinearClassifier
from medssl_mm.engine.observing import own_randomness, seed_of
from medssl_mm.functional.distributed import (
    is_main_process,
    rank,
    world_size,
)
from medssl_mm.functional.features import in_mode
from medssl_mm.functional.linear_probe import balanced_weights
from medssl_mm.registry import DATA_SAMPLERS, HOOKS

MODES = ('eval', 'train')
# Steps on the features of the untrained encoder, at most: some seconds.
_MOST_START_STEPS = 10_000


@HOOKS.register_module()
class OnlineProbeHook(ImageProbeHook):
    """Trains a linear classifier on the features, a batch per training step.

    Dropout and a linear layer on the pooled features, which get no gradient,
    with an Adam optimizer of its own. Its images come from a data set and a
    loader of their own, which begins anew as often as needed: an epoch is one
    pass of the pretraining data, whichever of the two is longer.

    The pretraining is not altered in any bit (but see ``encoder_mode``).
    Classifier, optimizer and place in the data are saved; a resumed run
    continues them exactly, if the transforms draw from the sample's own
    generator as those of this package do, or ``num_workers=0``.

    Before the first step another classifier of the same kind takes
    ``start_steps`` steps on the features of the encoder as it is then, which
    are computed once, in the order in which the probe will see the images. Its
    scores are the zero line: what a random (or loaded) encoder is worth.

    The online linear evaluator of `InnerEye-DeepLearning
    <https://github.com/microsoft/InnerEye-DeepLearning>`_; differs from it in
    the evaluation mode of the encoder (``encoder_mode='train'``: as there), the
    limit on the gradient (``max_grad_norm=None``: as there) and the zero line; and
    BYOL's target has followed the step when the probe looks, there it follows then.

    Not in any config by default: a run that is tuned by it is not free of
    labels.

    Args:
        train_dataset (dict): See :class:`ImageProbeHook`; may be augmented.
        val_dataset (dict): The same of other patients, not augmented.
        batch_size (int): Images of a step, of every process. Defaults to 16.
        dropout (float): Share of the features that a step leaves out. Defaults
            to 0.2.
        lr (float): Learning rate of Adam. Defaults to 1e-4.
        weight_decay (float): Of Adam, added to the gradient. Defaults to 1e-4.
        max_grad_norm (float, optional): Length that a longer gradient is
            shortened to. While the encoder begins to learn, its running
            statistics lag behind, and features may be thousands of times larger
            than later: without a limit Adam would remember their gradients for
            thousands of steps, and hardly move. None: no limit, as the original.
            Defaults to 1.0.
        class_weights (str | Sequence[float], optional): 'balanced': by
            frequency, see
            :func:`medssl_mm.functional.linear_probe.balanced_weights`, counted
            over train_dataset and val_dataset together; or a weight per class
            (one label per image). Defaults to None: all equal.
        encoder_mode (str): 'eval': the encoder normalises by its running
            statistics. 'train': by those of the probe's batch, which also enter
            its running statistics: the checkpoints then differ from those of
            a pretraining without the probe. Defaults to 'eval'.
        start_steps (int, optional): See above; 0: no zero line. Defaults to
            None: as many as the run has, at most 10000.
        name (str): See :class:`ImageProbeHook`. Defaults to 'online'.
        **kwargs: Further arguments of :class:`ImageProbeHook`.
    """

    def __init__(
        self,
        train_dataset: Mapping,
        val_dataset: Mapping,
        batch_size: int = 16,
        dropout: float = 0.2,
        lr: float = 1e-4,
        weight_decay: float = 1e-4,
        max_grad_norm: float | None = 1.0,
        class_weights: str | Sequence[float] | None = None,
        encoder_mode: str = 'eval',
        start_steps: int | None = None,
        name: str = 'online',
        **kwargs: Any,
    ) -> None:
        super().__init__(train_dataset, val_dataset, name, **kwargs)
        self.require_positive(batch_size=batch_size)
        if not 0 <= dropout < 1:
            raise self.error(f'dropout is a share from 0 to below 1, got {dropout}')
        if lr <= 0 or weight_decay < 0 or (start_steps or 0) < 0:
            raise self.error(
                'lr must be above 0, weight_decay and start_steps at least 0; got '
                f'{lr}, {weight_decay} and {start_steps}'
            )
        if max_grad_norm is not None and max_grad_norm <= 0:
            raise self.error(f'max_grad_norm must be above 0, got {max_grad_norm}')
        if isinstance(class_weights, str) and class_weights != 'balanced':
            raise self.error(
                "class_weights is 'balanced', a number per class or None, got "
                f'{class_weights!r}'
            )
        if encoder_mode not in MODES:
            raise self.error(f'encoder_mode is one of {MODES}, got {encoder_mode!r}')
        self.batch_size = batch_size
        self.dropout = dropout
        self.lr = lr
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.class_weights = class_weights
        self.encoder_mode = encoder_mode
        self.start_steps = start_steps
        #: Images that the classifier has seen, of all processes.
        self.images_seen = 0
        self.classifier: LinearClassifier
        self._targets: Tensor
        self._stream: Iterator[tuple[list[int], list[Tensor]]] | None = None
        self._warned = False

    def state(self) -> dict | None:
        """Classifier, optimizer, place in the data, and the zero line."""
        if not hasattr(self, 'classifier'):
            return None
        return dict(
            **self.classifier.state_dict(),
            images_seen=self.images_seen,
            start_scores=self.start_scores,
        )

    def prepare(self, runner: Runner) -> None:
        """Make the classifier, or take that of the run that is resumed."""
        self.classifier = self._new_classifier(runner)
        self._targets = torch.from_numpy(self.train_images.labels.targets)
        saved = self.take_saved()
        if saved is not None:
            try:
                self.classifier.load_state_dict(saved)
            except RuntimeError as error:
                raise self.error(
                    f'the checkpoint holds a classifier of other features or classes: '
                    f'{error}; resume with the data of before, or give the probe '
                    'another name to start anew'
                ) from error
            self.images_seen = saved['images_seen']
            self.start_scores = saved['start_scores']

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: object = None,
    ) -> None:
        """Let the classifier learn from a batch of its own."""
        # Dropout differs from process to process, as the images do.
        with own_randomness(seed_of(self.seed, runner.iter, rank())):
            if self._stream is None:
                self._stream = self._start_stream(runner)
            rows, images = next(self._stream)
            with in_mode(self.backbone(runner).network, self.encoder_mode == 'train'):
                features = self.features(runner, images)
            targets = self._targets[rows].to(features.device)
            loss = self.classifier.learn(features, targets)
        self.images_seen += self.batch_size * world_size()
        if math.isfinite(loss):
            runner.message_hub.update_scalar(f'train/{self.name}_probe_loss', loss)
        elif not self._warned and is_main_process():
            self._warned = True
            runner.logger.warning(
                f'{self.name} probe: the features of iteration {runner.iter + 1} are '
                'not finite; the classifier does not learn from such batches'
            )
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_train(self, runner: Runner) -> None:
        """Let the loader's workers end."""
        self._stream = None

    # -------------------------------------------------------- measurements

    def measurement(self, runner: Runner) -> tuple[Tensor | None, dict[str, float]]:
        """Classify the validation images."""
        classifier = self.classifier
        logits = self.each_image(runner, self.val_images, classifier.logits)
        return self._outcome(classifier, logits)

    def start_measurement(
        self, runner: Runner
    ) -> tuple[Tensor | None, dict[str, float]]:
        """Classify them by the features of the encoder as it starts."""
        steps = self.start_steps
        if steps is None:
            steps = min(runner.max_iters, _MOST_START_STEPS)
        if not steps:
            return None, {}
        train = self.each_image(runner, self.train_images)
        val = self.each_image(runner, self.val_images)
        if not is_main_process():
            return None, {}
        classifier = self._new_classifier(runner)
        device = next(classifier.head.parameters()).device
        train, targets = train.to(device), self._targets.to(device)
        batches = _joint_batches(self._sampler(), self.batch_size * world_size())
        for rows in islice(batches, steps):
            classifier.learn(train[rows], targets[rows], lambda own: own)
        return self._outcome(classifier, classifier.logits(val.to(device)).cpu())

    def _outcome(
        self, classifier: LinearClassifier, logits: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        targets = torch.from_numpy(self.val_images.labels.targets)
        probabilities, loss = classifier.evaluate(logits, targets)
        return probabilities, dict(loss=loss)

    # ----------------------------------------------------------- classifier

    def _new_classifier(self, runner: Runner) -> LinearClassifier:
        backbone = self.backbone(runner)
        device = next(backbone.network.parameters()).device
        labels = self.train_images.labels
        return LinearClassifier(
            backbone.channels[backbone.last],
            len(labels.classes),
            labels.multi_label,
            self._find_weights(device),
            self.dropout,
            self.lr,
            self.weight_decay,
            self.max_grad_norm,
            self.seed,
            device,
        )

    def _find_weights(self, device: torch.device) -> Tensor | None:
        given = self.class_weights
        if given is None:
            return None
        labels = self.train_images.labels
        if not isinstance(given, str):
            if labels.multi_label or len(given) != len(labels.classes):
                raise self.error(
                    f'class_weights has {len(given)} numbers; give one per class '
                    f'({", ".join(labels.classes)}), for data with one label per '
                    "image, or 'balanced'"
                )
            return torch.tensor(given, dtype=torch.float32, device=device)
        targets = np.concatenate([labels.targets, self.val_images.labels.targets])
        try:
            weights = balanced_weights(torch.from_numpy(targets), labels.multi_label)
        except ValueError as error:
            counts = dict(zip(labels.classes, targets.sum(0).tolist()))
            raise self.error(
                f"class_weights='balanced' needs images with and without every class; "
                f'of {len(targets)} images there are {counts}. Take a larger subset, '
                'or class_weights=None'
            ) from error
        return weights.float().to(device)

    # ------------------------------------------------------------- the data

    def _start_stream(self, runner: Runner) -> Iterator[tuple[list[int], list[Tensor]]]:
        sampler = self._sampler()
        sampler.skip(self.images_seen // world_size())
        batches = BatchSampler(sampler, self.batch_size, drop_last=False)
        return self.batches(runner, self.train_images, batches)

    def _sampler(self) -> Any:
        return DATA_SAMPLERS.build(
            dict(
                type='medssl_mm.ResumableSampler',
                dataset=self.train_images.dataset,
                seed=self.seed,
                infinite=True,
            )
        )


def _joint_batches(sampler: Any, size: int) -> Iterator[np.ndarray]:
    """Batches of all processes together, in the order of the sampler."""
    waiting: np.ndarray = np.empty(0, np.int64)
    for epoch in count():
        waiting = np.concatenate([waiting, sampler.epoch_order(epoch)])
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
