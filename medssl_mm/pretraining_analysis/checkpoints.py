"""Measures of the checkpoints of pretrainings that need no labels."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from rich.progress import track

from medssl_mm.analysis import place_spectra
from medssl_mm.analysis.choosing import MeasuredCheckpoint
from medssl_mm.backbones import backbone_of, set_common_stride
from medssl_mm.engine.observing import model_features
from medssl_mm.engine.pretrained import read_checkpoint
from medssl_mm.engine.reading import read_config
from medssl_mm.errors import UserError
from medssl_mm.results.files import write_results
from medssl_mm.results.logs import read_scalars

from .models import build_pretraining, held_out_views, load_pretraining, meta_of

_EPOCH = re.compile(r'epoch_(\d+)')
# Of the log: what the loss says, and how often the right one was found.
_LOGGED = re.compile(r'(?:train/)?(loss(?:_\w+)?|\w*top1)')


def seed_of(folder: Path) -> int | None:
    """Seed of a training, of the config that it has written to its work directory."""
    for config in sorted(folder.glob('*.py')):
        seed = (read_config(config).get('randomness') or {}).get('seed')
        if seed is not None:
            return int(seed)
    return None


class MeasuredRuns:
    """The checkpoints of some pretrainings, each measured once.

    Args:
        runs (dict[str, Path]): Work directories by name.
        config (Config): Of a pretraining; names the images.
        folder (Path): Keeps what was measured, a file per checkpoint.
        subset (str): Of the split of the images.
        samples (int): Images.
        batch_size (int): Images in a batch.
        positions (int): Side of the grid of positions taken of a map.
        stride (int, optional): Of the last map; None: the smallest of the runs.
        views (int): Of each image.
        device (str): Where to compute.

    Raises:
        UserError: A folder holds no ``epoch_*.pth``.
    """

    def __init__(
        self,
        runs: Mapping[str, Path],
        config: Config,
        folder: Path,
        *,
        subset: str,
        samples: int,
        batch_size: int,
        positions: int,
        stride: int | None,
        views: int,
        device: str,
    ) -> None:
        self.runs = {name: _checkpoints(path) for name, path in runs.items()}
        self.config, self.folder = config, folder
        self.batch_size, self.positions = batch_size, positions
        self._logs = {name: read_scalars(path) for name, path in runs.items()}
        self._iterations: dict[Path, int] = {}
        first = {name: list(files.values())[0] for name, files in self.runs.items()}
        self.models = {
            name: build_pretraining(path, config).to(device)
            for name, path in first.items()
        }
        set_common_stride({n: m.backbone for n, m in self.models.items()}, stride)
        strides = [_last_stride(model) for model in self.models.values()]
        self.count, (self.batches, *self.views) = held_out_views(
            config, subset, samples, batch_size, views
        )
        self.stated = dict(
            subset=subset,
            images=self.count,
            views=views,
            positions=positions,
            stride=strides[0],
        )

    def all(self) -> list[MeasuredCheckpoint]:
        """Measure what is not known yet, in the order of the runs and epochs."""
        work = [
            (name, epoch, path)
            for name, files in self.runs.items()
            for epoch, path in files.items()
        ]
        return [self._one(*each) for each in track(work, 'checkpoints')]

    def _one(self, run: str, epoch: int, path: Path) -> MeasuredCheckpoint:
        state = path.stat()
        of = dict(self.stated, file=[state.st_size, state.st_mtime_ns])
        place = self.folder / run / f'{path.stem}.json'
        if place.is_file():
            known = json.loads(place.read_text(encoding='utf-8'))
            if known['of'] == of:
                measures = {
                    name: math.nan if value is None else value
                    for name, value in known['measures'].items()
                }
                return MeasuredCheckpoint(run, path.stem, epoch, measures)
        content = read_checkpoint(path)
        model = self.models[run]
        load_pretraining(model, content, path)
        self._iterations[path] = int(meta_of(content).get('iter', 0))
        measures = self._spectra(model) | self._logged(run, path)
        write_results(place.parent, {place.name: dict(of=of, measures=measures)})
        return MeasuredCheckpoint(run, path.stem, epoch, measures)

    def _spectra(self, model: Any) -> dict[str, float]:
        last = backbone_of(model.backbone)
        places = (last.names[last.last], 'pooled', 'projection')
        found = place_spectra(
            model,
            lambda batch: model_features(model, batch),
            self.batches,
            '',
            self.positions,
            self.views,
        )
        return {
            f'{name} ({"last map" if one.place == places[0] else one.place})': value
            for one in found
            if one.place in places
            for name, value in one.figures.items()
        }

    def _logged(self, run: str, path: Path) -> dict[str, float]:
        """Means of what was logged since the checkpoint before."""
        files = list(self.runs[run].values())
        end = self._iterations[path]
        before = files.index(path) - 1
        start = self._iteration(files[before]) if before >= 0 else 0
        found = {}
        for name, points in self._logs[run].items():
            match = _LOGGED.fullmatch(name)
            steps = points[(points[:, 0] > start) & (points[:, 0] <= end)]
            if match and len(steps):
                found[match[1]] = float(np.mean(steps[:, 1]))
        return found

    def _iteration(self, path: Path) -> int:
        if path not in self._iterations:  # was measured in an earlier run
            content = read_checkpoint(path)
            self._iterations[path] = int(meta_of(content).get('iter', 0))
        return self._iterations[path]


def _checkpoints(folder: Path) -> dict[int, Path]:
    """Checkpoints of a run by epoch, in their order."""
    found = {
        int(match[1]): path
        for path in folder.glob('epoch_*.pth')
        if (match := _EPOCH.fullmatch(path.stem))
    }
    if not found:
        raise UserError(
            f'{folder} holds no epoch_*.pth; keep the checkpoints of a pretraining by '
            '--cfg-options default_hooks.checkpoint.interval=10 '
            'default_hooks.checkpoint.max_keep_ckpts=-1'
        )
    return dict(sorted(found.items()))


def _last_stride(model: Any) -> int:
    return list(backbone_of(model.backbone).named_strides.values())[-1]
