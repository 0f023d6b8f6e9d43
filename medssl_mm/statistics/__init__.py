"""Numbers with intervals, from arrays: numpy and scipy only."""

from .classification import Predictions, Scores
from .compare import Resampled, mean_over_seeds, paired_difference
from .interval import Interval
from .resampling import bootstrap_means, few_patients, patient_weights

__all__ = [
    'Interval',
    'Predictions',
    'Resampled',
    'Scores',
    'bootstrap_means',
    'few_patients',
    'mean_over_seeds',
    'paired_difference',
    'patient_weights',
]
