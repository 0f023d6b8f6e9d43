"""Segment whole volumes with a trained model.

A volume takes the way that training data take: it is imported into a
temporary slice store, so the same checks, orientation, intensity statistics
and transforms apply, and the result goes back to the grid it came from.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope

from medssl_mm.datasets.slices import SliceDataset
from medssl_mm.engine.pretrained import find_state_dict, read_checkpoint, require_equal
from medssl_mm.engine.taps import ALLOW, compare_taps
from medssl_mm.errors import UserError
from medssl_mm.evaluation.label_nifti import SCANNER, write_label_nifti
from medssl_mm.importers import make_importer
from medssl_mm.importers.base import ERROR, CaseError, SourceCase
from medssl_mm.importers.readers.nifti import form_code, read_header
from medssl_mm.importers.run import import_case
from medssl_mm.importers.sets.dicom import KEEP
from medssl_mm.importers.volumes import units_of
from medssl_mm.provenance import Cases, Seen, require_unseen, seen_of, sentences
from medssl_mm.registry import MODELS
from medssl_mm.store.case_info import CaseInfo

# Transforms that only evaluation needs, which has a label.
LABEL_TRANSFORMS = ('medssl_mm.LoadSliceLabel', 'LoadSliceLabel')
MODALITIES = ('CT', 'MR', 'other')
NIFTI = ('.nii', '.nii.gz')
# Transforms that give values another meaning.
INTENSITY = ('CTWindow', 'PercentileNormalize', 'ZScoreNormalize', 'ShiftScale')


@dataclass(frozen=True)
class Segmentation:
    """A segmented volume.

    Args:
        labels (np.ndarray): Class per voxel in the store's orientation,
            ``(Z, H, W)``, uint8.
        case (CaseInfo): Geometry of the volume and of its source.
        classes (tuple[str]): Class names, background first.
        warnings (tuple[str]): What was noticed while reading the volume.
    """

    labels: np.ndarray
    case: CaseInfo
    classes: tuple[str, ...]
    warnings: tuple[str, ...]

    def volumes_ml(self) -> dict[str, float]:
        """Volume of every foreground class, ml."""
        voxel = self.case.voxel_ml
        assert voxel is not None, 'a volume has a spacing'
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        return {
            name: float(counts[index] * voxel)
            for index, name in enumerate(self.classes)
            if index
        }


class VolumeSegmentor:
    """A trained segmentation model, ready for volumes.

    Args:
        config (Config): Configuration the model was trained with.
        checkpoint (str | Path): Checkpoint of that training.
        device (str, optional): Such as 'cpu' or 'cuda:0'. Defaults to None,
            which takes a GPU when there is one.
        batch_size (int): Slices per forward pass. Defaults to 8.
        allow_seen (bool): Whether volumes may be segmented that the network was
            trained on or chosen by. Defaults to False.

    Raises:
        UserError: If config and checkpoint do not fit each other.
    """

    def __init__(
        self,
        config: Config,
        checkpoint: str | Path,
        device: str | None = None,
        batch_size: int = 8,
        allow_seen: bool = False,
    ) -> None:
        if batch_size < 1:
            raise UserError(f'batch size {batch_size} must be at least 1')
        self.device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        self.batch_size = batch_size
        self.pipeline = _test_pipeline(config)
        self.takes_eight_bit = _takes_eight_bit(self.pipeline)
        dataset = config['test_dataloader']['dataset']
        self.trained_on = str(dataset.get('data_root') or config.filename)
        self.checkpoint, self.allow_seen = str(checkpoint), allow_seen
        self.model, self.classes, self.channels, self.seen = _load_model(
            config, checkpoint
        )
        try:
            self.model.to(self.device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f'device {self.device!r} cannot be used: {reason}'
            ) from error

    def segment(
        self,
        source: str | Path | Sequence[str | Path],
        modality: str | None = None,
        series: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Segmentation:
        """Segment a volume file or a DICOM folder.

        Args:
            source (str | Path | Sequence): File (NIfTI, NRRD, MHA ...) or
                folder; for a model of several channels a file each on one
                grid, in the order of the training, or a NIfTI file with a
                fourth axis.
            modality (str, optional): 'CT', 'MR' or 'other'. Defaults to
                None: 'CT' when the test pipeline has a CT window.
            series (str, optional): Which series of a folder with several.
                Defaults to None.
            progress (Callable, optional): Called with slices done and
                slices in all. Defaults to None.

        Returns:
            Segmentation: Labels and geometry.

        Raises:
            UserError: If the volume cannot be read or used, has other values
                than those of the training, or the network was trained on it.
        """
        if modality is None:
            windows = [step['type'] for step in self.pipeline]
            is_ct = any(str(kind).endswith('CTWindow') for kind in windows)
            modality = 'CT' if is_ct else 'other'
        if modality not in MODALITIES:
            raise UserError(f'modality must be one of {MODALITIES}, got {modality!r}')
        files = _as_paths(source)
        self._check_number(files)
        with tempfile.TemporaryDirectory(prefix='medssl_mm-') as folder:
            case, warnings = _import_one(
                files, Path(folder, 'store'), modality, series, self.channels
            )
            if self.takes_eight_bit:
                _require_eight_bit(case, files, self.trained_on)
            warnings += self._seen_before(case, files[0])
            dataset = SliceDataset(
                data_root=str(Path(folder, 'store')),
                pipeline=self.pipeline,
                test_mode=True,
            )
            labels = self._predict(dataset, case.shape, progress)
        return Segmentation(labels, case, self.classes, warnings)

    def _seen_before(self, case: CaseInfo, path: Path) -> tuple[str, ...]:
        """Compare the volume with what the network has seen; by content alone."""
        cases = Cases(
            dataset='the input',
            protocol=path.name,
            split_hash='',
            subsets=(),
            ids=[path.name],
            contents=[case.content_sha256],
            patients=[''],  # not known
        )
        facts = require_unseen(self.seen, cases, self.checkpoint, allow=self.allow_seen)
        return tuple(sentences(facts))

    def _check_number(self, files: Sequence[Path]) -> None:
        if len(files) != len(self.channels) and not (
            len(files) == 1 and _has_fourth_axis(files[0])
        ):
            named = ', '.join(self.channels)
            raise UserError(
                f'the model takes {len(self.channels)} channel(s) ({named}), but '
                f'{len(files)} file(s) were given: {", ".join(map(str, files))}; '
                'give one file per channel, in this order'
            )

    def _predict(
        self,
        dataset: SliceDataset,
        shape: tuple[int, ...],
        progress: Callable[[int, int], None] | None,
    ) -> np.ndarray:
        labels = np.zeros(shape, np.uint8)
        with torch.inference_mode():
            for start in range(0, len(dataset), self.batch_size):
                stop = min(start + self.batch_size, len(dataset))
                batch = pseudo_collate([dataset[index] for index in range(start, stop)])
                for sample in self.model.test_step(batch):
                    mask = sample.pred_sem_seg.data[0]
                    labels[sample.slice_index] = mask.cpu().numpy()
                if progress is not None:
                    progress(stop, len(dataset))
        return labels


def _test_pipeline(config: Config) -> list[dict]:
    """Test transforms of a config, without those that need a label."""
    try:
        steps = config['test_dataloader']['dataset']['pipeline']
    except (KeyError, TypeError):
        raise UserError(
            f'config {config.filename} has no test_dataloader with a '
            'pipeline, so it is none of a segmentation'
        ) from None
    return [dict(step) for step in steps if step['type'] not in LABEL_TRANSFORMS]


def _takes_eight_bit(pipeline: Sequence[dict]) -> bool:
    """Whether the first step that changes values divides those of 8 bit by 255."""
    kinds = [str(step['type']).rpartition('.')[2] for step in pipeline]
    first = next((n for n, kind in enumerate(kinds) if kind in INTENSITY), None)
    if first is None or kinds[first] != 'ShiftScale':
        return False
    return (pipeline[first]['mean'], pipeline[first]['std']) == (0, 255)


def _require_eight_bit(case: CaseInfo, files: Sequence[Path], trained_on: str) -> None:
    """Refuse a volume of other values for a model of 8-bit slices."""
    lowest, highest = (np.atleast_1d(case.intensity[name]) for name in ('min', 'max'))
    if case.dtype == 'uint8' or (lowest.min() >= 0 and highest.max() <= 255):
        return
    raise UserError(
        f'{", ".join(map(str, files))} has values from {lowest.min():g} to '
        f'{highest.max():g} ({case.dtype}), but the model was trained on slices of 8 '
        f'bit ({trained_on}): its test pipeline divides 0 to 255 by 255 (ShiftScale). '
        'Bring the volume to 0 to 255 by the grey window that those slices were made '
        'with (of CT in HU: 0 below it, 255 above, linear between), save it as uint8, '
        'and give that file. The window stands in neither config nor checkpoint: ask '
        'where the slices are published'
    )


def _load_model(
    config: Config, checkpoint: str | Path
) -> tuple[Any, tuple[str, ...], tuple[str, ...], Seen]:
    """Build the model of a config and load all of its weights."""
    init_default_scope(config.get('default_scope', 'mmseg'))
    model = revert_sync_batchnorm(MODELS.build(config['model']))
    if not hasattr(model, 'decode_head'):
        raise UserError(
            f'config {config.filename} describes no segmentation model; use '
            'one of configs/segmentation'
        )
    content: Any = read_checkpoint(checkpoint)
    weights = find_state_dict(content, str(checkpoint))
    if not any(name.startswith('decode_head.') for name in weights):
        raise UserError(
            f'{checkpoint} holds no decode head; give the checkpoint of a '
            'segmentation training, not of a pretraining'
        )
    require_equal(weights, model.state_dict(), str(checkpoint))
    allow = bool(config.get(ALLOW))
    compare_taps(model.backbone, content, str(checkpoint), allow)
    model.load_state_dict(weights, strict=False)
    model.eval()
    number = model.decode_head.num_classes
    meta = (content.get('meta') or {}).get('dataset_meta') or {}
    names = meta.get('classes') or ()
    if len(names) != number:
        names = ['background'] + [f'class {i}' for i in range(1, number)]
    seen = seen_of(content, str(checkpoint))
    return model, tuple(names), _channels_of(model, meta), seen


def _channels_of(model: Any, meta: dict) -> tuple[str, ...]:
    """Names of the channels that a model takes."""
    stem = next(weight for weight in model.backbone.parameters() if weight.ndim == 4)
    number = stem.shape[1]
    names = meta.get('channels') or ()
    if len(names) != number:
        names = ['image', *(f'channel {i}' for i in range(2, number + 1))]
    return tuple(names)


def _as_paths(source: str | Path | Sequence[str | Path]) -> list[Path]:
    given = [source] if isinstance(source, (str, Path)) else source
    return [Path(path) for path in given]


def _has_fourth_axis(path: Path) -> bool:
    """Tell whether a NIfTI file has one; a damaged one is reported later."""
    try:
        return _is_nifti(path) and len(read_header(path).get_data_shape()) == 4
    except CaseError:
        return False


def _import_one(
    files: Sequence[Path],
    root: Path,
    modality: str,
    series: str | None,
    channels: Sequence[str],
) -> tuple[CaseInfo, tuple[str, ...]]:
    """Import one volume into a new store."""
    source = next((path for path in files if not path.is_file()), files[0])
    if source.is_dir() and len(files) == 1:
        importer: Any = make_importer(
            'dicom', modality=None if modality == 'other' else modality, tilt=KEEP
        )
        found = importer.discover(source)
        case = _choose_series(found.cases, source, series)
    elif source.is_file():
        importer = make_importer('volumes')
        extra, facts = {}, {}
        if len(channels) > 1:
            extra = dict(channels=channels, image_files=[str(path) for path in files])
            facts = dict(channels=tuple(channels))
        case = SourceCase('volume', 'volume', str(source), extra=extra)
        found = importer.found([case], classes=('background',), **facts)
    else:
        what = 'is a folder' if source.is_dir() else 'is no file'
        raise UserError(
            f'{source} {what if source.exists() else "does not exist"}; give '
            'a volume file (NIfTI, NRRD, MHA ...) per channel, or a folder with one '
            'DICOM series of a model of one channel'
        )
    found = replace(found, name='input', modality=modality, units=units_of(modality))
    writer = found.create_writer(root)
    result = import_case(importer, found, case, writer)
    errors = [p.message for p in result.problems if p.severity == ERROR]
    if errors:
        raise UserError(f'{source}: {" ".join(errors)}')
    store = writer.finish()
    info = store.case(store.case_ids[0])
    return info, tuple(p.message for p in result.problems)


def _choose_series(
    cases: Sequence[SourceCase], source: Path, series: str | None
) -> SourceCase:
    chosen = [case for case in cases if series is None or series == case.case_id]
    if len(chosen) == 1:
        return chosen[0]
    names = ', '.join(case.case_id for case in cases)
    if series is not None:
        raise UserError(f'{source} has no series {series!r}; it has: {names}')
    raise UserError(
        f'{source} holds {len(cases)} series: {names}; choose one with --series'
    )


def predict_file(
    config: Config,
    checkpoint: str | Path,
    source: str | Path | Sequence[str | Path],
    output: str | Path,
    modality: str | None = None,
    series: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    allow_seen: bool = False,
) -> Segmentation:
    """Segment a volume and write the labels as NIfTI on its own grid.

    Args:
        config (Config): Configuration of the model.
        checkpoint (str | Path): Its weights.
        source (str | Path | Sequence): Volume file, DICOM folder, or a file
            per channel; see :meth:`VolumeSegmentor.segment`.
        output (str | Path): NIfTI file to write.
        modality (str, optional): See :meth:`VolumeSegmentor.segment`.
        series (str, optional): The same.
        device (str, optional): See :class:`VolumeSegmentor`.
        batch_size (int): Slices per forward pass. Defaults to 8.
        overwrite (bool): Whether ``output`` may exist. Defaults to False.
        progress (Callable, optional): Called with slices done and in all.
        allow_seen (bool): See :class:`VolumeSegmentor`. Defaults to False.

    Returns:
        Segmentation: What was written.

    Raises:
        UserError: If anything given is unusable; nothing is written then.
    """
    output, inputs = Path(output), _as_paths(source)
    _check_output(output, inputs, overwrite)
    segmentor = VolumeSegmentor(config, checkpoint, device, batch_size, allow_seen)
    result = segmentor.segment(source, modality, series, progress)
    code = form_code(read_header(inputs[0])) if _is_nifti(inputs[0]) else SCANNER
    told = write_label_nifti(result.labels, result.case, output, code)
    return replace(result, warnings=(*result.warnings, *told))


def _check_output(output: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse an output that cannot or must not be written, before any work."""
    if not output.name.endswith(NIFTI):
        raise UserError(f'output {output} must end with .nii or .nii.gz')
    if output.is_dir():
        raise UserError(f'output {output} is a folder; name a file in it')
    if output.exists() and any(
        path.exists() and os.path.samefile(path, output) for path in inputs
    ):
        raise UserError(
            f'output {output} is an input; its voxels would be lost. Give another name'
            + ('' if overwrite else ' (it exists; --overwrite would not help)')
        )
    if output.exists() and not overwrite:
        raise UserError(f'{output} exists; give another name or --overwrite')
    if not output.parent.is_dir():
        raise UserError(f'folder {output.parent} does not exist; make it')
    if not os.access(output.parent, os.W_OK | os.X_OK):
        raise UserError(f'folder {output.parent} cannot be written to')


def _is_nifti(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(NIFTI)
