"""What the probes by classified images have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn

from medssl_mm import loaders
from medssl_mm.analysis.classification_scores import classification_scores
from medssl_mm.backbones import Backbone, backbone_of
from medssl_mm.engine.hooks.probe_hook import ProbeHook, listed
from medssl_mm.engine.hooks.probe_images import (
    ProbeImages,
    incomparable_sets,
    load_batches,
    open_images,
    patients_in,
    shared_patients,
)
from medssl_mm.engine.log_processor import PROBES
from medssl_mm.engine.observing import (
    evaluated_backbone,
    inner_model,
    own_randomness,
    pooled_features,
    seed_of,
)
from medssl_mm.functional.distributed import (
    gather_objects,
    is_main_process,
    rank,
    unify_buffers,
    world_size,
)
from medssl_mm.functional.features import evaluation_mode
from medssl_mm.loaders import first_of_views
from medssl_mm.statistics import Predictions
from medssl_mm.statistics.labels import Labels
from medssl_mm.store.known import picture_source


class ImageProbeHook(ProbeHook):
    """Scores how well pooled features tell the classes of labelled images.

    The features are the means over all positions of the last map of the
    encoder, computed in the precision of the run. Scores of each measurement
    are written as ``probe/NAME_SCORE`` to the visualizer (TensorBoard,
    ``scalars.json``), to the log, and in its progress lines; those of the
    encoder before its first step, measured then, are the zero line that they
    are shown beside. A class that no validation image has, or all have, has no
    such score: it is named once, and left out.

    With several processes the images are shared out among them.

    Args:
        train_dataset (dict): Labelled images to learn from.
        val_dataset (dict): Labelled images to score, each of them once, of other
            patients. Sample dicts have ``inputs``: one image, or views of which
            the first is taken; labels and patients are asked of the data set
            (``get_data_info``: gt_label, patient_id).
        name (str): What the scores, and the entry in a checkpoint, are called.
        interval (int): Epochs, or iterations, between measurements; the last
            one is at the end. Defaults to 1.
        by_epoch (bool): Whether the interval is one of epochs. Defaults to
            True.
        eval_batch_size (int): Images of a process at a time where nothing is
            learned. Defaults to 64.
        num_workers (int): Processes that load images. Defaults to 1.
        seed (int): Of everything random. Defaults to 0.
        encoder (str, optional): See :class:`ProbeHook`. Defaults to None.
    """

    # After the step and before the line of the log that tells of it.
    priority = 'NORMAL'

    def __init__(
        self,
        train_dataset: Mapping,
        val_dataset: Mapping,
        name: str,
        interval: int = 1,
        by_epoch: bool = True,
        eval_batch_size: int = 64,
        num_workers: int = 1,
        seed: int = 0,
        encoder: str | None = None,
    ) -> None:
        super().__init__(encoder)
        self.require_positive(interval=interval, eval_batch_size=eval_batch_size)
        if num_workers < 0 or seed < 0:
            raise self.error(
                f'num_workers and seed must be 0 or more, got {num_workers} and {seed}'
            )
        if not name.isidentifier():
            raise self.error(
                f'name is made of letters, digits and _, and no digit is first; '
                f'got {name!r}'
            )
        self.settings = dict(train_dataset=train_dataset, val_dataset=val_dataset)
        self.name = name
        self.interval = interval
        self.by_epoch = by_epoch
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.start_scores: dict[str, float] = {}
        self.train_images: ProbeImages
        self.val_images: ProbeImages

    @property
    def key(self) -> str:
        """Name of the probe's entry in a checkpoint."""
        return f'{self.name}_probe'

    @property
    def scored_dataset(self) -> Mapping:
        """The images of ``val_dataset``."""
        return self.settings['val_dataset']

    # ------------------------------------------------------------- the run

    def before_train(self, runner: Runner) -> None:
        """Look at the data; measure the encoder before its first step."""
        with own_randomness(seed_of(self.seed)):
            self._check_settings(runner)
            self._open(runner)
            if runner.iter and self._saved is None:
                runner.logger.warning(
                    f'{self.name} probe: the checkpoint holds nothing of it; it '
                    'starts anew, without a zero line'
                )
            self.prepare(runner)
            if not runner.iter:
                self._report(runner, self.start_measurement(runner), 0)

    def after_train_epoch(self, runner: Runner) -> None:
        """Measure at the end of every ``interval`` epochs, and of the run."""
        if self.by_epoch and (
            self.every_n_epochs(runner, self.interval)
            or self.is_last_train_epoch(runner)
        ):
            self._measure(runner, runner.iter)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: object = None,
    ) -> None:
        """Measure after every ``interval`` iterations, and of the run."""
        if not self.by_epoch and (
            self.every_n_train_iters(runner, self.interval)
            or self.is_last_train_iter(runner)
        ):
            self._measure(runner, runner.iter + 1)

    # ------------------------------------- what the kinds of probes differ in

    def prepare(self, runner: Runner) -> None:
        """Get ready, once the data are open; take what a resumed run knew."""

    @abstractmethod
    def measurement(self, runner: Runner) -> tuple[Tensor | None, dict[str, float]]:
        """Predict the validation images.

        Called on every process with the generators seeded, and in the autocast
        of nothing.

        Returns:
            tuple: Probabilities ``(images, classes)`` on the main process, and
            further scores.
        """

    def start_measurement(
        self, runner: Runner
    ) -> tuple[Tensor | None, dict[str, float]]:
        """Predict with the encoder as it starts, for the zero line."""
        return self.measurement(runner)

    # ------------------------------------------------------------ features

    @contextmanager
    def looking(self, runner: Runner) -> Iterator[Callable[[Sequence[Tensor]], Tensor]]:
        """Give a function from images to pooled features, as they are evaluated.

        The encoder is in evaluation mode. With several processes it has the
        running statistics of all of them, as a checkpoint would; afterwards
        each its own again.
        """
        network = self.backbone(runner).network
        with evaluation_mode(network), _joint_statistics(network):
            yield lambda images: self.features(runner, images)

    def features(self, runner: Runner, images: Sequence[Tensor]) -> Tensor:
        """Pool the features of a batch, in whatever mode the encoder is.

        Shape: images ``(C, H, W)`` each. Returns ``(N, D)``, float32, without
        gradient.
        """
        batch = self.stacked(images, remedy='resize them in the pipeline of the probe')
        with _precision(runner):
            return pooled_features(inner_model(runner), self.backbone(runner), batch)

    def backbone(self, runner: Runner) -> Backbone:
        """Return the backbone of the encoder that is looked at."""
        return backbone_of(evaluated_backbone(inner_model(runner), self.encoder))

    def each_image(
        self,
        runner: Runner,
        images: ProbeImages,
        keep: Callable[[Tensor], Tensor] = lambda features: features,
    ) -> Tensor:
        """Go through a data set once, each process through its share.

        Args:
            runner (Runner): Of the pretraining.
            images (ProbeImages): The data set.
            keep (Callable): From pooled features to what is kept of them.
                Defaults to the features.

        Shape: returns ``(images, ...)`` on the CPU, in the order of the data set,
            on every process.
        """
        share = range(rank(), len(images), world_size())
        size = self.eval_batch_size
        batches = [list(share[i : i + size]) for i in range(0, len(share), size)]
        with self.looking(runner) as features, torch.no_grad():
            kept = [
                keep(features(pictures)).cpu()
                for _, pictures in self.batches(runner, images, batches)
            ]
        parts = gather_objects(torch.cat(kept) if kept else None)
        found = parts[0].new_empty(len(images), *parts[0].shape[1:])
        for number, part in enumerate(parts):
            if part is not None:
                found[number :: world_size()] = part
        return found

    def batches(
        self, runner: Runner, images: ProbeImages, rows: Iterable[Sequence[int]]
    ) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Load images in given batches of rows; see :func:`load_batches`."""
        return load_batches(
            images,
            rows,
            self.num_workers,
            f'{self.name} probe',
            type(self).__name__,
            loaders.timeout_of({}, runner.cfg.get('env_cfg')),
            seed_of(self.seed, rank()),
        )

    # -------------------------------------------------------------- scores

    def _measure(self, runner: Runner, iteration: int) -> None:
        with own_randomness(seed_of(self.seed, iteration)):
            self._report(runner, self.measurement(runner), iteration)

    def _report(
        self,
        runner: Runner,
        measured: tuple[Tensor | None, dict[str, float]],
        iteration: int,
    ) -> None:
        probabilities, scores = measured
        if probabilities is None or not is_main_process():
            return
        if not probabilities.isfinite().all():
            # Stopping is the business of FiniteLossHook.
            runner.logger.warning(
                f'{self.name} probe: features of val_dataset are not finite after '
                f'iteration {iteration}: no scores'
            )
            return
        scores = {**self._score(probabilities), **scores}
        scores = {name: value for name, value in scores.items() if np.isfinite(value)}
        runner.visualizer.add_scalars(
            {f'probe/{self.name}_{score}': value for score, value in scores.items()},
            step=iteration,
        )
        parts = [f'{score} {self._beside_start(scores, score)}' for score in scores]
        runner.logger.info(
            f'{self.name} probe after iteration {iteration}: ' + ', '.join(parts)
        )
        if headline := self._headline(scores):
            lines = dict(runner.message_hub.runtime_info.get(PROBES) or {})
            lines[self.name] = (
                f'{self.name} {headline} {self._beside_start(scores, headline)}'
            )
            runner.message_hub.update_info(PROBES, lines)
        if iteration == 0:
            self.start_scores = scores

    def _score(self, probabilities: Tensor) -> dict[str, float]:
        labels = self.val_images.labels
        nobody = ('',) * len(labels.targets)  # patients do not matter here
        predictions = Predictions(
            labels.classes,
            labels.multi_label,
            nobody,
            nobody,
            labels.targets,
            probabilities.double().cpu().numpy(),
        )
        return classification_scores(predictions)

    def _beside_start(self, scores: Mapping[str, float], score: str) -> str:
        start = self.start_scores.get(score)
        beside = '' if start is None else f' (start {start:.3f})'
        return f'{scores[score]:.3f}{beside}'

    def _headline(self, scores: Mapping[str, float]) -> str:
        labels = self.val_images.labels
        ranked = labels.multi_label or len(labels.classes) == 2
        wanted = 'macro_AUROC' if ranked else 'accuracy'
        return wanted if wanted in scores else next(iter(scores), '')

    # -------------------------------------------------------------- checks

    def _check_settings(self, runner: Runner) -> None:
        names = [hook.key for hook in runner.hooks if isinstance(hook, ProbeHook)]
        if names.count(self.key) > 1:
            raise self.error(
                f'two probes are called {self.name!r}; give each a name of its own'
            )
        if self.by_epoch and not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise self.error(
                f'interval={self.interval} counts epochs, but the run counts '
                'iterations; set by_epoch=False and interval to iterations'
            )

    def _open(self, runner: Runner) -> None:
        train, val = (open_images(s, name) for name, s in self.settings.items())
        self.train_images, self.val_images = train, val
        if (train.labels.classes, train.labels.multi_label) != (
            val.labels.classes,
            val.labels.multi_label,
        ):
            raise self.error(
                f'train_dataset has the classes {list(train.labels.classes)}, '
                f'val_dataset {list(val.labels.classes)}; both must be the same, with '
                'one label per image or several in both'
            )
        # Of one data set, or of two that may show the same people.
        shared = shared_patients(train.patients, val.patients)
        self.refuse_shared_patients(shared, shared)
        self._check_classes(runner)
        self._check_images(runner)
        if is_main_process():
            self._warn_of_pretrained_patients(runner)

    def _warn_of_pretrained_patients(self, runner: Runner) -> None:
        patients = self.val_images.patients
        pretrained = patients_in(runner.train_dataloader.dataset)
        shared = shared_patients(patients, pretrained)
        if shared:
            number = sum(map(len, patients.values()))
            runner.logger.warning(
                f'{self.name} probe: {len(shared)} of the {number} patients '
                f'of val_dataset are patients of the pretraining, too '
                f'({listed(shared)}), which sees their images, if without labels. '
                'Pretrain on a subset without them, unless the two data sets merely '
                'name different patients alike'
            )
        for name, other in incomparable_sets(patients, pretrained):
            taken = other if picture_source(name) == name else name
            runner.logger.warning(
                f'{self.name} probe: {name} (val_dataset) and {other} (pretraining) '
                'have pictures of one source, but name their patients otherwise: the '
                'pretraining may see images of val_dataset, if without labels. Import '
                f'{taken} with the names of {picture_source(taken)} '
                f'(tools/prepare_data.py {taken} --patients FILE), so that they can be '
                'compared'
            )

    def _check_classes(self, runner: Runner) -> None:
        train, val = self.train_images.labels, self.val_images.labels
        both = _values(train.targets)
        if both.sum() < (1 if train.multi_label else 2):
            raise self.error(
                f'all {len(train.targets)} images of train_dataset have the same '
                f'labels ({", ".join(_present(train)) or "none"}): there is nothing to '
                'learn; take another subset or split'
            )
        for setting, labels in (('train_dataset', train), ('val_dataset', val)):
            lacking = [
                name
                for name, has_both in zip(labels.classes, _values(labels.targets))
                if not has_both
            ]
            if lacking and is_main_process():
                what = 'learned' if labels is train else 'scored but by accuracy'
                runner.logger.warning(
                    f'{self.name} probe: {", ".join(lacking)}: present in no image of '
                    f'{setting}, or in all; cannot be {what}, and means over classes '
                    'leave it out'
                )

    def _check_images(self, runner: Runner) -> None:
        shapes = {}
        for images in (self.train_images, self.val_images):
            sample = images.dataset[0]['inputs']
            shape = tuple(first_of_views(sample).shape)
            shapes[images.setting] = shape, images.name_of(0)
        sample = runner.train_dataloader.dataset[0]
        if not isinstance(sample, dict) or 'inputs' not in sample:
            return
        channels, *size = first_of_views(sample['inputs']).shape
        for setting, (found, first) in shapes.items():
            if found[0] != channels:
                raise self.error(
                    f'images of {setting} have {found[0]} channel(s) ({first}), those '
                    f'of the pretraining {channels}; take data of the same kind, or '
                    'convert them in the pipeline (TorchvisionSteps with Grayscale)'
                )
            if list(found[1:]) != size and is_main_process():
                runner.logger.warning(
                    f'{self.name} probe: images of {setting} are '
                    f'{found[1]} x {found[2]} px ({first}), views of the pretraining '
                    f'{size[0]} x {size[1]}: the features are judged at another scale '
                    f'than they are learned at. Bring them to {size[0]} x {size[1]} in '
                    'the pipeline of the probe (ResizeAndPad, or TorchvisionSteps with '
                    'Resize and CenterCrop), or take the part of '
                    'configs/selfsup/_base_/probes of that size'
                )


def _values(targets: np.ndarray) -> np.ndarray:
    """Whether some images have a class and others have not. Shape: (classes,)."""
    return np.logical_and(targets.any(0), ~targets.all(0))


def _present(labels: Labels) -> list[str]:
    some = np.atleast_1d(labels.targets.any(0))
    return [name for name, present in zip(labels.classes, some) if present]


@contextmanager
def _precision(runner: Runner) -> Iterator[None]:
    """Compute as the run does, under its autocast if it has one."""
    wrapper = runner.optim_wrapper
    if not isinstance(wrapper, OptimWrapper):  # several of them
        yield
        return
    with wrapper.optim_context(runner.model):
        yield


@contextmanager
def _joint_statistics(module: nn.Module) -> Iterator[None]:
    """Give a module the mean of all processes' buffers for a while."""
    if world_size() == 1:
        yield
        return
    own = [
        (buffer, buffer.clone())
        for buffer in module.buffers()
        if buffer.is_floating_point()
    ]
    unify_buffers(module)
    try:
        yield
    finally:
        for buffer, before in own:
            buffer.copy_(before)
