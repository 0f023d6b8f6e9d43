import re

from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from tests.engine import toy


@METRICS.register_module(force=True)
class ToyFallingLoss(BaseMetric):
    """Half as much at every validation."""

    value = 1.0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        self.value /= 2
        return dict(fit_loss=self.value)


def _lines(capfd, pattern):
    return [x for x in capfd.readouterr().out.split('\n') if pattern in x]


def test_line_of_an_epoch_based_run_is_short_and_complete(tmp_path, capfd):
    toy.train(toy.config(tmp_path))
    line = _lines(capfd, 'epoch 4/4')[0]
    message = line.partition('INFO - ')[2]
    assert re.fullmatch(
        r'epoch 4/4 \[4/4\]  eta 0:00:00  \d\.\d{3} s/it  data wait \d+%  '
        r'lr 4\.58e-02  loss [\d.e-]+  loss_fit [\d.e-]+  loss_size [\d.e-]+',
        message,
    ), message
    assert len(message) < 120


def test_line_of_an_iteration_based_run(tmp_path, capfd):
    toy.train(toy.config(tmp_path, by_epoch=False))
    assert len(_lines(capfd, 'iter 10/16  eta ')) == 1


def test_history_of_scalars_is_bounded(tmp_path):
    settings = toy.config(tmp_path)
    settings['log_processor']['history'] = 5
    settings['log_processor']['window_size'] = 2
    runner = toy.train(settings)
    logs, _ = runner.message_hub.get_scalar('train/loss').data
    assert len(logs) <= 5 + 4  # trimmed from the first line on
    runner.message_hub.update_scalar('train/loss', 1.0)
    logs, _ = runner.message_hub.get_scalar('train/loss').data
    assert len(logs) == 5


def test_loss_of_a_validation_is_no_mean_over_validations(tmp_path, capfd):
    settings = toy.config(tmp_path)
    settings['val_evaluator'] = dict(type='ToyFallingLoss')
    toy.train(settings)
    lines = _lines(capfd, 'Epoch(val)')
    assert len(lines) == 4
    for number, line in enumerate(lines, start=1):
        assert f'fit_loss: {0.5**number:.4f}' in line
