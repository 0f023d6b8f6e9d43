"""Lets the target of a model follow after every step of the optimizer."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from medssl_mm.engine.observing import inner_model
from medssl_mm.registry import HOOKS


@HOOKS.register_module()
class TargetUpdateHook(Hook):
    """Calls ``update_target`` of the model, such as ``MultiLevelBYOL``.

    With the share of the run that is done, k / K: k = ``runner.iter`` from 0,
    K = ``runner.max_iters``. So a resumed run goes on exactly, without a
    stored state; one whose length was changed follows the new length. While
    gradients are accumulated, and the optimizer waits, so does the target.
    What ``update_target`` returns is logged as ``tau``. Other models are left
    alone.
    """

    # After the step, before its values are logged and saved.
    priority = 'NORMAL'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: object = None,
    ) -> None:
        """Update, if the optimizer has made a step."""
        update = getattr(inner_model(runner), 'update_target', None)
        if update is None or not runner.optim_wrapper.should_update():
            return
        tau = update(runner.iter / runner.max_iters)
        runner.message_hub.update_scalar('train/tau', tau)
