"""Finished tests are of the data that are there now."""

import json

from medssl_mm import experiments
from medssl_mm.store.splits import Split, load_split, save_split
from tests.experiments.conftest import plan
from tests.experiments.made import write_set


def test_tests_of_another_split_are_told(table, tmp_path):
    """A split that was drawn anew under its name; its folders are named."""
    root = tmp_path / 'set'
    write_set(root)

    def settings(config, options):
        part = dict(data_root=str(root), split='made', subset='test')
        return dict(test_dataloader=dict(dataset=part))

    steps = plan(table)[0].values()
    assert experiments.stale_results(steps, settings) == []  # nothing is finished
    tests = [step for step in steps if step.kind == 'test']
    before = load_split(root, 'made')
    for step in tests:
        step.folder.mkdir(parents=True)
        (step.folder / experiments.DONE).write_text('{}')
        content = dict(
            split_hash=before.hash,
            protocol='made',
            mean=dict(auroc=dict(mean=0.5)),
            per_class={},
        )
        (step.folder / 'metrics.json').write_text(json.dumps(content))
    assert experiments.stale_results(steps, settings) == []
    subsets = {name: list(cases) for name, cases in before.subsets.items()}
    subsets['test'] = subsets['test'][3:]
    (root / 'splits' / 'made.json').unlink()
    save_split(root, Split('made', root.name, subsets))
    now = load_split(root, 'made').hash
    [told] = experiments.stale_results(steps, settings)
    assert told.startswith(f'{len(tests)} finished tests are of other images')
    assert f'split {before.hash} when they were tested, {now} now' in told
    assert str(tests[0].folder) in told
    # What has no hash, or no data any more, is not judged.
    assert experiments.stale_results(steps, lambda *_: {}) == []
