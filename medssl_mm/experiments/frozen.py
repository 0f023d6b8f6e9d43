"""Measures a frozen encoder on one data set: few-shot, neighbours, linear.

``python -m medssl_mm.experiments.frozen FOLDER`` does what ``FOLDER/task.json``
asks for and writes a file per protocol, each whole; what is there is left alone.
Features come from the cache, which further protocols and tables share.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from medssl_mm.analysis import few_shot, probing
from medssl_mm.analysis.transfer import ACCURACY, AUROC, PER_CLASS, transfer_scores
from medssl_mm.checkpoint_features import (
    ALL,
    SUBSETS,
    EncoderFeatures,
    ImageSubsets,
    Weights,
    check_no_shared_patients,
    compare_seen,
    config_of_images,
    read_labels,
)
from medssl_mm.encoders import parse_source
from medssl_mm.errors import UserError, run_tool
from medssl_mm.files import whole_file, write_json
from medssl_mm.provenance import sentences
from medssl_mm.results import plain, write_results
from medssl_mm.statistics import Predictions, few_patients

from .transfer_data import digest_of
from .transfer_table import COMPAT, FEW_SHOT, KNN, LINEAR

if TYPE_CHECKING:
    from .transfer import TransferPlan

# Digits of numbers of which there are thousands.
_DIGITS = 6
# What fits call the scores that costs are chosen by.
_CHOICES: Mapping[str, Any] = {
    AUROC: 'auroc',
    ACCURACY: 'accuracy',
    PER_CLASS: 'recall',
}


class FrozenSet:
    """Features and labels of one encoder and one data set.

    Args:
        task (Mapping): See :func:`medssl_mm.experiments.transfer.plan_transfer`.
        report (Callable): Called with lines for the log.
    """

    def __init__(self, task: Mapping, report: Callable[[str], None]) -> None:
        self.task = task
        self.report = report
        dataset = task['dataset']
        self.images = ImageSubsets(
            config_of_images(dataset['images'], dataset['name']), report
        )
        self.source = EncoderFeatures(
            self.images,
            task['cache'],
            task['device'],
            task['batch_size'],
            task['num_workers'],
            task['calibration'],
            progress=self._progress,
            note=report,
        )
        self.notes: list[str] = []
        self._shown = 0.0

    @property
    def compat(self) -> bool:
        """Whether the formulas of the published comparison are asked for."""
        return self.task['mode'] == COMPAT

    def _progress(self, what: str, done: int, total: int) -> None:
        if done == total or time.monotonic() - self._shown > 10:
            self._shown = time.monotonic()
            self.report(f'{what}: {done} of {total} images')

    @cached_property
    def everything(self) -> Any:
        """All labelled images."""
        return self.images.subset(ALL)

    @cached_property
    def labels(self) -> Any:
        """Their labels."""
        return read_labels(self.everything)

    @cached_property
    def targets(self) -> np.ndarray:
        """Shape: ``(images, classes)``, bool."""
        found = np.zeros(
            (len(self.everything.image_ids), len(self.labels.classes)), bool
        )
        found[self.labels.known] = self.labels.targets
        return found

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """Which of all images are in a subset; only those with a known label."""
        subsets = {name: self.images.subset(name) for name in SUBSETS}
        if not self.compat:
            check_no_shared_patients(list(subsets.values()))
        places = {self.everything.image_ids[row]: int(row) for row in self.labels.known}
        return {
            name: np.array(
                [places[i] for i in subset.image_ids if i in places], dtype=int
            )
            for name, subset in subsets.items()
        }

    def weights(self, **preprocessing: Any) -> Weights:
        """The encoder, perhaps with another preprocessing."""
        encoder = self.task['encoder']
        return Weights(
            encoder['name'],
            seed=encoder['seed'],
            encoder=encoder['source'],
            preprocessing=tuple(sorted(preprocessing.items())),
        )

    def features(self, **preprocessing: Any) -> np.ndarray:
        """Of all images, at the last place. Shape: ``(images, channels)``."""
        found = self.source.features(self.weights(**preprocessing), ALL)
        return found.read(found.places[-1])

    def rounds(self, folds: int) -> list[dict[str, np.ndarray]]:
        """Rows of the subsets; of a cross-validation as many times as it has folds.

        Folds part patients (in compat images), and keep the shares of the
        classes; the next one validates.
        """
        if not folds:
            return [self.rows]
        rows, groups = self.labels.known, np.array(self.everything.patients)
        if self.compat:
            groups = np.array(self.everything.image_ids)
        if len(set(groups[rows])) < folds or folds < 3:
            raise UserError(
                f'{self._name} has {len(set(groups[rows]))} patients; folds={folds} '
                'must be from 3 to their number'
            )
        kind: Any = StratifiedGroupKFold
        classes = self.targets[rows].argmax(1)
        if self.labels.multi_label:
            kind = GroupKFold
        split = kind(folds, shuffle=True, random_state=0)
        parts = [rows[part] for _, part in split.split(rows, classes, groups[rows])]
        return [
            dict(
                train=np.sort(
                    np.concatenate(
                        [
                            p
                            for m, p in enumerate(parts)
                            if m not in (n, (n + 1) % folds)
                        ]
                    )
                ),
                val=parts[(n + 1) % folds],
                test=parts[n],
            )
            for n in range(folds)
        ]

    def predictions(
        self, rounds: Sequence[Mapping], probabilities: Sequence[np.ndarray]
    ) -> Predictions:
        """Of the test images of all rounds, in the order of the data set."""
        rows = np.concatenate([one['test'] for one in rounds])
        order = np.argsort(rows, kind='stable')
        rows = rows[order]
        folds = np.repeat(range(len(rounds)), [len(one['test']) for one in rounds])
        return Predictions(
            self.labels.classes,
            self.labels.multi_label,
            tuple(self.everything.image_ids[row] for row in rows),
            tuple(self.everything.patients[row] for row in rows),
            self.targets[rows],
            np.concatenate(probabilities)[order],
            folds=folds[order] if len(rounds) > 1 else None,
        )

    def seen(self, settings: Mapping) -> dict | None:
        """What the encoder has seen of the images that a protocol scores.

        Raises:
            UserError: It was trained on them.
        """
        all_scored = settings['kind'] == FEW_SHOT or settings.get('folds')
        tested = [self.everything if all_scored else self.images.subset('test')]
        validated = [] if all_scored else [self.images.subset('val')]
        found = compare_seen(
            self.source,
            [self.weights()],
            tested,
            validated,
            bool(self.task['allow_seen']),
        )
        return next(iter(found.values()), None)

    # ------------------------------------------------------------ protocols

    def few_shot(self, settings: Mapping) -> dict:
        """Episodes of prototypes."""
        if self.labels.multi_label:
            raise UserError(
                f'few-shot episodes need one class an image; {self._name} has several '
                'labels at once: leave it out of the protocol (datasets: [...]), or '
                'choose single labels (options: {single_label: true})'
            )
        rows = self.labels.known
        if self.compat:
            pool = set(self.task['dataset']['pool'] or self.everything.image_ids)
            rows = np.array([r for r in rows if self.everything.image_ids[r] in pool])
        numbers = self.targets[rows].argmax(1)
        by_patient = self.everything.has_patients and not self.compat
        ways = settings['ways'] or (5 if len(self.labels.classes) >= 5 else 2)
        episodes = few_shot.draw_episodes(
            numbers.tolist(),
            [self.everything.patients[r] for r in rows] if by_patient else None,
            ways,
            settings['shots'],
            settings['queries'],
            settings['episodes'],
            settings['seed'],
            self.labels.classes,
        )
        features = self.features(**self._few_shot_preprocessing())[rows]
        accuracies = few_shot.episode_accuracies(features, episodes)
        return dict(
            episodes=accuracies,
            digest=episodes.digest,
            facts=dict(
                ways=ways,
                images=len(rows),
                by_patient=bool(by_patient),
                chance=1 / ways,
            ),
        )

    def _few_shot_preprocessing(self) -> dict[str, Any]:
        """How the published comparison showed the pictures of the set here."""
        if not self.compat:
            return {}
        size = parse_source(self.task['encoder']['source']).settings.preprocessing.size
        if self.task['dataset']['prepared']:
            return dict(resize_mode='short', interpolation='bicubic', resize_to=size)
        return dict(
            resize_mode='exact', interpolation='bilinear', resize_to=int(1.15 * size)
        )

    def linear(self, settings: Mapping) -> dict:
        """Logistic regression at the cost that validation chooses."""
        features = self.features()
        chosen_by = self.task['dataset']['metric'] if self.compat else AUROC
        rounds = self.rounds(settings['folds'])
        fits = [
            probing.fit_linear(
                {name: features[of] for name, of in rows.items()},
                probing.ProbeData(
                    self.labels.classes,
                    self.labels.multi_label,
                    {name: self.targets[of] for name, of in rows.items()},
                    [self.everything.patients[row] for row in rows['test']],
                ),
                settings['costs'] or probing.COSTS,
                by=_CHOICES[chosen_by],
                standardise=settings['standardise'],
                softmax=self.compat,
                max_iter=settings['max_iter'],
                weakest_first=self.compat,
            )
            for rows in rounds
        ]
        failed = sum(len(fit.failed) for fit in fits)
        tried = sum(len(fit.quality) for fit in fits)
        final = sum(not fit.converged for fit in fits)
        if failed or final:
            self.notes.append(
                f'linear: {failed} of {tried} fits and {final} of {len(fits)} final '
                f'ones have not converged in {settings["max_iter"]} iterations'
            )
        return dict(
            predictions=self.predictions(rounds, [fit.probabilities for fit in fits]),
            facts=dict(
                chosen_by=chosen_by,
                fits=[
                    dict(
                        cost=fit.cost,
                        validation={f'{c:.6g}': q for c, q in fit.quality.items()},
                        not_converged=list(fit.failed),
                        converged=fit.converged,
                    )
                    for fit in fits
                ],
            ),
        )

    def knn(self, settings: Mapping) -> dict:
        """Votes of the nearest images of train and val."""
        import torch

        from medssl_mm.functional.nearest_neighbours import (
            nearest_neighbour_probabilities,
        )

        features = torch.from_numpy(np.array(self.features()))
        rounds, found = self.rounds(settings['folds']), []
        for rows in rounds:
            bank = np.concatenate([rows['train'], rows['val']])
            if len(bank) < settings['k']:
                raise UserError(
                    f'{self._name} has {len(bank)} images to look neighbours up in, '
                    f'fewer than k={settings["k"]}; set a smaller k'
                )
            votes = nearest_neighbour_probabilities(
                features[rows['test']],
                features[bank],
                torch.from_numpy(self.targets[bank]),
                settings['k'],
                settings['temperature'],
            )
            found.append(votes.double().numpy())
        return dict(predictions=self.predictions(rounds, found), facts={})

    @property
    def _name(self) -> str:
        return self.task['dataset']['name']

    def measure(self, protocol: Mapping) -> dict:
        """Run one protocol; plain data for its file."""
        settings = protocol['settings']
        self.notes.clear()
        started = time.monotonic()
        seen = self.seen(settings)
        self.notes += sentences(seen, unknown=False)
        run = {FEW_SHOT: self.few_shot, KNN: self.knn, LINEAR: self.linear}
        found = run[settings['kind']](settings)
        predictions = found.pop('predictions', None)
        everyone = len(set(self.everything.patients))
        if predictions is None:
            patients, drawn = everyone, {ACCURACY: found.pop('episodes')}
        else:
            # Those that the interval is over.
            patients = len(set(predictions.patients))
            self.notes += few_patients(patients, 'test patient')
            drawn = transfer_scores(
                predictions, self.task['bootstrap'], hard=self.compat
            )
        subset = self.images.subset('test')
        return plain(
            dict(
                **result_head(self.task, protocol),
                images=dict(
                    all=len(self.everything.image_ids),
                    **{name: len(rows) for name, rows in self.rows.items()},
                ),
                patients=patients,
                has_patients=self.everything.has_patients
                and everyone < len(self.everything.image_ids),
                classes=list(self.labels.classes),
                split=subset.protocol,
                split_hash=subset.split_hash,
                facts=found.pop('facts'),
                seen=seen,
                notes=list(self.notes),
                seconds=round(time.monotonic() - started, 1),
                **found,
                **scores_of(drawn, predictions),
            )
        )


def export_features(
    planned: TransferPlan, folder: str | Path, report: Callable[[str], None] = print
) -> list[Path]:
    """Write the features of a plan, the last place of each encoder, all images.

    ``ENCODER-DATASET.npy`` (float32), and ``.csv`` with image, patient, subset
    and label of its rows; seeds of random weights other than 0 are named, too, and
    further protocols that have other labels.

    Args:
        planned: Its frozen steps.
        folder: Made if need be.
        report: Takes lines for the screen.

    Returns:
        list[Path]: The files.
    """
    import pandas as pd

    paths, names = [], list[str]()
    for task in planned.tasks.values():
        frozen = FrozenSet(task, report)
        encoder, seed = task['encoder']['name'], task['encoder']['seed']
        name = f'{encoder}-{task["dataset"]["name"]}'.replace('/', '_')
        name += f'-seed{seed}' if seed else ''
        if name in names:  # protocols of compat may have labels of their own
            name += f'-{"+".join(one["name"] for one in task["protocols"])}'
        names.append(name)
        subset = np.full(len(frozen.everything.image_ids), '', dtype=object)
        for part, rows in frozen.rows.items():
            subset[rows] = part
        classes = np.array(frozen.labels.classes, dtype=object)
        table = pd.DataFrame(
            dict(
                image_id=frozen.everything.image_ids,
                patient_id=frozen.everything.patients,
                subset=subset,
                label=['|'.join(classes[row]) for row in frozen.targets],
            )
        )
        path = Path(folder, f'{name}.npy')
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            np.save(temporary, frozen.features())
        paths += [path, *write_results(folder, {f'{name}.csv': table})]
    return paths


def result_head(task: Mapping, protocol: Mapping) -> dict:
    """What every result begins with."""
    return dict(
        mode=task['mode'],
        encoder=task['encoder'],
        dataset={k: v for k, v in task['dataset'].items() if k != 'pool'},
        protocol=protocol['name'],
        settings=protocol['settings'],
        rules=protocol['rules'],
    )


def scores_of(drawn: Mapping[str, np.ndarray], predictions: Predictions | None) -> dict:
    """Scores as they are written: of all, then of every resample or episode."""
    content: dict[str, Any] = dict(
        drawn={name: np.round(v, _DIGITS).tolist() for name, v in drawn.items()}
    )
    if predictions is not None:
        content['predictions'] = dict(
            image_ids=list(predictions.image_ids),
            targets=predictions.targets.astype(int).tolist(),
            probabilities=np.round(predictions.probabilities, _DIGITS).tolist(),
            **(
                {}
                if predictions.folds is None
                else {'folds': predictions.folds.tolist()}
            ),
        )
    return content


def task_name(task: Mapping) -> str:
    """Name of its file: processes that want other protocols write other ones."""
    return f'task-{digest_of(task)}.json'


def run_task(path: Path, report: Callable[[str], None]) -> None:
    """Do what a task asks for and is not there yet.

    Args:
        path: Its file, in the folder of the results.
        report: Takes lines for the screen.

    Raises:
        UserError: The encoder, the data set or a protocol does not fit.
    """
    task = json.loads(path.read_text(encoding='utf-8'))
    frozen, failed = FrozenSet(task, report), list[str]()
    for protocol in task['protocols']:
        result = path.with_name(protocol['file'])
        if result.exists():
            report(f'{protocol["name"]}: there already')
            continue
        report(f'{protocol["name"]} ...')
        try:
            found = frozen.measure(protocol)
        except UserError as error:  # the other protocols may do
            failed.append(f'{protocol["name"]}: {error}')
            continue
        write_json(result, found, indent=None)
    if failed:
        raise UserError('; '.join(failed))


def main() -> None:
    """Run one task."""
    logging.disable(logging.INFO)  # a line per initialised weight
    run_task(Path(sys.argv[1]), lambda line: print(line, flush=True))


if __name__ == '__main__':
    run_tool(main)
