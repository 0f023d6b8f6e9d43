"""Splits of an import: those that come with a data set, and those asked for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from medssl_mm.errors import UserError
from medssl_mm.importers.base import Importer
from medssl_mm.importers.run import ImportResult
from medssl_mm.store.splits import (
    Split,
    check_no_leak,
    describe_changes,
    make_holdout,
    make_kfold,
    save_split,
    with_content,
)

_FOLD = re.compile(r'(-fold\d+)?$')


def write_splits(
    importer: Importer,
    result: ImportResult,
    holdout: float | None = None,
    val: float = 0.0,
    folds: int | None = None,
    seed: int = 0,
    stratified: bool = False,
    redraw: bool = False,
    beside: bool = False,
) -> None:
    """Write the splits that the data set ships and those asked for.

    Splits are drawn over the labelled cases of the source, if there are any; the
    unlabelled ones go to pretraining. A split that is there already stays as it is:
    if it would get other cases, it is refused (one that was asked for) or told
    (one that comes with the set). Adds to ``result.splits``, ``result.notes`` and
    ``result.refused``.

    Args:
        importer (Importer): Ships published protocols.
        result (ImportResult): The import.
        holdout (float, optional): Share of the patients for a hold-out
            split. Defaults to None.
        val (float): Share for its validation subset. Defaults to 0.0.
        folds (int, optional): Number of folds of k-fold splits. Defaults to
            None.
        seed (int): Seed of the draw. Defaults to 0.
        stratified (bool): Draw those asked for in proportion by the rarest
            class of each patient; image sets only. Defaults to False.
        redraw (bool): Replace splits that have other cases. Defaults to False.
        beside (bool): Write them under a name of their own. Defaults to False.

    Raises:
        UserError: Shares out of range, too few patients, or a leak.
    """
    if val and holdout is None:
        raise UserError('--val needs --holdout')
    if redraw and beside:
        raise UserError(
            '--redraw replaces a split, --beside draws another: give one of them'
        )
    classes_of = result.found.classes_of(result.store) if stratified else None
    if stratified and holdout is None and folds is None:
        raise UserError('--stratified needs --holdout or --folds')
    left_out = {*result.gone, *result.copies}
    infos = [i for i in result.store.infos() if i.case_id not in left_out]
    patient_of = {i.case_id: i.patient_id for i in infos}
    labelled = [i.case_id for i in infos if i.labelled] or list(patient_of)
    drawn: dict[str, Any] = dict(seed=seed, classes_of=classes_of)
    drawn.update(case_ids=labelled, patient_of=patient_of, pretrain_ids=patient_of)
    drawn.update(dataset=result.store.name)
    _refresh(result)
    writer = _Writer(result, redraw, beside)
    shipped, notes = importer.splits(result.found, infos)
    result.notes += notes
    writer.add(shipped, asked=False)
    if holdout is not None:
        writer.add([make_holdout(test=holdout, val=val, **drawn)], asked=True)
    if folds is not None:
        writer.add(make_kfold(folds=folds, **drawn), asked=True)
    _tell_lost(result)


def _refresh(result: ImportResult) -> None:
    """Give the splits that were there the hash of what their cases hold now.

    Those of before, whose hash says nothing of the content, keep it for as long as
    nothing changes.
    """
    store, known = result.store, set(result.store.case_ids)
    if not (store.root / 'splits').is_dir():
        return
    for name, split in result.previous.items():
        path = store.root / 'splits' / f'{name}.json'
        if not path.is_file() or not known.issuperset(split.case_ids):
            continue  # --overwrite; --prune, of which _tell_lost speaks
        touched = result.changed.intersection(split.case_ids)
        if split.content is None and not touched:
            continue
        now = with_content(split, store.fingerprint_of)
        if now == split:
            continue
        save_split(store.root, now)
        result.previous[name] = now
        result.notes.append(
            f'split {name}: images or labels of its {result.found.unit}s have changed'
            + (f' ({len(touched)}, e.g. {min(touched)!r})' if touched else '')
            + f', its hash is {now.hash} now, no longer {split.hash}; results of '
            'before are not compared with new ones'
        )


def _tell_lost(result: ImportResult) -> None:
    """Say which splits that were there name cases that the store has no longer."""
    known, made = set(result.store.case_ids), {s.protocol for s in result.splits}
    for name, split in result.previous.items():
        lost = set(split.case_ids) - known
        path = result.store.root / 'splits' / f'{name}.json'
        if lost and name not in made and path.is_file():
            result.notes.append(
                f'split {name} names {len(lost)} {result.found.unit}(s) that the store '
                f'has no longer, e.g. {min(lost)!r}: it cannot be used any more; draw '
                'it anew by --redraw (results of before are on other data), or delete '
                f'{path}'
            )


class _Writer:
    """Writes groups of splits (a hold-out, all folds), each whole or not at all.

    Args:
        result (ImportResult): The import; gets splits and notes.
        redraw (bool): Replace splits that have other cases.
        beside (bool): Write them under a name of their own.
    """

    def __init__(self, result: ImportResult, redraw: bool, beside: bool):
        self.result = result
        self.redraw = redraw
        self.beside = beside

    def add(self, splits: Sequence[Split], asked: bool) -> None:
        groups: dict[str, list[Split]] = {}
        for split in splits:
            groups.setdefault(_FOLD.sub('', split.protocol), []).append(split)
        for group in groups.values():
            self._add_group(group, asked)

    def _add_group(self, group: list[Split], asked: bool) -> None:
        result = self.result
        changed = self._changed(group)
        if not changed:
            self._write(group)
            return
        what = describe_changes(*changed[0], result.found.unit)
        name = changed[0][0].protocol
        if self.beside:
            group = self._renamed(group)
            self._write(group)
            result.notes.append(
                f'split {name} stays as it is; drawn beside it over other '
                f'{result.found.unit}s ({what}): {group[0].protocol}'
            )
        elif self.redraw or not (result.store.root / f'splits/{name}.json').is_file():
            why = '--redraw' if self.redraw else '--overwrite'
            self._write(group)
            result.notes.append(
                f'split {name} was drawn anew ({why}): {what}. Results and checkpoints '
                'of before are of another split, and may have been trained on what it '
                'tests'
            )
        else:
            self._refuse(group, name, what, asked)

    def _refuse(self, group: list[Split], name: str, what: str, asked: bool) -> None:
        text = (
            f'split {name} is there already and would change: {what}. What was trained '
            'with it may have seen what the new one tests, so it was left as it is. '
            f'--beside draws another, {self._renamed(group)[0].protocol}; --redraw '
            'replaces it (train anew then)'
        )
        try:
            check_no_leak(self.result.previous[name], self.result.store.patient_of)
        except UserError as error:
            text += f'. As it is it is refused: {error}'
        if asked:
            self.result.refused.append(text + '; another --seed has a name of its own')
        else:
            self.result.notes.append(text)

    def _changed(self, group: Iterable[Split]) -> list[tuple[Split, Split]]:
        """Splits that are there with other cases, and as they would be."""
        pairs = [(self._before(s.protocol), s) for s in group]
        return [(a, b) for a, b in pairs if a and a.cases_hash != b.cases_hash]

    def _before(self, protocol: str) -> Split | None:
        """A split that is there, with the names that its cases have now."""
        split = self.result.previous.get(protocol)
        names = self.result.renamed
        if split is None or not names:
            return split
        subsets = {
            subset: list(dict.fromkeys(names.get(name, name) for name in cases))
            for subset, cases in split.subsets.items()
        }
        return replace(split, subsets=subsets)

    def _renamed(self, group: list[Split]) -> list[Split]:
        """The splits under a name that tells their number of cases."""
        names = sorted({name for split in group for name in split.case_ids})
        digest = hashlib.sha256('\n'.join(names).encode()).hexdigest()[:6]
        for tag in (f'-of{len(names)}', f'-of{len(names)}-{digest}'):
            renamed = [
                replace(s, protocol=_FOLD.sub(rf'{tag}\1', s.protocol, count=1))
                for s in group
            ]
            if not self._changed(renamed):
                break
        return renamed

    def _write(self, group: Iterable[Split]) -> None:
        store = self.result.store
        for split in group:
            check_no_leak(split, store.patient_of)
            there = self.result.previous.get(split.protocol)
            path = store.root / 'splits' / f'{split.protocol}.json'
            if there and there.cases_hash == split.cases_hash and path.is_file():
                split = there  # perhaps of before, without content
            else:
                split = with_content(split, store.fingerprint_of)
                save_split(store.root, split)
                if there and not self._changed([split]):
                    self.result.notes.append(
                        f'split {split.protocol}: cases of it have other names now, '
                        f'on the same sides; its hash is {split.hash}, no longer '
                        f'{there.hash}'
                    )
            self.result.splits.append(split)
