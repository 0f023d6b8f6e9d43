"""Running statistics of batch normalisation for a frozen backbone."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from medssl_mm import loaders
from medssl_mm.engine.checkpoints import random_state, set_random_state
from medssl_mm.engine.observing import inner_model
from medssl_mm.registry import HOOKS


@HOOKS.register_module()
class CalibrateBatchNormHook(Hook):
    """Re-estimates the running statistics of a backbone before training.

    A frozen backbone in evaluation mode normalises by its running
    statistics. After pretraining they fit the data; with random weights they
    are still 0 and 1, so that a linear decoder on random features would be
    judged on badly scaled features. This hook sets them to the mean over some
    training batches (a cumulative mean, not a moving one).

    Every rank uses the same batches. Weights, random generators and samplers
    stay as they are. A resumed run keeps what its checkpoint holds.

    Args:
        num_batches (int): Number of batches. Defaults to 20.
        seed (int): Chooses the samples. Defaults to 0.
        module (str): Name of the part of the model. Defaults to 'backbone'.
    """

    def __init__(
        self, num_batches: int = 20, seed: int = 0, module: str = 'backbone'
    ) -> None:
        if num_batches < 1:
            raise ValueError(f'num_batches must be at least 1, got {num_batches}')
        self.num_batches = num_batches
        self.seed = seed
        self.module = module

    def before_train(self, runner: Runner) -> None:
        """Estimate the statistics, unless the run is resumed."""
        if runner.iter > 0:
            return
        model = inner_model(runner)
        backbone = model.get_submodule(self.module)
        loader = runner.train_dataloader
        batches = calibration_batches(
            loader.dataset,
            loader.batch_size or loader.batch_sampler.batch_size,
            self.num_batches,
            self.seed,
            num_workers=loader.num_workers,
            timeout=loaders.timeout_of(
                runner.cfg.get('train_dataloader', {}), runner.cfg.get('env_cfg')
            ),
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
        )
        norms = calibrate_batch_norm(model, backbone, batches)
        if not norms:
            raise ValueError(
                f'CalibrateBatchNormHook found no batch normalisation with '
                f'running statistics in "{self.module}"; remove the hook from '
                'the config'
            )
        runner.logger.info(
            f'Running statistics of {norms} batch normalisation layers '
            f'in "{self.module}" set from {len(batches)} training batches.'
        )


def calibrate_batch_norm(model: Any, backbone: nn.Module, batches: Iterable) -> int:
    """Set running statistics to their mean over batches.

    Weights, modes and random generators stay as they are.

    Args:
        model (nn.Module): Has a ``data_preprocessor``.
        backbone (nn.Module): Part of the model that is calibrated.
        batches (Iterable): As the data preprocessor takes them.

    Returns:
        int: Number of layers; 0 when there is none to calibrate.
    """
    norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms:
        return 0
    before = random_state()
    with _cumulative_mode(model, norms), torch.no_grad():
        for batch in batches:
            data = model.data_preprocessor(batch, True)
            # mmselfsup returns (inputs, data_samples), the other hosts a dict.
            inputs = data['inputs'] if isinstance(data, dict) else data[0]
            if isinstance(inputs, (list, tuple)):
                inputs = inputs[0]
            backbone(inputs)
    set_random_state(before)
    return len(norms)


def calibration_batches(
    dataset: Any,
    batch_size: int,
    num_batches: int,
    seed: int = 0,
    num_workers: int = 0,
    timeout: float = loaders.LOADER_TIMEOUT,
    **options: Any,
) -> DataLoader:
    """Return a loader of some full batches, drawn without replacement.

    It loads from the data set directly: the sampler of a training keeps its
    place.

    Args:
        dataset (Dataset): The data set.
        batch_size (int): Samples in a batch, at most the whole data set.
        num_batches (int): Largest number of batches.
        seed (int): Chooses the samples. Defaults to 0.
        num_workers (int): Processes that load. Defaults to 0.
        timeout (float): Seconds they may take for a batch. Defaults to
            :data:`medssl_mm.loaders.LOADER_TIMEOUT`.
        **options: Further arguments of the loader.
    """
    size = min(batch_size, len(dataset))
    count = min(num_batches, len(dataset) // size)
    order = np.random.default_rng(seed).permutation(len(dataset))
    loader = DataLoader(
        dataset,
        batch_sampler=[order[i * size : (i + 1) * size].tolist() for i in range(count)],
        generator=torch.Generator().manual_seed(seed),
        **loaders.worker_options(min(num_workers, count)),
        **options,
    )
    return loaders.watch(loader, 'train', timeout)


@contextmanager
def _cumulative_mode(model: nn.Module, norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Let only the given layers learn, by a cumulative mean."""
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
