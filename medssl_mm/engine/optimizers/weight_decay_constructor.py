"""Which parameters decay."""

from typing import Any

from mmcv.cnn import is_norm
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

# What mmselfsup's LARS calls parameters whose rate it does not adapt.
LARS_EXCLUDE = 'lars_exclude'


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class WeightDecayConstructor(DefaultOptimWrapperConstructor):
    """Leaves biases and normalisation out of weight decay.

    Used as ``optim_wrapper=dict(constructor='medssl_mm.WeightDecayConstructor',
    ...)``. Two groups of parameters, where mmengine's own constructor makes
    one of each tensor, which optimizers then step through one by one. What
    asks for no gradient, such as a slow copy, is in neither.

    LARS does not adapt the rate of what does not decay, either.

    Args:
        optim_wrapper_cfg (dict): mmengine's.
        paramwise_cfg (dict, optional): ``by_name`` (bool): no decay for
            parameters that have "bias" or "bn" in their name, the filter of
            InnerEye, which takes the normalisation ``downsample.1`` of a
            ResNet for a weight. Otherwise for biases, and for all parameters
            of normalisation layers. Defaults to False.

    Raises:
        UserError: An unknown setting, or no ``weight_decay``.
    """

    def __init__(
        self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None
    ) -> None:
        settings = dict(paramwise_cfg or {})
        self.by_name = settings.pop('by_name', False)
        if settings:
            raise UserError(
                f'WeightDecayConstructor: paramwise_cfg has unknown '
                f'{", ".join(settings)}; it takes by_name only'
            )
        super().__init__(optim_wrapper_cfg)
        if self.base_wd is None:
            raise UserError(
                'WeightDecayConstructor: optim_wrapper.optimizer has no weight_decay; '
                'set it, or leave constructor out'
            )

    def __call__(self, model: Any) -> OptimWrapper:
        """Build the optimizer and its wrapper.

        Args:
            model (nn.Module): The model, or its wrapper.
        """
        model = model.module if is_model_wrapper(model) else model
        decaying: list[Tensor] = []
        others: list[Tensor] = []
        seen: set[Tensor] = set()
        for prefix, module in model.named_modules():
            for name, value in module.named_parameters(prefix, recurse=False):
                if value.requires_grad and value not in seen:
                    seen.add(value)
                    decays = self._decays(name, module)
                    (decaying if decays else others).append(value)
        groups: list[dict] = [dict(params=decaying)]
        if others:
            groups.append({'params': others, 'weight_decay': 0.0, LARS_EXCLUDE: True})
        optimizer = OPTIMIZERS.build(dict(self.optimizer_cfg, params=groups))
        return OPTIM_WRAPPERS.build(
            {'type': 'OptimWrapper', **self.optim_wrapper_cfg},
            default_args=dict(optimizer=optimizer),
        )

    def _decays(self, name: str, module: nn.Module) -> bool:
        if self.by_name:
            return 'bias' not in name and 'bn' not in name
        return not (is_norm(module) or name.endswith('bias'))
