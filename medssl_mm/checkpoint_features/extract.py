"""Features of encoders for the images of a config, computed once.

Of a classification config only the network (``model.backbone`` and the data
preprocessor) and the data sets of the three loaders are used. All subsets go
through the pipeline of the test images, so nothing is augmented, and the
network is in evaluation mode. An encoder by name brings its own network and
its own preprocessing of plain pictures.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from medssl_mm import loaders
from medssl_mm.backbones import set_common_stride
from medssl_mm.engine.hooks.calibrate_batch_norm_hook import (
    calibrate_batch_norm,
    calibration_batches,
)
from medssl_mm.engine.observing import own_randomness
from medssl_mm.errors import UserError
from medssl_mm.functional.features import evaluation_mode

from .cache import CachedFeatures, find_features, write_features
from .encoder import ConfigEncoder, Encoder, NamedEncoder
from .images import ImageSubsets
from .subsets import Subset
from .weights import Weights

# Raised whenever the way to compute features changes, so that cached ones of
# before are not taken.
FORMAT = 1


class EncoderFeatures:
    """Pooled features of any encoder for the subsets of some images.

    Args:
        images (ImageSubsets): The data sets.
        cache (str | Path): Folder of the features; see
            :mod:`medssl_mm.checkpoint_features.cache`.
        device (str): Defaults to 'cpu'.
        batch_size (int, optional): Images at a time. Defaults to None: as
            the test loader has it.
        num_workers (int, optional): Processes that load. Defaults to None:
            as the test loader has it.
        calibration_batches (int): Training batches that set the running
            statistics of random weights, as
            :class:`medssl_mm.engine.hooks.CalibrateBatchNormHook` does; 0:
            they stay at 0 and 1. Defaults to 20.
        progress (Callable, optional): Called with (what, done, total).
            Defaults to None.
        note (Callable, optional): Called with messages. Defaults to None.
    """

    def __init__(
        self,
        images: ImageSubsets,
        cache: str | Path,
        device: str = 'cpu',
        batch_size: int | None = None,
        num_workers: int | None = None,
        calibration_batches: int = 20,
        progress: Callable[[str, int, int], None] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.images = images
        # Absolute: worker processes may have another working directory.
        self.cache = Path(cache).absolute()
        self.device = device
        loader = images.loader('test')
        self.batch_size = batch_size or loader.get('batch_size') or 32
        self.num_workers = (
            loader.get('num_workers', 0) if num_workers is None else num_workers
        )
        self.calibration_batches = calibration_batches
        self.progress = progress or (lambda what, done, total: None)
        self.note = note or (lambda message: None)
        self._network: tuple[Weights, Any] | None = None
        # Of the last maps: as they are by network, and what they are brought to.
        self._strides: dict[str | None, int] = {}
        self.stride: int | None = None

    def encoder(self, weights: Weights) -> Encoder:
        """What the weights stand for."""
        kind = ConfigEncoder if weights.encoder is None else NamedEncoder
        return kind(weights, self.images, self.note)

    def features(
        self, weights: Weights, subset: str, kind: str = 'stages'
    ) -> CachedFeatures:
        """Compute the features, or find them in the cache.

        Args:
            weights (Weights): Of the encoder.
            subset (str): 'train', 'val', 'test' or 'all'.
            kind (str): 'stages' or 'blocks'. Defaults to 'stages'.

        Returns:
            CachedFeatures: All places.

        Raises:
            UserError: When the checkpoint does not fit the network.
        """
        images = self.images.subset(subset)
        encoder = self.encoder(weights)
        description = self._describe(encoder, images, kind)
        found = find_features(self.cache, description, self.note)
        if found is not None:
            return found
        return write_features(
            self.cache,
            description,
            images.image_ids,
            self._compute(encoder, images, kind),
            lambda: self._stride(encoder),
        )

    def bring_to_stride(
        self, checkpoints: Iterable[Weights], stride: int | None = None
    ) -> int:
        """Bring the last maps of some networks to one stride from now on.

        Each stays the function that it is, see
        :func:`medssl_mm.backbones.set_output_stride`, so that what is pooled has as
        many positions in all of them.

        Args:
            checkpoints (Iterable[Weights]): All that are compared.
            stride (int, optional): Pixels of the image per cell. Defaults to None:
                the smallest one among them.

        Returns:
            int: The stride.

        Raises:
            UserError: One has a smaller stride.
        """
        self.stride = None
        own: dict[str, int] = {}
        for weights in checkpoints:
            if weights.encoder not in self._strides:
                self._strides[weights.encoder] = self._stride(self.encoder(weights))
            own[weights.name] = self._strides[weights.encoder]
        common = min(own.values()) if stride is None else stride
        smaller = [name for name, value in own.items() if value < common]
        if smaller:
            raise UserError(
                f'{smaller[0]} has stride {own[smaller[0]]}, which cannot be made '
                f'{common}; choose {min(own.values())} or less'
            )
        self.stride, self._network = common, None
        return common

    def normalisation(self, weights: Weights) -> str:
        """What a network normalises by, in words."""
        if self.encoder(weights).path is not None:
            return 'running statistics of the training'
        if self.calibration_batches:
            return f'statistics of {self.calibration_batches} training batches'
        return 'as initialised: 0 and 1'

    def _is_dilated(self, encoder: Encoder) -> bool:
        own = self._strides.get(encoder.weights.encoder)
        return self.stride is not None and own != self.stride

    def _stride(self, encoder: Encoder) -> int:
        if self.stride is not None:
            return self.stride
        view = encoder.view(self._load(encoder))
        return view.strides[view.last]

    def _describe(self, encoder: Encoder, images: Subset, kind: str) -> dict:
        description = dict(
            format=FORMAT,
            kind=kind,
            weights=encoder.digest,
            **encoder.describe(),
            **encoder.describe_images(images),
        )
        if encoder.path is None and self.calibration_batches:
            # Random weights are calibrated on the training images.
            description['calibration'] = dict(
                num_batches=self.calibration_batches,
                batch_size=self.batch_size,
                **encoder.describe_images(self.images.subset('train')),
            )
        if self._is_dilated(encoder):
            description['stride'] = self.stride
        # Plain data, as it comes back from a file.
        return json.loads(json.dumps(description, default=str))

    def _compute(
        self, encoder: Encoder, images: Subset, kind: str
    ) -> Iterator[dict[str, Tensor]]:
        model = self._load(encoder)
        backbone = encoder.view(model)
        taps = backbone.feature_taps() if kind == 'stages' else backbone.block_taps()
        what = f'{encoder.weights.name}: {images.name}'
        done, total = 0, len(images.image_ids)
        self.progress(what, 0, total)
        with evaluation_mode(model), own_randomness():
            for batch in self._batches(encoder, images):
                inputs = model.data_preprocessor(batch, False)['inputs']
                done += len(inputs)
                yield backbone.pooled(inputs, taps)
                self.progress(what, done, total)

    def _batches(self, encoder: Encoder, images: Subset) -> DataLoader:
        loader = DataLoader(
            encoder.dataset(images),
            batch_size=self.batch_size,
            collate_fn=encoder.collate,
            **loaders.worker_options(self.num_workers, 'test'),
        )
        return loaders.watch(loader, 'test', self._timeout())

    def _timeout(self) -> float:
        return loaders.timeout_of(
            self.images.loader('test'), self.images.config.get('env_cfg')
        )

    def _load(self, encoder: Encoder) -> Any:
        """Build and fill the network; the last one is kept."""
        if self._network is not None and self._network[0] == encoder.weights:
            return self._network[1]
        model = encoder.build()
        model.requires_grad_(False)
        model.to(self.device)
        if self._is_dilated(encoder):
            set_common_stride({encoder.weights.name: model.backbone}, self.stride)
        if encoder.path is None and self.calibration_batches:
            batches = calibration_batches(
                encoder.dataset(self.images.subset('train')),
                self.batch_size,
                self.calibration_batches,
                num_workers=self.num_workers,
                timeout=self._timeout(),
                collate_fn=encoder.collate,
            )
            calibrate_batch_norm(model, model.backbone, batches)
        self._network = encoder.weights, model
        return model
