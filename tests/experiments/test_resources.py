"""What steps ask of Slurm."""

import pytest

from medssl_mm.errors import UserError
from medssl_mm.experiments.resources import SlurmSettings
from medssl_mm.schema import checked


def test_kind_goes_before_the_rest():
    settings = checked(
        SlurmSettings,
        dict(
            partition='gpu',
            gpus=1,
            cpus=4,
            options=dict(account='lab'),
            pretrain=dict(gpus=4, minutes=600, memory_gb=1.5),
            test=dict(gpus=0, warning=30),
        ),
        'a table',
    )
    assert settings.of('pretrain') == dict(
        partition='gpu',
        time=600,
        cpus_per_task=4,
        gres='gpu:4',
        mem='1536M',
        signal_delay_s=120,
        additional_parameters=dict(account='lab'),
    )
    assert settings.of('train')['gres'] == 'gpu:1'
    test = settings.of('test')
    assert 'gres' not in test and test['signal_delay_s'] == 30
    # Five minutes, submitit's own, would be too short for anything.
    assert test['time'] == 240


@pytest.mark.parametrize(
    'content, message',
    [
        (dict(gpu=1), 'gpu'),
        (dict(train=dict(minutes=0)), 'train.minutes'),
        (dict(cpus='four'), 'cpus'),
    ],
)
def test_slips_are_errors(content, message):
    with pytest.raises(UserError, match=f'a table: .*{message}'):
        checked(SlurmSettings, content, 'a table')
