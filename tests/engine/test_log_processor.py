import re

from tests.engine import toy


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
