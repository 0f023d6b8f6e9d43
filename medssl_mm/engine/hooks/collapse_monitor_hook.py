"""Watches the spectra of the features while they are learned."""

import copy
import logging
import random
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch.utils.data import DataLoader

from medssl_mm.analysis import feature_spectrum
from medssl_mm.backbones import encoder_features
from medssl_mm.engine.checkpoints import random_state, set_random_state
from medssl_mm.errors import UserError
from medssl_mm.files import whole_file
from medssl_mm.functional.distributed import is_main_process
from medssl_mm.functional.features import (
    collapse_of,
    collect_features,
    evaluation_mode,
)
from medssl_mm.registry import DATASETS, HOOKS
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
        interval=10,
        by_epoch=True,
        num_samples=256,
        subset='val',
        dataset=None,
        batch_size=32,
        positions=7,
        rank_share=0.01,
        std_share=0.1,
    ):
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
        for name, value in dict(rank_share=rank_share, std_share=std_share).items():
            if not 0 <= value <= 1:
                raise UserError(
                    f'CollapseMonitorHook: {name} is a share from 0 to 1, got {value}'
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
        self._batches = None
        self._first = None
        self._collapsed = set()

    def before_train(self, runner):
        """Measure the start, unless the run is resumed."""
        if runner.iter == 0:
            self._measure_if_main(runner)

    def after_train_epoch(self, runner):
        """Measure at the end of every ``interval`` epochs."""
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._measure_if_main(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Measure after every ``interval`` iterations."""
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._measure_if_main(runner, done=runner.iter + 1)

    def _measure_if_main(self, runner, done=None):
        if not is_main_process():
            return
        with own_randomness():
            self._measure(runner, runner.iter if done is None else done)

    def _measure(self, runner, iteration):
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        if self._batches is None:
            self._batches = self._load(runner)
        with evaluation_mode(model):
            rows = collect_features(
                lambda batch: model_features(model, batch),
                self._batches,
                self.positions,
            )
        spectra, scalars, arrays = [], {}, {}
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
        ranks = ', '.join(
            f'{s.place} {s.figures["effective_rank"]:.1f}/{len(s.singular_values)}'
            for s in spectra
        )
        runner.logger.info(f'Effective rank: {ranks}')
        self._first = self._first or spectra
        shown = spectra if spectra is self._first else [*self._first, *spectra]
        folder = Path(runner.work_dir, 'spectra')
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / f'iter_{iteration}.npz') as temporary:
            np.savez_compressed(temporary, **arrays)
        write_results(folder, {f'iter_{iteration}.png': draw_spectra(shown)})

    def _warn(self, runner, place, figures, shape):
        what = collapse_of(figures, *shape, self.rank_share, self.std_share)
        if what and place not in self._collapsed:
            runner.logger.log(logging.WARNING, f'{place}: {what}')
        (self._collapsed.add if what else self._collapsed.discard)(place)

    def _load(self, runner):
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
        return list(even_batches(dataset, count, self.batch_size, loader.collate_fn))


@contextmanager
def own_randomness(seed=0):
    """Seed the global generators, and put them back afterwards.

    Samples whose transforms draw from them are then the same at any time.

    Args:
        seed (int): Defaults to 0.
    """
    before = random_state()
    try:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield
    finally:
        set_random_state(before)


def held_out_dataset(training, subset='val', dataset=None):
    """Build the data set of a monitor.

    Args:
        training (dict): Config of the training data set.
        subset (str | None): Subset put in place of that of ``training``;
            None keeps it. Defaults to 'val'.
        dataset (dict, optional): Config to use instead. Defaults to None.
    """
    settings = copy.deepcopy(dict(training if dataset is None else dataset))
    if dataset is None and subset is not None:
        settings['subset'] = subset
    return DATASETS.build(settings)


def even_batches(dataset, count, batch_size, collate_fn):
    """Return a loader of ``count`` samples, evenly spread, in this process.

    Args:
        dataset (Dataset): The data set.
        count (int): Number of samples.
        batch_size (int): Samples in a batch.
        collate_fn (callable): Joins samples.
    """
    order = np.linspace(0, len(dataset) - 1, count).round().astype(int)
    return DataLoader(
        dataset,
        batch_sampler=[
            order[start : start + batch_size].tolist()
            for start in range(0, count, batch_size)
        ],
        collate_fn=collate_fn,
        generator=torch.Generator().manual_seed(0),
    )


def first_view(model, batch):
    """Return the images of the first view as the backbone takes them.

    Args:
        model (nn.Module): Has a ``data_preprocessor``.
        batch (dict): A collated batch of the training data.
    """
    data = model.data_preprocessor(batch, False)
    # mmselfsup returns (inputs, data_samples), the other hosts a dict.
    inputs = data['inputs'] if isinstance(data, dict) else data[0]
    images = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
    return model.lay_out(images) if hasattr(model, 'lay_out') else images


def model_features(model, batch):
    """Return the features of a batch, of its first view, by place.

    Args:
        model (nn.Module): Has ``backbone``, ``neck``, ``data_preprocessor``
            and maybe ``decorrelation``.
        batch (dict): A collated batch of the training data.
    """
    decorrelation = getattr(model, 'decorrelation', None)
    if getattr(decorrelation, 'inside_backbone', False):
        decorrelation = None
    return encoder_features(
        model.backbone, model.neck, first_view(model, batch), decorrelation
    )
