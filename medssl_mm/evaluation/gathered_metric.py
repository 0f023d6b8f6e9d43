"""What the metrics of this package share: one evaluation for all processes."""
from collections.abc import Sequence

from mmengine.evaluator import BaseMetric

from medssl_mm.errors import UserError
from medssl_mm.functional.distributed import gather_objects, is_main_process


class GatheredMetric(BaseMetric):
    """A metric computed once, on the first process, from all results.

    The host cuts gathered results to the size of the data set in the order of
    the sampler. Here ``compute_metrics`` gets everything, in the order of
    ranks, and recognises duplicates itself, so any sampler will do.
    ``self.dataset_size`` is then the number of samples of the data set.

    Args:
        collect_device (str): Kept for the host's interface. Defaults to
            'cpu'.
        prefix (str, optional): Prefix of the metric names. Defaults to that
            of the class.
    """

    dataset_size = None

    def evaluate(self, size: int) -> dict:
        """Gather the results of all processes and score them on the first."""
        results = [
            item for part in gather_objects(self.results) for item in part
        ]
        self.results.clear()
        self.dataset_size = size
        content = None
        if is_main_process():
            # An error on one process alone would leave the others waiting.
            try:
                content = self.compute_metrics(results)
            except UserError as error:
                content = error
        content = gather_objects(content)[0]
        if isinstance(content, UserError):
            raise content
        return {
            f'{self.prefix}/{key}': value
            for key, value in content.items()
        }


def common_value(results: Sequence, name: str) -> str | None:
    """Value of an attribute shared by all results; all values if several."""
    values = sorted({str(getattr(result, name)) for result in results
                     if getattr(result, name) is not None})
    return ', '.join(values) or None
