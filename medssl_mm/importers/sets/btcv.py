"""BTCV, the abdomen part of "Beyond the Cranial Vault"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medssl_mm.importers.base import Discovery
from medssl_mm.importers.volumes import NumberedVolumes
from medssl_mm.store.known import KNOWN
from medssl_mm.store.splits import Split


class BTCVImporter(NumberedVolumes):
    """BTCV "Beyond the Cranial Vault" abdomen, 13 organs, two protocols."""

    name = 'btcv'
    classes = KNOWN[name].classes
    # Neighbours in the body differ in hue, the two of a pair in brightness.
    palette = [
        [0, 0, 0],
        [148, 87, 235],
        [214, 39, 40],
        [255, 152, 150],
        [44, 160, 44],
        [188, 189, 34],
        [31, 119, 180],
        [255, 127, 14],
        [227, 26, 200],
        [23, 190, 207],
        [102, 194, 255],
        [250, 220, 60],
        [140, 86, 75],
        [196, 156, 148],
    ]
    image_name = r'img(\d{4})\.nii(?:\.gz)?'
    label_name = r'label(\d{4})\.nii(?:\.gz)?'
    case_name = 'case{}'
    layout = """\
    <src>/img/img0001.nii.gz       <src>/label/label0001.nii.gz
or  <src>/imagesTr/img0001.nii.gz  <src>/labelsTr/label0001.nii.gz
    (any sub-folders; images 61 to 80 have no labels)"""

    labelled_numbers = (*range(1, 11), *range(21, 41))
    protocols = {
        'btcv-18-12': (
            (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38),
            '18 training and 12 test volumes; usually scored on 8 organs: '
            'spleen, kidneys, gallbladder, liver, stomach, aorta, pancreas.',
        ),
        'btcv-24-6': (
            tuple(range(35, 41)),
            '24 training and 6 test volumes, scored on 13 organs.',
        ),
    }

    def splits(
        self, found: Discovery, cases: Sequence[Any]
    ) -> tuple[list[Split], list[str]]:
        """Make both published protocols; pretraining sees train only."""
        labelled = {c.case_id for c in cases if c.labelled}
        splits, notes = [], []
        for protocol, (test_numbers, text) in self.protocols.items():
            subsets: dict[str, Any] = {'train': [], 'test': []}
            missing = []
            for number in self.labelled_numbers:
                case_id = self.case_name.format(f'{number:04d}')
                subset = 'test' if number in test_numbers else 'train'
                if case_id in labelled:
                    subsets[subset].append(case_id)
                else:
                    missing.append(case_id)
            if missing:
                notes.append(
                    f'protocol {protocol}: {len(missing)} of its '
                    f'{len(self.labelled_numbers)} labelled cases are missing '
                    f'({", ".join(missing[:4])}, ...); results do not compare '
                    'with published ones'
                )
            if subsets['train'] and subsets['test']:
                subsets['pretrain'] = subsets['train']
                splits.append(Split(protocol, self.name, subsets, None, text))
        return splits, notes
