"""Which images features are computed for: the data sets of a config."""

import copy
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope

from medssl_mm.encoders import Preprocessing
from medssl_mm.errors import UserError
from medssl_mm.registry import DATASETS, build_of

from .pictures import Pictures
from .subsets import ALL, SUBSETS, Subset

# Settings of a data set that choose labels, or images, which are listed
# apart: features do not depend on them.
CHOICES = (
    'binary',
    'finding',
    'findings',
    'fraction',
    'fraction_seed',
    'labelled',
    'single_label',
    'stratified',
    'uncertain',
    'view',
)


def config_of_images(images: Mapping, source: str) -> Config:
    """Write the config of an image set: three loaders, no network.

    Args:
        images (Mapping): ``type``, ``data_root``, ``split`` and further
            settings, as in ``configs/data``.
        source (str): Where they are from, for messages.
    """
    return config_of_datasets(
        {subset: dict(images, subset=subset) for subset in SUBSETS}, source
    )


def config_of_datasets(datasets: Mapping[str, Mapping], source: str) -> Config:
    """Write the config of data sets, one for each loader, without a network.

    Args:
        datasets (Mapping): 'train', 'val' and 'test' to the settings of a data set.
        source (str): Where they are from, for messages.
    """
    loaders = {
        f'{subset}_dataloader': dict(
            dataset=dict(settings, labelled=True, test_mode=True, pipeline=[])
        )
        for subset, settings in datasets.items()
    }
    content = dict(default_scope='mmpretrain', **loaders)
    # With a text, since mmengine would read one from the file.
    return Config(content, cfg_text=f'# {source}', filename=source)


class ImageSubsets:
    """The data sets of a classification config, or of an image set.

    All subsets go through the pipeline of the test images, so nothing is
    augmented; or, as ``pictures``, through the preprocessing of an encoder.

    Args:
        config (Config): Classification config; or see :func:`config_of_images`.
        note (Callable, optional): Called with messages. Defaults to None.
    """

    def __init__(
        self, config: Config, note: Callable[[str], None] | None = None
    ) -> None:
        self.config = config
        self.note = note or (lambda message: None)
        self._subsets: dict[str, Subset] = {}

    def subset(self, name: str) -> Subset:
        """Open a subset; a training subset with all its images.

        Args:
            name (str): 'train', 'val', 'test'; or 'all', of an image set: its
                labelled images, whatever the split.

        Raises:
            UserError: When the config has no such loader, or there are no
                images.
        """
        if name not in self._subsets:
            of = 'train' if name == ALL else name
            settings = _without_repetition(self.loader(of)['dataset'])
            for part in _innermost(settings):
                if 'fraction' in part:
                    part['fraction'] = 1.0
                if name == ALL:
                    part.update(split=None)
            self._subsets[name] = self._open(name, settings)
        return self._subsets[name]

    def fraction_of_config(self) -> tuple[float, int | None]:
        """Label fraction of the training loader, and its seed."""
        settings = _innermost(self.loader('train')['dataset'])[0]
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
        settings = _without_repetition(self.loader('train')['dataset'])
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

    def loader(self, name: str) -> Any:
        """Settings of a loader.

        Raises:
            UserError: The config has none.
        """
        loader = self.config.get(f'{name}_dataloader')
        if not loader or not loader.get('dataset'):
            raise UserError(
                f'{self.config.filename} has no {name}_dataloader with a data '
                'set; use a classification config'
            )
        return loader

    def _open(self, name: str, settings: dict) -> Subset:
        pipelines = [
            part.get('pipeline') for part in _innermost(self.loader('test')['dataset'])
        ]
        for part in _innermost(settings):
            part['pipeline'] = copy.deepcopy(pipelines[0])
        dataset = self._build(settings)
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

    def pictures(self, subset: Subset, preprocessing: Preprocessing) -> Pictures:
        """The images of a subset as an encoder wants them."""
        settings = copy.deepcopy(subset.settings)
        for part in _innermost(settings):
            part['pipeline'] = [
                step
                for step in part.get('pipeline') or ()
                if str(step.get('type')).rpartition('.')[2].startswith('Load')
            ]
        return Pictures(self._build(settings), subset.image_ids, preprocessing)

    def _build(self, settings: dict) -> Any:
        with DefaultScope.overwrite_default_scope(
            self.config.get('default_scope', 'mmpretrain')
        ):
            return build_of(DATASETS, settings, self.config.filename)


def describe_data(images: Subset) -> dict:
    """Describe what features of a subset depend on, in plain data."""
    settings = copy.deepcopy(images.settings)
    for part in _innermost(settings):
        for name in CHOICES:
            part.pop(name, None)
    return dict(
        dataset=settings,
        protocol=images.protocol,
        split_hash=images.split_hash,
        images=_digest(images),
    )


def describe_pictures(images: Subset) -> dict:
    """The same for pictures without the pipeline of the data set.

    Of an image set, which knows the content of its images, nothing else.
    """
    if hasattr(getattr(images.dataset, 'store', None), 'infos'):
        return dict(images=_digest(images))
    description = describe_data(images)
    for part in _innermost(description['dataset']):
        part.pop('pipeline', None)
    return description


def _digest(images: Subset) -> str:
    lines = list(images.image_ids)
    store: Any = getattr(images.dataset, 'store', None)
    if hasattr(store, 'infos'):
        # An image set knows the content of its images.
        contents = {i.image_id: i.content_sha256 for i in store.infos()}
        lines = [f'{name} {contents.get(name)}' for name in lines]
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()


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
