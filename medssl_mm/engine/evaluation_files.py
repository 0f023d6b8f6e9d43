"""Where the result files of a test go."""

from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner

from medssl_mm.registry import HOOKS


@HOOKS.register_module()
class EvaluationFilesHook(Hook):
    """Lets every test write its tables below the work directory.

    A metric of the test evaluator whose ``out_dir`` is None, such as
    ``VolumeMetric``, writes to ``<work_dir>/<name>``.

    Args:
        name (str): Name of the folder. Defaults to 'test'.
    """

    def __init__(self, name: str = 'test') -> None:
        self.name = name

    def before_test(self, runner: Runner) -> None:
        """Name the folder."""
        for metric in runner.test_evaluator.metrics:
            if getattr(metric, 'out_dir', '') is None:
                metric.out_dir = str(Path(runner.work_dir, self.name))
