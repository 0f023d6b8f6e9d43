"""Watches the spectra of the features while they are learned."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Size

from medssl_mm.analysis import Spectrum, feature_spectrum, stated
from medssl_mm.backbones import backbone_of
from medssl_mm.engine.observing import (
    even_batches,
    held_out_dataset,
    inner_model,
    model_features,
    own_randomness,
)
from medssl_mm.errors import UserError
from medssl_mm.files import whole_file
from medssl_mm.functional.distributed import is_main_process
from medssl_mm.functional.features import (
    collapse_of,
    collect_features,
    evaluation_mode,
)
from medssl_mm.registry import HOOKS
from medssl_mm.results import write_results
from medssl_mm.results.spectra import draw_spectra


@HOOKS.register_module()
class CollapseMonitorHook(Hook):
    """Measures the collapse of features on samples that stay the same.

    At all stages (or blocks) of the backbone, the ``decorrelated`` map (if
    the model has one), ``pooled`` features and ``projection``; healthy values
    in brackets, of D channels and N samples:

    - ``effective_rank`` (a large share of D; 1 = one direction),
    - ``rankme`` (a large share of min(N, D); 1 = one direction),
    - ``alpha_req`` (near 1; 0 = flat, far above 1 = collapsed),
    - ``std_of_l2_normalized`` (1 / sqrt(D); 0 = all samples agree).

    Written as scalars ``collapse/PLACE_FIGURE`` to the visualizer
    (TensorBoard), and to ``<work_dir>/spectra/``: ``iter_N.npz`` with the
    eigenvalues and figures of every place, and ``iter_N.png``. Measured
    before the first iteration, too. From then on a warning names the places
    that have collapsed: spread below ``std_share`` of the healthy one, or
    effective rank below ``rank_share`` of what is possible or below 2.

    Training is not altered in any bit: the samples are loaded apart from the
    sampler, everything runs in evaluation mode without gradient, on the main
    process, and the random generators are put back.

    Args:
        interval (int): Epochs, or iterations, between measurements. Defaults
            to 10.
        by_epoch (bool): Whether the interval is one of epochs. Defaults to
            True.
        num_samples (int): Images, spread evenly over the data set. Defaults
            to 256.
        subset (str | None): Subset of the training data's split that is
            looked at; None = the training images themselves. Defaults to
            'val'.
        dataset (dict, optional): Data set instead; its samples are collated
            and preprocessed as the training ones. Defaults to None.
        batch_size (int): Images at a time. Defaults to 32.
        positions (int): Side of the grid of positions taken of a map.
            Defaults to 7.
        rank_share (float): See above, 0-1. Defaults to 0.01.
        std_share (float): See above, 0-1. Defaults to 0.1.
    """

    # After the parameters changed and were logged, before a checkpoint.
    priority = 'LOW'

    def __init__(
        self,
        interval: int = 10,
        by_epoch: bool = True,
        num_samples: int = 256,
        subset: str | None = 'val',
        dataset: Mapping | None = None,
        batch_size: int = 32,
        positions: int = 7,
        rank_share: float = 0.01,
        std_share: float = 0.1,
    ) -> None:
        numbers = dict(
            interval=interval,
            num_samples=num_samples - 1,
            batch_size=batch_size,
            positions=positions,
        )
        for name, value in numbers.items():
            if value < 1:
                least = 2 if name == 'num_samples' else 1
                raise UserError(f'CollapseMonitorHook: {name} must be {least} or more')
        for name, share in dict(rank_share=rank_share, std_share=std_share).items():
            if not 0 <= share <= 1:
                raise UserError(
                    f'CollapseMonitorHook: {name} is a share from 0 to 1, got {share}'
                )
        self.interval = interval
        self.by_epoch = by_epoch
        self.num_samples = num_samples
        self.subset = subset
        self.dataset = dataset
        self.batch_size = batch_size
        self.positions = positions
        self.rank_share = rank_share
        self.std_share = std_share
        self._batches: list | None = None
        self._images = 0
        self._first: list[Spectrum] | None = None
        self._collapsed: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Measure the start, unless the run is resumed."""
        if runner.iter == 0:
            self._measure_if_main(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Measure at the end of every ``interval`` epochs."""
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._measure_if_main(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: Mapping | None = None,
    ) -> None:
        """Measure after every ``interval`` iterations."""
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._measure_if_main(runner, done=runner.iter + 1)

    def _measure_if_main(self, runner: Runner, done: int | None = None) -> None:
        if not is_main_process():
            return
        with own_randomness():
            self._measure(runner, runner.iter if done is None else done)

    def _measure(self, runner: Runner, iteration: int) -> None:
        model: Any = inner_model(runner)
        if self._batches is None:
            self._batches = self._load(runner)
        with evaluation_mode(model):
            rows = collect_features(
                lambda batch: model_features(model, batch),
                self._batches,
                self.positions,
            )
        strides = backbone_of(model.backbone).named_strides
        spectra: list[Spectrum] = []
        scalars: dict[str, float] = {}
        arrays: dict[str, Any] = {}
        for place, features in rows.items():
            if not features.isfinite().all():
                # Stopping is the business of FiniteLossHook.
                runner.logger.warning(
                    f'Features of {place} are not finite after iteration '
                    f'{iteration}: no spectrum.'
                )
                continue
            spectrum = feature_spectrum(f'iteration {iteration}', place, features)
            spectra.append(spectrum)
            arrays[f'{place}_eigenvalues'] = np.array(spectrum.singular_values)
            for name, figure in spectrum.figures.items():
                arrays[f'{place}_{name}'] = np.float64(figure)
                scalars[f'collapse/{place}_{name}'] = figure
            if iteration:  # untrained features are what they are
                self._warn(runner, place, spectrum.figures, features.shape)
        runner.visualizer.add_scalars(
            {name: v for name, v in scalars.items() if np.isfinite(v)},
            step=iteration,
        )
        spectra = stated(spectra, strides, self._images)
        ranks = ', '.join(
            f'{s.place} {s.figures["effective_rank"]:.1f}/{len(s.singular_values)}'
            for s in spectra
        )
        last = list(strides.values())[-1]
        runner.logger.info(
            f'Effective rank ({self._images} images, last map at stride {last} px): '
            f'{ranks}'
        )
        self._first = self._first or spectra
        shown = spectra if spectra is self._first else [*self._first, *spectra]
        folder = Path(runner.work_dir, 'spectra')
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / f'iter_{iteration}.npz') as temporary:
            np.savez_compressed(temporary, **arrays)
        write_results(folder, {f'iter_{iteration}.png': draw_spectra(shown)})

    def _warn(
        self, runner: Runner, place: str, figures: Mapping[str, float], shape: Size
    ) -> None:
        what = collapse_of(figures, shape[0], shape[1], self.rank_share, self.std_share)
        if what and place not in self._collapsed:
            runner.logger.log(logging.WARNING, f'{place}: {what}')
        (self._collapsed.add if what else self._collapsed.discard)(place)

    def _load(self, runner: Runner) -> list:
        """Load the images once; always the same, whenever a run starts."""
        loader = runner.train_dataloader
        dataset = held_out_dataset(
            runner.cfg.train_dataloader.dataset, self.subset, self.dataset
        )
        count = min(self.num_samples, len(dataset))
        if count < 2:
            raise UserError(
                'CollapseMonitorHook needs 2 images or more to look at, the '
                f'data set has {len(dataset)}'
            )
        self._images = count
        return list(even_batches(dataset, count, self.batch_size, loader.collate_fn))
