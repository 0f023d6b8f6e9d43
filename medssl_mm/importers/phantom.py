"""The procedural CT phantom: made on demand, then read as NIfTI files."""

from __future__ import annotations

from pathlib import Path

from medssl_mm.errors import UserError
from medssl_mm.importers.base import SourceCase
from medssl_mm.importers.nifti import BTCVImporter
from medssl_mm.phantom import CLASSES, write_phantom
from medssl_mm.store.splits import Split, make_holdout, take_fraction


class PhantomImporter(BTCVImporter):
    """Make the phantom where the source folder lacks it, and import it.

    Options of :meth:`discover`: ``num_patients`` (int, 24), ``seed`` (int, 0)
    and ``size`` (int, in-plane matrix, 160), as in
    :func:`medssl_mm.phantom.write_phantom`.
    """

    name = 'phantom'
    classes = CLASSES
    options = ('num_patients', 'seed', 'size')
    source_needed = False
    layout = """\
    <src>/img/img0001.nii.gz    <src>/label/label0001.nii.gz
    (made when missing)"""

    def discover(
        self, src: Path, num_patients: int = 24, seed: int = 0, size: int = 160
    ) -> list[SourceCase]:
        """Write the missing files and list the cases."""
        if src is None:
            raise UserError('the phantom needs a folder to be written to')
        write_phantom(src, num_patients, seed, size)
        return super().discover(Path(src))

    def splits(self, cases) -> list[Split]:
        """Make 'phantom-<n>' and 'phantom-<n>-all'.

        Of 24 patients 6 are for test, 2 for val and 16 for pretraining; of
        those 16 only 6 are labelled for training, so that what was learnt
        without labels matters. '-all' trains on the labels of all 16.
        """
        patient_of = {case.case_id: case.patient_id for case in cases}
        count = len(set(patient_of.values()))
        if count < 4:
            return []
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
        return [
            Split(name, self.name, dict(train=few, **rest), 0, text.format(len(few))),
            Split(
                f'{name}-all',
                self.name,
                dict(train=drawn['train'], **rest),
                0,
                text.format('all'),
            ),
        ]
