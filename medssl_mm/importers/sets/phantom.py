"""The procedural CT phantom: made on demand, then read as NIfTI files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl_mm.errors import UserError
from medssl_mm.importers.base import Discovery
from medssl_mm.importers.options import option
from medssl_mm.importers.sets.btcv import BTCVImporter
from medssl_mm.importers.volumes import VolumeDiscovery
from medssl_mm.phantom import CLASSES, write_phantom
from medssl_mm.store.splits import Split, make_holdout, take_fraction


@dataclass(frozen=True)
class PhantomImporter(BTCVImporter):
    """Make the phantom where the source folder lacks it, and import it.

    The options are those of :func:`medssl_mm.phantom.write_phantom`.
    """

    num_patients: int | None = option(
        'patients to make; default: 24', type=int, metavar='N'
    )
    seed: int | None = option('seed of the patients; default: 0', type=int)
    size: int | None = option('pixels of a side of a slice; default: 160', type=int)

    name = 'phantom'
    classes = CLASSES
    source_needed = False
    layout = """\
    <src>/img/img0001.nii.gz    <src>/label/label0001.nii.gz
    (made when missing)"""

    def discover(self, src: Path) -> VolumeDiscovery:
        """Write the missing files and list the cases."""
        if src is None:
            raise UserError('the phantom needs a folder to be written to')
        defaults = dict(num_patients=24, seed=0, size=160)
        write_phantom(src, **{**defaults, **self.given()})
        return super().discover(Path(src))

    def splits(
        self, found: Discovery, cases: Sequence[Any]
    ) -> tuple[list[Split], list[str]]:
        """Make 'phantom-<n>' and 'phantom-<n>-all'.

        Of 24 patients 6 are for test, 2 for val and 16 for pretraining; of
        those 16 only 6 are labelled for training, so that what was learnt
        without labels matters. '-all' trains on the labels of all 16.
        """
        patient_of = {case.case_id: case.patient_id for case in cases}
        count = len(set(patient_of.values()))
        if count < 4:
            return [], []
        drawn = make_holdout(
            patient_of, patient_of, self.name, test=1 / 4, val=1 / 12, seed=0
        )
        few = take_fraction(drawn, 'train', 3 / 8, 0, patient_of)
        rest = dict(pretrain=drawn['train'], val=drawn['val'], test=drawn['test'])
        text = (
            f'{len(drawn["train"])} patients for pretraining, {{}} of '
            f'them labelled for training, {len(rest["val"])} val, '
            f'{len(rest["test"])} test.'
        )
        name = f'{self.name}-{count}'
        splits = [
            Split(name, self.name, dict(train=few, **rest), 0, text.format(len(few))),
            Split(
                f'{name}-all',
                self.name,
                dict(train=drawn['train'], **rest),
                0,
                text.format('all'),
            ),
        ]
        return splits, []
