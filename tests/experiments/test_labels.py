"""How many patients are labelled, from the splits that trainings read."""

from dataclasses import replace

from medssl_mm import experiments
from medssl_mm.experiments.labels import told_labels
from medssl_mm.store import load_split, open_store, take_fraction
from tests.experiments.conftest import plan
from tests.experiments.made import write_set


def test_labelled_patients_are_told_for_every_share(table, tmp_path):
    """As many as the data set takes, and those that choose weights."""
    root, split = tmp_path / 'set', 'made'
    write_set(root)
    found, store = load_split(root, split), open_store(root)

    def settings(config, options):
        part = dict(data_root=str(root), split=split)
        share = options.get('train_dataloader.dataset.fraction', 1.0)
        return dict(
            train_dataloader=dict(dataset=dict(part, subset='train', fraction=share)),
            val_dataloader=dict(dataset=dict(part, subset='val')),
            val_cfg=None if 'val_cfg' in options else {},
        )

    def patients(subset, share=1.0):
        names = take_fraction(found, subset, share, 0, store.patient_of)
        return len({store.patient_of(name) for name in names})

    table = replace(table, last_weights_below=0.6)
    steps = plan(table)[0].values()
    assert told_labels(steps, table, settings) == ''  # none is finished
    for step in steps:
        step.folder.mkdir(parents=True)
        (step.folder / experiments.DONE).write_text('{}')
    assert told_labels(steps, table, settings) == (
        f'Labelled patients: 100 %: {patients("train")} and {patients("val")} of '
        f'validation; 50 %: {patients("train", 0.5)}.'
    )
    assert told_labels(steps, table, lambda *_: {}) == ''
