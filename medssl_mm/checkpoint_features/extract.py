"""Features of checkpoints for the images of a classification config.

Of the config only the network (``model.backbone`` and the data preprocessor)
and the data sets of the three loaders are used. All subsets go through the
pipeline of the test images, so nothing is augmented, and the network is in
evaluation mode.
"""

import copy
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor
from torch.utils.data import DataLoader

from medssl_mm import loaders
from medssl_mm.backbones import backbone_of
from medssl_mm.engine.hooks.calibrate_batch_norm_hook import (
    calibrate_batch_norm,
    calibration_batches,
)
from medssl_mm.engine.observing import own_randomness
from medssl_mm.engine.pretrained import PretrainedBackbone, load_pretrained_backbone
from medssl_mm.errors import UserError
from medssl_mm.functional.features import evaluation_mode
from medssl_mm.importers.run import file_digest
from medssl_mm.registry import DATASETS, FUNCTIONS, MODELS, build_of

from .cache import CachedFeatures, find_features, write_features
from .subsets import Subset
from .weights import Weights

# Settings of a data set that choose labels, or images, which are listed
# apart: features do not depend on them.
CHOICES = ('binary', 'fraction', 'fraction_seed', 'labelled', 'stratified')
# Raised whenever the way to compute features changes, so that cached ones of
# before are not taken.
FORMAT = 1


