"""Grey image files named by a list, used directly, without an import."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
from mmengine.dataset import BaseDataset

from medssl_mm.datasets.sampler import EpochIndex, sample_rng
from medssl_mm.errors import UserError
from medssl_mm.files import read_text
from medssl_mm.registry import DATASETS


@DATASETS.register_module()
class SliceImageList(BaseDataset):
    """Grey 8- or 16-bit images of a folder, one line of a list each.

    A line is ``relative/path.png label``; the label (an integer) may be
    missing. Empty lines and lines that start with ``#`` are skipped. The
    folder that holds an image stands for its patient.

    Each sample is a dict with sample_idx, img_path, case_id and patient_id
    (the image's folder), slice_index (place of the image within its folder's
    lines), gt_label (int, or None) and rng. Load the image with
    ``medssl_mm.LoadGreyImage``.

    Args:
        data_root (str): Folder that the paths start from.
        ann_file (str): The list, a path or relative to data_root.
        seed (int): Seed of augmentation where the sampler brings none.
            Defaults to 0.
        pipeline (Sequence): Transforms. Defaults to ().
        metainfo (dict | None): Passed on as in mmengine. Defaults to None.
        test_mode (bool): As in mmengine. Defaults to False.
        lazy_init (bool): Read the list at the first use. Defaults to False.
        indices (int | Sequence[int] | None): First or listed samples only,
            as in mmengine. Defaults to None.

    Raises:
        UserError: List or folder are missing, the list is empty, a line
            cannot be read, or its first image does not exist.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        seed: int = 0,
        pipeline: Sequence[dict | Callable] = (),
        metainfo: dict | None = None,
        test_mode: bool = False,
        lazy_init: bool = False,
        indices: int | Sequence[int] | None = None,
    ) -> None:
        self.seed = seed
        super().__init__(
            ann_file=str(ann_file),
            data_root=str(data_root),
            data_prefix=dict(),
            metainfo=metainfo,
            indices=indices,
            pipeline=list(pipeline),
            test_mode=test_mode,
            lazy_init=lazy_init,
            max_refetch=0,
        )

    ann_file: str

    def _join_prefix(self) -> None:
        # A list is given as seen from the working directory, or from the
        # folder of the images.
        inside = os.path.join(self.data_root, self.ann_file)
        if not os.path.isfile(self.ann_file) and os.path.isfile(inside):
            self.ann_file = inside

    def load_data_list(self) -> list[dict]:
        """Read the list."""
        if not os.path.isdir(self.data_root):
            raise UserError(
                f'image folder {self.data_root} does not exist; '
                'set data_root to the folder that the paths of '
                f'{self.ann_file} start from.'
            )
        if not os.path.isfile(self.ann_file):
            raise UserError(
                f'list file {self.ann_file} does not exist (also '
                f'looked for in {self.data_root}); set ann_file.'
            )
        samples: list[dict] = []
        counts: dict[str, int] = {}
        lines = read_text(self.ann_file, 'list file').splitlines()
        for number, line in enumerate(lines, 1):
            line = line.strip()
            if not line or line.startswith('#'):
                continue
            path, label = self._parse_line(line, number)
            folder = os.path.dirname(path) or '.'
            place = counts[folder] = counts.get(folder, -1) + 1
            samples.append(
                dict(
                    img_path=os.path.join(self.data_root, path),
                    case_id=folder,
                    patient_id=folder,
                    slice_index=place,
                    gt_label=label,
                )
            )
        if not samples:
            raise UserError(
                f'list file {self.ann_file} names no image; '
                'expected lines "relative/path.png label".'
            )
        first = samples[0]['img_path']
        if not os.path.isfile(first):
            raise UserError(
                f'the first image of {self.ann_file}, {first}, does not '
                'exist; set data_root to the folder that the paths start '
                'from.'
            )
        return samples

    def _parse_line(self, line: str, number: int) -> tuple[str, int | None]:
        # Split from the right: paths may hold blanks.
        path, _, label = line.rpartition(' ')
        if path and label.lstrip('-').isdigit():
            return path.strip(), int(label)
        if os.path.splitext(line)[1]:
            return line, None
        raise UserError(
            f'{self.ann_file}, line {number}: expected '
            f'"relative/path.png label", found {line!r}.'
        )

    def get_data_info(self, idx: int) -> dict:
        """Describe one image.

        Args:
            idx: Index, or the EpochIndex of a ResumableSampler.
        """
        info = super().get_data_info(int(idx))
        info['rng'] = sample_rng(
            idx if isinstance(idx, EpochIndex) else info['sample_idx'], self.seed
        )
        return info

    def sample_locations(self) -> tuple[np.ndarray, np.ndarray]:
        """Folder (as a number) and place within it of every sample.

        Shape: two integer arrays ``(N, )``.
        """
        infos = [BaseDataset.get_data_info(self, n) for n in range(len(self))]
        folders = np.unique(
            [info['patient_id'] for info in infos], return_inverse=True
        )[1]
        return folders, np.array([info['slice_index'] for info in infos])
