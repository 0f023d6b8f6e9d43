"""How well the features segment, while they are learned without labels."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn import functional as F

from medssl_mm.backbones import backbone_of
from medssl_mm.engine.hooks.probe_hook import ProbeHook
from medssl_mm.engine.observing import (
    evaluated_backbone,
    inner_model,
    own_randomness,
    prepared_images,
)
from medssl_mm.functional.distributed import is_main_process
from medssl_mm.functional.features import evaluation_mode
from medssl_mm.registry import DATASETS, HOOKS


@HOOKS.register_module()
class SegmentationProbeHook(ProbeHook):
    """Trains linear decoders beside the pretraining and reports their Dice.

    For each stage a 1x1 convolution on the standardised map of the
    backbone, in evaluation mode and without gradient. At every measurement it
    takes a few steps on labelled slices of training patients, starting from
    where it was, and predicts those of held-out patients. The scalars
    ``probe/stageN_Dice`` are the means over classes, other than background,
    of the mean over the cases that have the class; Dice of a case is that of
    all its slices here together.

    The pretraining is not altered in any bit. Decoders and their optimizer
    are saved in the checkpoint; a resumed run continues them exactly. Not in
    any config by default: it uses labels, so a run that is tuned by it is not
    free of them.

    Args:
        train_dataset (dict): Labelled slices of training patients. Samples
            as of ``medssl_mm.PackSlice``, all images and labels of one size:
            ``RandomCropView(size, scale=(1.0, 1.0), flip_prob=0.0)`` after
            both are loaded.
        val_dataset (dict): The same of other patients.
        stages (Sequence[int], optional): By number, see
            :mod:`medssl_mm.backbones`. Defaults to None: the last one.
        interval (int): Epochs between measurements. Defaults to 10.
        steps (int): Training steps of a measurement. Defaults to 50.
        batch_size (int): Slices in a step. Defaults to 16.
        num_train (int): Training slices, evenly spread. Defaults to 128.
        num_val (int): Held-out slices, evenly spread. Defaults to 256.
        lr (float): Learning rate of Adam. Defaults to 0.01.
        seed (int): Of the decoders' start and of the batches. Defaults to 0.
        encoder (str, optional): See :class:`ProbeHook`. Defaults to None.
    """

    key = 'segmentation_probe'

    def __init__(
        self,
        train_dataset: dict,
        val_dataset: dict,
        stages: Sequence[int] | None = None,
        interval: int = 10,
        steps: int = 50,
        batch_size: int = 16,
        num_train: int = 128,
        num_val: int = 256,
        lr: float = 0.01,
        seed: int = 0,
        encoder: str | None = None,
    ) -> None:
        super().__init__(encoder)
        self.require_positive(
            interval=interval,
            steps=steps,
            batch_size=batch_size,
            num_train=num_train,
            num_val=num_val,
        )
        if stages is not None and (not stages or min(stages) < 1):
            raise self.error(f'stages count from 1 on, got {stages}')
        self.datasets = dict(train=train_dataset, val=val_dataset)
        self.counts = dict(train=num_train, val=num_val)
        self.stages = stages
        self.interval = interval
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.seed = seed
        self._slices: dict[str, dict[str, Any]] = {}
        self._decoders = nn.ModuleDict()  # empty until the first measurement
        self._optimizer: torch.optim.Optimizer

    @property
    def scored_dataset(self) -> Mapping:
        """The slices of ``val_dataset``."""
        return self.datasets['val']

    def after_train_epoch(self, runner: Runner) -> None:
        """Measure at the end of every ``interval`` epochs."""
        if not self.every_n_epochs(runner, self.interval):
            return
        if not is_main_process():
            return
        with own_randomness(self.seed):
            self._measure(runner)

    def state(self) -> dict | None:
        """Decoders and optimizer."""
        if not self._decoders:
            return None
        return dict(
            decoders=self._decoders.state_dict(),
            optimizer=self._optimizer.state_dict(),
        )

    def _measure(self, runner: Runner) -> None:
        model = inner_model(runner)
        if not self._slices:
            self._slices = self._load()
        with evaluation_mode(model), torch.no_grad():
            features = {
                subset: self._encode(model, content['images'])
                for subset, content in self._slices.items()
            }
        if not self._decoders:
            self._build(features['train'])
        self._train(features['train'], runner.iter)
        scores = self._score(features['val'])
        runner.visualizer.add_scalars(
            {
                f'probe/{place}_Dice': score
                for place, score in scores.items()
                if np.isfinite(score)
            },
            step=runner.iter,
        )
        text = ', '.join(f'{p} {score:.3f}' for p, score in scores.items())
        runner.logger.info(f'Dice of the linear probe: {text}')

    def _load(self) -> dict[str, dict[str, Any]]:
        loaded: dict[str, dict[str, Any]] = {}
        for subset, settings in self.datasets.items():
            dataset = DATASETS.build(settings)
            count = min(self.counts[subset], len(dataset))
            order = np.linspace(0, len(dataset) - 1, count).round()
            samples = [dataset[int(index)] for index in order]
            meta = [s['data_samples'].metainfo for s in samples]
            images = [s['inputs'] for s in samples]
            labels = [s['data_samples'].gt_sem_seg.data[0] for s in samples]
            stacked = self.stacked(
                images,
                labels,
                'images and labels',
                'put RandomCropView into the pipeline after both are loaded',
            )
            loaded[subset] = dict(
                images=stacked,
                labels=torch.stack(labels).long(),
                cases=[m['case_id'] for m in meta],
                patients={m.get('patient_id', m['case_id']) for m in meta},
            )
            self.num_classes = len(dataset.metainfo['classes'])
        self.refuse_shared_patients(
            loaded['train']['patients'], loaded['val']['patients']
        )
        return loaded

    def _encode(self, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
        backbone = backbone_of(evaluated_backbone(model, self.encoder))
        stages = self.stages or [backbone.last]
        parts: dict[str, list[Tensor]] = {}
        for chunk in images.split(self.batch_size):
            maps = backbone.maps(prepared_images(model, chunk), stages)
            for stage, level in maps.items():
                parts.setdefault(backbone.names[stage], []).append(level.float())
        return {place: torch.cat(levels) for place, levels in parts.items()}

    def _build(self, features: Mapping[str, Tensor]) -> None:
        torch.manual_seed(self.seed)  # the generators are put back later
        self._decoders = nn.ModuleDict(
            {
                place: nn.Sequential(
                    nn.BatchNorm2d(level.shape[1], affine=False),
                    nn.Conv2d(level.shape[1], self.num_classes, 1),
                ).to(level.device)
                for place, level in features.items()
            }
        )
        self._optimizer = torch.optim.Adam(self._decoders.parameters(), lr=self.lr)
        saved = self.take_saved()
        if saved is not None:
            self._decoders.load_state_dict(saved['decoders'])
            self._optimizer.load_state_dict(saved['optimizer'])

    def _logits(
        self, features: Mapping[str, Tensor], chosen: Tensor, size: Sequence[int]
    ) -> Iterator[tuple[str, Tensor]]:
        for place, decoder in self._decoders.items():
            logits = decoder(features[place][chosen])
            yield (
                place,
                F.interpolate(logits, size, mode='bilinear', align_corners=False),
            )

    def _train(self, features: Mapping[str, Tensor], iteration: int) -> None:
        labels = self._slices['train']['labels']
        rng = np.random.default_rng((self.seed, iteration))
        self._decoders.train()
        for _ in range(self.steps):
            chosen = torch.from_numpy(
                rng.choice(
                    len(labels), min(self.batch_size, len(labels)), replace=False
                )
            )
            target = labels[chosen]
            loss = torch.zeros((), device=next(iter(features.values())).device)
            for _, logits in self._logits(features, chosen, target.shape[-2:]):
                loss = loss + F.cross_entropy(
                    logits, target.to(logits.device), ignore_index=255
                )
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        self._optimizer.zero_grad()

    @torch.no_grad()
    def _score(self, features: Mapping[str, Tensor]) -> dict[str, float]:
        content = self._slices['val']
        labels, cases = content['labels'], content['cases']
        self._decoders.eval()
        # Per place and case: intersection and sum of sizes of each class.
        counts: dict[str, dict[str, np.ndarray]] = {place: {} for place in features}
        for chosen in torch.arange(len(labels)).split(self.batch_size):
            target = labels[chosen]
            for place, logits in self._logits(features, chosen, target.shape[-2:]):
                found = logits.argmax(1).cpu()
                for index, guess, truth in zip(chosen.tolist(), found, target):
                    case = counts[place].setdefault(
                        cases[index], np.zeros((3, self.num_classes))
                    )
                    case += class_counts(guess, truth, self.num_classes)
        return {
            place: mean_dice(np.stack(list(of_case.values())))
            for place, of_case in counts.items()
        }


def class_counts(guess: Tensor, truth: Tensor, num_classes: int) -> np.ndarray:
    """Count the pixels of each class: in both, guessed, true.

    Shape: ``(H, W)`` twice, integer -> ``(3, num_classes)``.
    """
    known = truth != 255
    guess, truth = guess[known], truth[known]
    parts = (guess[guess == truth], guess, truth)
    return np.stack(
        [np.bincount(part.numpy(), minlength=num_classes) for part in parts]
    )


def mean_dice(counts: np.ndarray) -> float:
    """Average the Dice of cases that have a class, then the classes.

    Background, class 0, is left out.

    Args:
        counts (np.ndarray): Sums of ``class_counts`` of each case.

    Shape: ``(cases, 3, num_classes)`` -> a number; nan without any class.
    """
    both, guessed, true = (counts[:, part, 1:] for part in range(3))
    means = [
        (2 * both[has, c] / (guessed[has, c] + true[has, c])).mean()
        for c, has in enumerate((true > 0).T)
        if has.any()
    ]
    return float(np.mean(means)) if means else float('nan')