class CheckpointFeatures:
    """Pooled features of any checkpoint for the subsets of a config.

    Args:
        config (Config): Classification config.
        cache (str | Path): Folder of the features; see
            :mod:`medssl_mm.checkpoint_features.cache`.
        device (str): Defaults to 'cpu'.
        batch_size (int, optional): Images at a time. Defaults to None: as
            the test loader has it.
        num_workers (int, optional): Processes that load. Defaults to None:
            as the test loader has it.
        calibration_batches (int): Training batches that set the running
            statistics of random weights, as
            :class:`medssl_mm.engine.hooks.CalibrateBatchNormHook` does.
            Defaults to 20.
        progress (Callable, optional): Called with (what, done, total).
            Defaults to None.
        note (Callable, optional): Called with messages. Defaults to None.
    """

    def __init__(
        self,
        config: Config,
        cache: str | Path,
        device: str = 'cpu',
        batch_size: int | None = None,
        num_workers: int | None = None,
        calibration_batches: int = 20,
        progress: Callable[[str, int, int], None] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config
        # Absolute: worker processes may have another working directory.
        self.cache = Path(cache).absolute()
        self.device = device
        loader = self._loader('test')
        self.batch_size = batch_size or loader.get('batch_size') or 32
        self.num_workers = (
            loader.get('num_workers', 0) if num_workers is None else num_workers
        )
        self.calibration_batches = calibration_batches
        self.progress = progress or (lambda what, done, total: None)
        self.note = note or (lambda message: None)
        self._subsets: dict[str, Subset] = {}
        self._digests: dict[Path, str] = {}
        self._network: tuple[Weights, Any] | None = None

    # ---------------------------------------------------------------- data

    def subset(self, name: str) -> Subset:
        """Open a subset; a training subset with all its images.

        Raises:
            UserError: When the config has no such loader, or there are no
                images.
        """
        if name not in self._subsets:
            settings = _without_repetition(self._loader(name)['dataset'])
            for part in _innermost(settings):
                if 'fraction' in part:
                    part['fraction'] = 1.0
            self._subsets[name] = self._open(name, settings)
        return self._subsets[name]

    def fraction_of_config(self) -> tuple[float, int | None]:
        """Label fraction of the training loader, and its seed."""
        settings = _innermost(self._loader('train')['dataset'])[0]
        fraction = settings.get('fraction', 1.0)
        return fraction, (settings.get('fraction_seed', 0) if fraction < 1 else None)

    def rows_of_fraction(self, fraction: float, seed: int | None = None) -> np.ndarray:
        """Rows of the training subset that a label fraction keeps.

        The data set itself chooses them, so they are those of a fine-tuning
        with that fraction.

        Args:
            fraction (float): Share of the patients, 0-1.
            seed (int, optional): Seed of the choice. Defaults to None.

        Returns:
            np.ndarray: Row numbers.

        Raises:
            UserError: When the data set takes no fraction.
        """
        full = self.subset('train')
        if fraction == 1:
            return np.arange(len(full.image_ids))
        settings = _without_repetition(self._loader('train')['dataset'])
        for part in _innermost(settings):
            part.update(fraction=fraction, fraction_seed=seed or 0)
        try:
            kept = set(self._open('train', settings).image_ids)
        except TypeError as error:
            raise UserError(
                f'the training data set takes no fraction ({error}); leave '
                '--fractions out'
            ) from error
        return np.array(
            [row for row, name in enumerate(full.image_ids) if name in kept]
        )

    def _loader(self, name: str) -> Any:
        loader = self.config.get(f'{name}_dataloader')
        if not loader or not loader.get('dataset'):
            raise UserError(
                f'{self.config.filename} has no {name}_dataloader with a data '
                'set; use a classification config'
            )
        return loader

    def _open(self, name: str, settings: dict) -> Subset:
        pipelines = [
            part.get('pipeline') for part in _innermost(self._loader('test')['dataset'])
        ]
        for part in _innermost(settings):
            part['pipeline'] = copy.deepcopy(pipelines[0])
        with DefaultScope.overwrite_default_scope(
            self.config.get('default_scope', 'mmpretrain')
        ):
            dataset = build_of(DATASETS, settings, self.config.filename)
        infos = [dataset.get_data_info(row) for row in range(len(dataset))]
        if not infos:
            raise UserError(f'the {name} subset has no images')
        ids = [
            str(info.get('image_id') or info.get('img_path') or row)
            for row, info in enumerate(infos)
        ]
        owners = [info.get('patient_id') for info in infos]
        has_patients = None not in owners
        return Subset(
            name=name,
            dataset=dataset,
            settings=settings,
            image_ids=tuple(ids),
            patients=tuple(map(str, owners) if has_patients else ids),
            has_patients=has_patients,
            raw_labels=tuple(info.get('gt_label') for info in infos),
        )

    # ------------------------------------------------------------ features

    def features(
        self, weights: Weights, subset: str, kind: str = 'stages'
    ) -> CachedFeatures:
        """Compute the features, or find them in the cache.

        Args:
            weights (Weights): Of the backbone.
            subset (str): 'train', 'val' or 'test'.
            kind (str): 'stages' or 'blocks'. Defaults to 'stages'.

        Returns:
            CachedFeatures: All places.

        Raises:
            UserError: When the checkpoint does not fit the network.
        """
        images = self.subset(subset)
        description = self._describe(weights, images, kind)
        found = find_features(self.cache, description, self.note)
        if found is not None:
            return found
        return write_features(
            self.cache,
            description,
            images.image_ids,
            self._compute(weights, images, kind),
        )

    def _describe(self, weights: Weights, images: Subset, kind: str) -> dict:
        model = self._model_settings()
        backbone = dict(model['backbone'])
        backbone.pop('init_cfg', None)
        description = dict(
            format=FORMAT,
            kind=kind,
            weights=self._digest(weights),
            backbone=backbone,
            data_preprocessor=model.get('data_preprocessor'),
            **_describe_data(images),
        )
        if weights.path is None:
            # Random weights are calibrated on the training images.
            description['calibration'] = dict(
                num_batches=self.calibration_batches,
                batch_size=self.batch_size,
                **_describe_data(self.subset('train')),
            )
        # Plain data, as it comes back from a file.
        return json.loads(json.dumps(description, default=str))

    def _digest(self, weights: Weights) -> str:
        if weights.path is None:
            return weights.source
        if weights.path not in self._digests:
            self._digests[weights.path] = file_digest([str(weights.path)])
        return self._digests[weights.path]

    def _compute(
        self, weights: Weights, images: Subset, kind: str
    ) -> Iterator[dict[str, Tensor]]:
        model = self._load(weights)
        backbone = backbone_of(model.backbone)
        taps = backbone.feature_taps() if kind == 'stages' else backbone.block_taps()
        what = f'{weights.name}: {images.name}'
        done, total = 0, len(images.image_ids)
        self.progress(what, 0, total)
        with evaluation_mode(model), own_randomness():
            for batch in self._batches(images.dataset):
                inputs = model.data_preprocessor(batch, False)['inputs']
                done += len(inputs)
                yield backbone.pooled(inputs, taps)
                self.progress(what, done, total)

    def _batches(self, dataset: Any) -> DataLoader:
        loader = DataLoader(
            dataset,
            batch_size=self.batch_size,
            collate_fn=self._collate(),
            **loaders.worker_options(self.num_workers, 'test'),
        )
        return loaders.watch(loader, 'test', self._timeout())

    def _timeout(self) -> float:
        return loaders.timeout_of(self._loader('test'), self.config.get('env_cfg'))

    def _collate(self) -> Callable[[Sequence[Mapping]], dict]:
        settings = self._loader('test').get('collate_fn') or {}
        with DefaultScope.overwrite_default_scope(
            self.config.get('default_scope', 'mmpretrain')
        ):
            collate: Any = FUNCTIONS.get(settings.get('type', 'pseudo_collate'))
        return functools.partial(_collate_images, collate)

    # ------------------------------------------------------------- network

    def _model_settings(self) -> dict:
        model = copy.deepcopy(self.config.get('model') or {})
        if 'backbone' not in model:
            raise UserError(
                f'{self.config.filename} has no model.backbone; use a '
                'classification config'
            )
        shared = self.config.get('data_preprocessor')
        if shared is not None:
            model.setdefault('data_preprocessor', copy.deepcopy(shared))
        return model

    def _load(self, weights: Weights) -> Any:
        """Build and fill the network; the last one is kept."""
        if self._network is not None and self._network[0] == weights:
            return self._network[1]
        with (
            DefaultScope.overwrite_default_scope(
                self.config.get('default_scope', 'mmpretrain')
            ),
            own_randomness(weights.seed),
        ):
            model = build_of(MODELS, self._model_settings(), self.config.filename)
            if weights.path is None:
                # Random features need their residual branches.
                model.backbone.zero_init_residual = False
                torch.manual_seed(weights.seed)
                PretrainedBackbone()(model.backbone)
        if weights.path is not None:
            report = load_pretrained_backbone(model.backbone, weights.path)
            if report.encoder:
                self.note(
                    f'{weights.name}: the {report.encoder} encoder of {weights.path}, '
                    'which holds two'
                )
        model.requires_grad_(False)
        model.to(self.device)
        if weights.path is None:
            self._calibrate(model)
        self._network = weights, model
        return model

    def _calibrate(self, model: Any) -> None:
        batches = calibration_batches(
            self.subset('train').dataset,
            self.batch_size,
            self.calibration_batches,
            num_workers=self.num_workers,
            timeout=self._timeout(),
            collate_fn=self._collate(),
        )
        calibrate_batch_norm(model, model.backbone, batches)


def _collate_images(collate: Callable, samples: Sequence[Mapping]) -> dict:
    # Labels come in many forms, not all of which can be joined; features
    # need none.
    return collate([dict(inputs=sample['inputs']) for sample in samples])


def _innermost(settings: dict) -> list[dict]:
    """Configs of the data sets that wrappers are around."""
    if 'datasets' in settings:
        return [p for inner in settings['datasets'] for p in _innermost(inner)]
    if 'dataset' in settings:
        return _innermost(settings['dataset'])
    return [settings]


def _without_repetition(settings: dict) -> dict:
    """Copy a config of a data set, without wrappers that repeat images."""
    name = str(settings.get('type')).rpartition('.')[2]
    if name in ('RepeatDataset', 'ClassBalancedDataset'):
        return _without_repetition(settings['dataset'])
    return copy.deepcopy(settings)


def _describe_data(images: Subset) -> dict:
    settings = copy.deepcopy(images.settings)
    for part in _innermost(settings):
        for name in CHOICES:
            part.pop(name, None)
    lines = list(images.image_ids)
    store: Any = getattr(images.dataset, 'store', None)
    if hasattr(store, 'infos'):
        # An image set knows the content of its images.
        contents = {i.image_id: i.content_sha256 for i in store.infos()}
        lines = [f'{name} {contents.get(name)}' for name in lines]
    digest = hashlib.sha256('\n'.join(lines).encode())
    return dict(
        dataset=settings,
        protocol=images.protocol,
        split_hash=images.split_hash,
        images=digest.hexdigest(),
    )
