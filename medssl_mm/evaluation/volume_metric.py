"""Slices back to volumes, volumes to scores."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from mmengine.logging import print_log
from mmengine.structures import PixelData

from medssl_mm.errors import UserError
from medssl_mm.provenance import result_entry, sentences
from medssl_mm.registry import METRICS
from medssl_mm.results.evaluation import Evaluation, library_versions
from medssl_mm.results.volumes import CASES, evaluate_cases
from medssl_mm.store import CaseInfo, open_store
from medssl_mm.store.header import SLICES

from .gathered_metric import GatheredMetric, common_value
from .label_nifti import write_label_array, write_label_nifti
from .volume_scores import (
    ABSENT,
    INVENTED,
    MISSED,
    POLICY,
    SCORES,
    score_case,
    summarised_measures,
)

LIBRARIES = (
    'monai',
    'scipy',
    'numpy',
    'torch',
    'onedl-mmengine',
    'onedl-mmsegmentation',
    'medssl_mm',
)
_COLUMNS = ('case_id', 'patient_id', 'class', 'slices', 'distances', 'volume_unit')


@dataclass(frozen=True)
class SliceResult:
    """One predicted slice, small enough to keep all of a data set.

    Args:
        case_id (str): Case the slice belongs to.
        index (int): Slice number in the case.
        shape (tuple[int, int]): Height and width.
        prediction (bytes): Compressed uint8 labels.
        reference (bytes, optional): The same of the ground truth, only when
            it cannot be read from a store.
        store_root (str, optional): Folder of the slice store.
        patient_id (str): Patient of the case.
        spacing (tuple, optional): (z, y, x) in mm.
        protocol (str, optional): Name of the split.
        split_hash (str, optional): Hash of the split.
    """

    case_id: str
    index: int
    shape: tuple[int, int]
    prediction: bytes
    reference: bytes | None
    store_root: str | None
    patient_id: str
    spacing: tuple[float, ...] | None
    protocol: str | None
    split_hash: str | None

    def labels(self, content: bytes) -> np.ndarray:
        """Decompress labels. Shape: returns ``(H, W)``, uint8."""
        return np.frombuffer(zlib.decompress(content), np.uint8).reshape(self.shape)


def _pack(mask: PixelData | Mapping) -> tuple[tuple[int, int], bytes]:
    """Compress a label map of shape ``(H, W)`` or ``(1, H, W)``."""
    mask = mask['data'] if isinstance(mask, Mapping) else mask.data
    mask = np.ascontiguousarray(mask.cpu().numpy().astype(np.uint8))
    height, width = mask.shape[-2:]
    return (height, width), zlib.compress(mask.data, 1)


Cases = dict[str, list[SliceResult]]


def group_slices(results: Sequence[SliceResult]) -> Cases:
    """Sort slices into cases and drop identical duplicates.

    Samplers repeat slices to give every process the same number of batches;
    such copies are equal. Unequal ones mean that the prediction depends on
    something else than the slice.

    Args:
        results: In any order.

    Returns:
        dict[str, list[SliceResult]]: Slices by case, both sorted.

    Raises:
        UserError: If one slice has two different predictions.
    """
    cases: dict[str, dict[int, SliceResult]] = {}
    for result in results:
        slices = cases.setdefault(result.case_id, {})
        known = slices.setdefault(result.index, result)
        if known != result:
            raise UserError(
                f'case {result.case_id}: slice {result.index} was predicted '
                'twice with different results or from different stores; '
                'remove random transforms from the test pipeline and give '
                'each case a name of its own'
            )
    return {
        case: [slices[index] for index in sorted(slices)]
        for case, slices in sorted(cases.items())
    }


def _require_all(
    case_id: str, expected: Sequence[int], slices: Sequence[SliceResult]
) -> None:
    found = [result.index for result in slices]
    missing = sorted(set(expected) - set(found))
    if missing:
        raise UserError(
            f'case {case_id}: {len(missing)} of {len(expected)} slices were '
            f'not predicted (first: {missing[0]}); a volume is scored only '
            'when complete: serve every slice of the test dataset (with '
            'min_foreground=0 and only_with_foreground_label=False, and '
            'drop_last=False in the data loader)'
        )
    extra = sorted(set(found) - set(expected))
    if extra:
        raise UserError(
            f'case {case_id}: slice {extra[0]} was predicted but has no '
            f'label ({len(expected)} slices have one); use labelled=True in '
            'the test dataset'
        )


def rebuild_case(
    slices: Sequence[SliceResult], classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, CaseInfo | None]:
    """Stack the slices of one case and fetch their ground truth.

    Args:
        slices: All slices of the case, sorted.
        classes: Class names, background first.

    Shape: returns two ``(Z, H, W)`` uint8 volumes, of the labelled slices.

    Raises:
        UserError: If slices are missing, or slices or classes do not fit the
            store.
    """
    first = slices[0]
    if len({result.shape for result in slices}) > 1:
        raise UserError(
            f'case {first.case_id}: predicted slices differ in size '
            f'({sorted({result.shape for result in slices})}); predictions '
            'must be at native size'
        )
    prediction = np.stack([result.labels(result.prediction) for result in slices])
    if first.store_root is None:
        _require_all(first.case_id, range(slices[-1].index + 1), slices)
        given = [result.reference for result in slices]
        reference = np.stack(
            [first.labels(content) for content in given if content is not None]
        )
        return prediction, reference, None
    store = open_store(first.store_root, SLICES)
    info = store.case(first.case_id)
    expected: Sequence[int] = range(info.shape[0])
    if info.labelled_slices is not None:
        expected = info.labelled_slices
    _require_all(first.case_id, expected, slices)
    if first.shape != info.shape[1:]:
        raise UserError(
            f'case {first.case_id}: predictions are {first.shape} and the '
            f'stored slices {info.shape[1:]}; the test pipeline must keep '
            'ori_shape and img_padding_size, so that predictions return to '
            'native size'
        )
    label_map = store.label_map(classes)
    reference = np.stack(
        [store.read_label_slice(first.case_id, index, label_map) for index in expected]
    )
    return prediction, reference, info


def _why_not_measured(spacing: Sequence[float] | None, indices: Sequence[int]) -> str:
    """Why distances cannot be measured; '' where they can."""
    if spacing is None:
        return 'spacing unknown'
    if indices[-1] - indices[0] + 1 != len(indices):
        return 'labelled slices are not neighbours'
    return ''


def evaluate_case(
    slices: Sequence[SliceResult],
    classes: Sequence[str],
    tolerance_mm: float = 2.0,
    surface: bool = True,
) -> list[dict]:
    """Rebuild and score one case.

    Store volumes are axis permutations and flips of the source grid, never
    resampled, so scores with the case's spacing are those on the source grid.

    Args:
        slices: All slices of the case, sorted.
        classes: Class names, background first.
        tolerance_mm: Tolerance of NSD, mm.
        surface: Whether to measure distances.

    Returns:
        list[dict]: Per foreground class a row of ``cases.csv``, and
        'total_slices'.
    """
    prediction, reference, info = rebuild_case(slices, classes)
    first = slices[0]
    spacing = info.spacing if info is not None else first.spacing
    missing = _why_not_measured(spacing, [result.index for result in slices])
    measure = surface and not missing
    diagonal = None
    if measure and info is not None and spacing is not None:
        diagonal = float(np.linalg.norm(np.multiply(info.shape, spacing)))
    try:
        scores = score_case(
            prediction,
            reference,
            len(classes),
            spacing,
            tolerance_mm,
            surface=measure,
            diagonal=diagonal,
            voxel_ml=None if info is None else info.voxel_ml,
        )
    except ValueError as error:
        raise UserError(
            f'case {first.case_id}: {error}; check the classes of the data '
            'set and num_classes of the decode head'
        ) from error
    case = dict(
        case_id=first.case_id,
        patient_id=first.patient_id,
        slices=len(slices),
        total_slices=info.shape[0] if info is not None else len(slices),
        distances='yes' if measure else missing if surface else 'not asked for',
        volume_unit='ml' if spacing is not None else 'voxels',
    )
    return [{**case, 'class': name, **row} for name, row in zip(classes[1:], scores)]


def _partial_notes(scored: pd.DataFrame) -> list[str]:
    cases = scored.drop_duplicates('case_id')
    partial = int((cases['slices'] < cases['total_slices']).sum())
    if not partial:
        return []
    return [
        f'{partial} cases are labelled on some slices only and were scored on those'
    ]


def _log_values(evaluation: Evaluation) -> dict[str, float]:
    """Numbers for the training log; what was not measured is left out."""
    values = {'mDice': evaluation.mean['dice'].estimate}
    for name, item in evaluation.per_class['dice'].items():
        values[f'Dice_{name.replace(" ", "_")}'] = item.estimate
    for measure in evaluation.measures:
        if measure.logged:
            values[f'm{measure.title}'] = evaluation.mean[measure.name].estimate
    return {
        name: value
        for name, value in values.items()
        if name == 'mDice' or not np.isnan(value)
    }


@METRICS.register_module()
class VolumeMetric(GatheredMetric):
    """Per-volume Dice, HD95, NSD and volume error, with patient intervals.

    Predicted slices are regrouped into cases, compared with the ground truth
    in the store at native resolution, and scored per case and class; see
    :data:`medssl_mm.evaluation.volume_scores.POLICY` for the treatment of empty
    classes. Unlike mmseg's ``IoUMetric``, pixels of different patients are
    never pooled.

    Args:
        tolerance_mm (float): Tolerance of NSD, mm. Defaults to 2.0.
        surface_metrics (bool): Whether to measure HD95 and NSD; without them
            a validation takes a fraction of the time. Defaults to True.
        save_predictions (bool): Whether to write each case as NIfTI on its
            source grid into ``out_dir``/predictions; a case without geometry
            (PNG, HDF5) as NumPy file with the key ``labels``, ``(Z, H, W)``.
            Defaults to False.
        num_jobs (int): Threads that score cases. Defaults to 1.
        **kwargs: As :class:`.GatheredMetric`; the first of ``classes`` is the
            background, ``out_dir`` gets ``cases.csv`` and ``metrics.json``,
            ``prefix`` defaults to 'volume'.

    Raises:
        ValueError: If a setting is out of range.
    """

    default_prefix = 'volume'

    def __init__(
        self,
        tolerance_mm: float = 2.0,
        surface_metrics: bool = True,
        save_predictions: bool = False,
        num_jobs: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not tolerance_mm >= 0:
            raise ValueError(f'tolerance_mm={tolerance_mm} must be 0 or more (mm)')
        if num_jobs < 1:
            raise ValueError(f'num_jobs={num_jobs} must be at least 1')
        self.tolerance_mm = tolerance_mm
        self.surface_metrics = surface_metrics
        self.save_predictions = save_predictions
        self.num_jobs = num_jobs

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the predicted slices of a batch, compressed."""
        for sample in data_samples:
            self.require_keys(
                sample,
                ('case_id', 'slice_index', 'pred_sem_seg'),
                'pack with medssl_mm.PackSlice',
            )
            shape, prediction = _pack(sample['pred_sem_seg'])
            root = sample.get('store_root')
            # The store's label is read once more when the case is scored: that
            # takes less time than to pack the one of the pipeline, needs no
            # memory, and is the truth whatever the pipeline does to it.
            reference = None
            if root is None:
                if 'gt_sem_seg' not in sample:
                    raise ValueError(
                        f'case {sample["case_id"]} comes with neither '
                        'store_root nor gt_sem_seg, so it has no ground truth'
                    )
                true_shape, reference = _pack(sample['gt_sem_seg'])
                if true_shape != shape:
                    raise ValueError(
                        f'case {sample["case_id"]}: prediction {shape} and '
                        f'label {true_shape} differ in size; load the label '
                        'after resizing in the test pipeline'
                    )
            spacing = sample.get('spacing')
            self.results.append(
                SliceResult(
                    case_id=str(sample['case_id']),
                    index=int(sample['slice_index']),
                    shape=shape,
                    prediction=prediction,
                    reference=reference,
                    store_root=None if root is None else str(root),
                    patient_id=str(sample.get('patient_id', sample['case_id'])),
                    spacing=None
                    if spacing is None
                    else tuple(float(size) for size in spacing),
                    protocol=sample.get('protocol'),
                    split_hash=sample.get('split_hash'),
                )
            )

    def compute_metrics(self, results: list[SliceResult]) -> dict:
        """Score all cases, show the table, write the files.

        Returns:
            dict: ``mDice``, ``Dice_<class>`` and, where distances were
            measured, ``mHD95`` (mm) and ``mNSD``.
        """
        if not results:
            raise UserError('nothing was predicted: the test dataset is empty')
        meta = self.dataset_meta or {}
        classes = self.classes or meta.get('classes')
        if not classes or len(classes) < 2:
            raise UserError(
                f'VolumeMetric needs the class names, background first, got '
                f'{classes}; set METAINFO of the data set or classes='
            )
        cases = group_slices(results)
        scored = self._score(cases, classes)
        evaluation = evaluate_cases(
            scored,
            classes,
            summarised_measures(),
            facts=dict(
                protocol=common_value(results, 'protocol'),
                split_hash=common_value(results, 'split_hash'),
                data_root=common_value(results, 'store_root'),
                **result_entry(self.seen),
            ),
            settings=dict(
                tolerance_mm=self.tolerance_mm,
                policy=POLICY,
                versions=library_versions(LIBRARIES),
            ),
            notes=[*sentences(self.seen), *_partial_notes(scored)],
            samples=self.bootstrap_samples,
            seed=self.bootstrap_seed,
        )
        if self.bootstrap_samples:
            print_log('\n' + self._text(evaluation), logger='current')
        if self.out_dir is not None:
            columns = [*_COLUMNS, 'status', *SCORES]
            paths = evaluation.write(self.out_dir, CASES, scored[columns])
            if self.save_predictions:
                paths.append(self._save(cases, self.out_dir))
            print_log('Written: ' + ', '.join(map(str, paths)), logger='current')
        return _log_values(evaluation)

    def _text(self, evaluation: Evaluation) -> str:
        units = evaluation.settings['volume_units']
        counts = list(evaluation.counts.values())
        dice = [*evaluation.per_class['dice'].values(), evaluation.mean['dice']]
        return evaluation.text(
            dict(
                n=[found.units for found in dice],
                **{
                    status: [count[status] for count in counts]
                    for status in (ABSENT, MISSED, INVENTED)
                },
            ),
            dict(
                nsd=f'NSD ({self.tolerance_mm:g} mm)',
                volume_error=f'volume error ({"/".join(units)})',
            ),
        )

    def _score(self, cases: Cases, classes: Sequence[str]) -> pd.DataFrame:
        """Score all cases; returns a data frame with a row per class and case."""
        settings = (tuple(classes), self.tolerance_mm, self.surface_metrics)
        # Threads: the search trees work outside the interpreter lock, and
        # processes would spend longer importing than scoring.
        found = Parallel(n_jobs=self.num_jobs, prefer='threads')(
            delayed(evaluate_case)(part, *settings) for part in cases.values()
        )
        return pd.DataFrame([row for case in found for row in case])

    def _save(self, cases: Cases, out_dir: str) -> Path:
        folder = Path(out_dir) / 'predictions'
        folder.mkdir(parents=True, exist_ok=True)
        for case_id, slices in cases.items():
            if slices[0].store_root is None:
                raise UserError(
                    f'case {case_id} has no slice store and so no source '
                    'grid; set save_predictions=False'
                )
            info = open_store(slices[0].store_root, SLICES).case(case_id)
            volume = np.zeros(info.shape, np.uint8)
            for result in slices:
                volume[result.index] = result.labels(result.prediction)
            if info.source_affine is None:
                write_label_array(volume, folder / f'{case_id}.npz')
            else:
                write_label_nifti(volume, info, folder / f'{case_id}.nii.gz')
        return folder
