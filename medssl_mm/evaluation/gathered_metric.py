"""What the metrics of this package share: one evaluation for all processes."""

from collections.abc import Mapping, Sequence

from mmengine.evaluator import BaseMetric

from medssl_mm.errors import UserError
from medssl_mm.functional.distributed import gather_objects, is_main_process


class GatheredMetric(BaseMetric):
    """A metric computed once, on the first process, from all results.

    The host cuts gathered results to the size of the data set in the order of
    the sampler. Here ``compute_metrics`` gets everything, in the order of
    ranks, and recognises duplicates itself, so any sampler will do.
    ``self.dataset_size`` is then the number of samples of the data set, and
    ``self.seen`` is written into the result.

    Args:
        bootstrap_samples (int): Resamples of patients for the intervals; 0
            for none. Defaults to 2000.
        bootstrap_seed (int): Seed of the resampling. Defaults to 0.
        out_dir (str, optional): Folder of the files that are written.
            Defaults to None, which writes nothing.
        classes (Sequence[str], optional): Class names. Defaults to those of
            the data set.
        collect_device (str): Kept for the host's interface. Defaults to
            'cpu'.
        prefix (str, optional): Prefix of the metric names. Defaults to that
            of the class.

    Raises:
        ValueError: If a setting is out of range.
    """

    dataset_size: int | None = None
    # What the network has seen of the cases, for the result of a test; see
    # medssl_mm.provenance.
    seen: Mapping | None = None

    def __init__(
        self,
        bootstrap_samples: int = 2000,
        bootstrap_seed: int = 0,
        out_dir: str | None = None,
        classes: Sequence[str] | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if bootstrap_samples < 0:
            raise ValueError(
                f'bootstrap_samples={bootstrap_samples} must be '
                '0 (no intervals) or more'
            )
        self.bootstrap_samples = bootstrap_samples
        self.bootstrap_seed = bootstrap_seed
        self.out_dir = out_dir
        self.classes = classes

    def require_keys(self, sample: dict, keys: Sequence[str], remedy: str) -> None:
        """Raise a ValueError when a data sample lacks one of the keys."""
        for key in keys:
            if key not in sample:
                raise ValueError(
                    f'{type(self).__name__} needs {key!r} in every data '
                    f'sample, found {sorted(sample)}; {remedy}'
                )

    def evaluate(self, size: int) -> dict:
        """Gather the results of all processes and score them on the first."""
        results = [item for part in gather_objects(self.results) for item in part]
        self.results.clear()
        self.dataset_size = size
        content: dict | UserError | None = None
        if is_main_process():
            # An error on one process alone would leave the others waiting.
            try:
                content = self.compute_metrics(results)
            except UserError as error:
                content = error
        content = gather_objects(content)[0]
        if isinstance(content, UserError):
            raise content
        return {f'{self.prefix}/{key}': value for key, value in content.items()}


def common_value(results: Sequence, name: str) -> str | None:
    """Value of an attribute shared by all results; all values if several."""
    values = {getattr(result, name) for result in results} - {None}
    return ', '.join(sorted(map(str, values))) or None
