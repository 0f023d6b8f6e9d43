from types import SimpleNamespace

from medssl_mm.engine.evaluation_files import EvaluationFilesHook
from medssl_mm.evaluation import VolumeMetric


def test_only_a_metric_without_folder_gets_one(tmp_path):
    free, chosen = VolumeMetric(), VolumeMetric(out_dir='elsewhere')
    runner = SimpleNamespace(
        work_dir=str(tmp_path),
        test_evaluator=SimpleNamespace(metrics=[free, chosen, object()]),
    )
    EvaluationFilesHook().before_test(runner)
    assert free.out_dir == str(tmp_path / 'test')
    assert chosen.out_dir == 'elsewhere'
