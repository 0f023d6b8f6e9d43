"""Running statistics of batch normalisation for a frozen backbone."""

from contextlib import contextmanager

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from medssl_mm.engine.checkpoints import random_state, set_random_state
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

    def __init__(self, num_batches=20, seed=0, module='backbone'):
        if num_batches < 1:
            raise ValueError(
                f'num_batches must be at least 1, got {num_batches}'
            )
        self.num_batches = num_batches
        self.seed = seed
        self.module = module

    def before_train(self, runner):
        """Estimate the statistics, unless the run is resumed."""
        if runner.iter > 0:
            return
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        backbone = model.get_submodule(self.module)
        norms = [m for m in backbone.modules() if isinstance(m, _BatchNorm)]
        norms = [norm for norm in norms if norm.track_running_stats]
        if not norms:
            raise ValueError(
                f'CalibrateBatchNormHook found no batch normalisation with '
                f'running statistics in "{self.module}"; remove the hook from '
                'the config'
            )
        before = random_state()
        batches = self._batches(runner.train_dataloader)
        with _cumulative_mode(model, norms), torch.no_grad():
            for batch in batches:
                inputs = model.data_preprocessor(batch, True)['inputs']
                if isinstance(inputs, (list, tuple)):
                    inputs = inputs[0]
                backbone(inputs)
        set_random_state(before)
        runner.logger.info(
            f'Running statistics of {len(norms)} batch normalisation layers '
            f'in "{self.module}" set from {len(batches)} training batches.'
        )

    def _batches(self, loader):
        """Load from the data set directly: the sampler keeps its place."""
        dataset = loader.dataset
        size = loader.batch_size or loader.batch_sampler.batch_size
        size = min(size, len(dataset))
        count = min(self.num_batches, len(dataset) // size)
        order = np.random.default_rng(self.seed).permutation(len(dataset))
        return DataLoader(
            dataset,
            batch_sampler=[
                order[i * size : (i + 1) * size].tolist() for i in range(count)
            ],
            num_workers=min(loader.num_workers, count),
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
            generator=torch.Generator().manual_seed(self.seed),
        )


@contextmanager
def _cumulative_mode(model, norms):
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
