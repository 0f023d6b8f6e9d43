"""Early stopping that a resumed run goes on with."""

from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner

from medssl_mm.registry import HOOKS


@HOOKS.register_module()
class ResumableEarlyStoppingHook(EarlyStoppingHook):
    """mmengine's ``EarlyStoppingHook``, which forgets its count on resuming.

    Best score and count are kept in checkpoints, of validations as well as of
    those before: a resumed run ends where an undisturbed one would.
    """

    # Before the checkpoint of the validation is written.
    priority = 'HIGH'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep best score and count."""
        checkpoint['early_stopping'] = dict(
            best_score=self.best_score, wait_count=self.wait_count
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take them up when the run is resumed."""
        if getattr(runner, '_resume', False):
            for name, value in (checkpoint.get('early_stopping') or {}).items():
                setattr(self, name, value)
