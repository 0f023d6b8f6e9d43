"""The import itself: discover, check, write, resume, report."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import sys
from collections import defaultdict
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib

from medssl_mm.errors import InstallError, UserError
from medssl_mm.files import file_hash, locked
from medssl_mm.importers.base import (
    ERROR,
    CaseError,
    Discovery,
    Importer,
    Problem,
    SourceCase,
    error,
    warning,
)
from medssl_mm.importers.integrity import find_duplicates
from medssl_mm.importers.leftovers import left_out
from medssl_mm.store.splits import Split, saved_splits

# Options that the header holds anyway, or that change no case.
_NOT_KEPT = ('classes', 'split', 'download')
IMPORTED, UNCHANGED, REJECTED = 'imported', 'unchanged', 'rejected'


@dataclass
class CaseResult:
    """What became of one case: imported, unchanged or rejected."""

    case_id: str
    patient_id: str
    source: str
    label_source: str | None
    status: str
    problems: list[Problem] = field(default_factory=list)
    content_sha256: str = ''
    labelled: bool = False


@dataclass
class ImportResult:
    """Outcome of an import.

    Args:
        store (SliceStore | ImageStore): The finished store.
        found (Discovery): What the source holds.
        results (list[CaseResult]): One per case of the source.
        splits (list[Split]): Splits written by :func:`.splits.write_splits`.
        notes (list[str]): Warnings about the data set as a whole.
        gone (frozenset[str]): Cases of the store that are no longer in the source;
            they are in no new split.
        renamed (dict[str, str]): Those of them that are there under another name.
        copies (dict[str, str]): Cases that differ from another one in axes, type or
            scale only, which stands beside them; they are in no new split.
        previous (dict[str, Split]): Splits of the store before the import, by
            protocol.
        changed (frozenset[str]): Cases that were in the store and were imported anew.
        refused (list[str]): Why splits that were asked for were not drawn.
    """

    store: Any
    found: Discovery
    results: list[CaseResult]
    splits: list[Split] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    gone: frozenset[str] = frozenset()
    renamed: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    previous: dict[str, Split] = field(default_factory=dict)
    changed: frozenset[str] = frozenset()
    refused: list[str] = field(default_factory=list)

    def count(self, status: str) -> int:
        """Count the cases of a status."""
        return sum(r.status == status for r in self.results)


class ImportFailed(UserError):
    """The import was given up; nothing was left behind.

    Args:
        message (str): Why.
        results (list[CaseResult]): The findings, for a table.
        unit (str): What a case is called.
    """

    def __init__(self, message: str, results: Sequence[CaseResult], unit: str):
        super().__init__(message)
        self.results = list(results)
        self.unit = unit


def import_dataset(
    importer: Importer,
    src: str | Path | None,
    out: str | Path,
    jobs: int | None = 1,
    limit: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    prune: bool = False,
) -> ImportResult:
    """Import a data set into a slice store, or images into an image set.

    An interrupted import goes on where it stopped; cases whose sources did
    not change are not read again.

    Args:
        importer (Importer): Knows the source format, and has its options.
        src (str | Path, optional): Source folder; None for importers that
            make their data: '<out>-source'.
        out (str | Path): Folder of the store.
        jobs (int, optional): Worker processes; None = as the surrounding
            ``joblib.parallel_config`` says. Defaults to 1.
        limit (int, optional): Import only the first cases. Defaults to None.
        strict (bool): Give up, and leave nothing behind, when any case is
            bad. Defaults to False.
        overwrite (bool): Import everything anew. Defaults to False.
        progress (callable, optional): Called as ``progress(done, total)``.
        prune (bool): Drop the cases of the store that are no longer in the source.
            Defaults to False: they stay, but are in no new split.

    Raises:
        UserError: Nothing found, wrong option, or store of another set.
        ImportFailed: No case was usable, or a bad one in strict mode.
    """
    if limit is not None and limit < 1:
        raise UserError(f'limit must be at least 1, got {limit}')
    if src is None and not importer.source_needed:
        src = f'{out}-source'
    found = _discover(importer, src)
    cases = found.cases[:limit]
    writer = found.create_writer(out, _kept_options(importer), overwrite)
    with _only_one(writer):
        previous, published = saved_splits(writer.root), frozenset(writer.published)
        results = []
        for result in _import_all(importer, found, cases, writer, jobs):
            results.append(result)
            if progress:
                progress(len(results), len(cases))
        results.sort(key=lambda r: r.case_id)
        gone = published - {case.case_id for case in found.cases}
        again, copies = _reject_duplicates(found, results, gone, writer)
        store = _publish(found, results, writer, gone if prune else frozenset(), strict)
    notes = list(found.notes)
    if importer.source_needed and importer.tells_rest:
        notes += left_out(Path(src or '.'), _files_of(importer, found.cases))
    notes += _gone(found, gone, again, prune)
    if copies:
        one = min(copies)
        notes.append(
            f'{len(copies)} {found.unit}(s) are others with other axes, type or scale, '
            f'e.g. {one!r} is {copies[one]!r}: they are in no new split'
        )
    changed = published & {r.case_id for r in results if r.status == IMPORTED}
    return ImportResult(
        store,
        found,
        results,
        notes=notes,
        gone=gone,
        renamed=again,
        copies=copies,
        previous=previous,
        changed=changed,
    )


def _files_of(importer: Importer, cases: Iterable[SourceCase]) -> Iterator[str]:
    """Every file of every case."""
    for case in cases:
        try:
            images, labels = importer.source_files(case)
        except (CaseError, OSError):  # reported with the case
            images, labels = [case.image], [case.label] if case.label else []
        yield from (*images, *labels)


def _gone(
    found: Discovery, gone: Collection[str], again: Mapping[str, str], prune: bool
) -> list[str]:
    """Say which cases of the store have left the source."""
    if not gone:
        return []
    what = f'{len(gone)} {found.unit}(s) of the store are no longer in the source and'
    if prune:
        text = f'{what} were dropped from it, e.g. {min(gone)!r} (--prune)'
    else:
        text = (
            f'{what} were kept, e.g. {min(gone)!r}, but are in no new split; --prune '
            'drops them'
        )
    if not again:
        return [text]
    one = min(again)
    return [
        text,
        f'{len(again)} of these are {found.unit}s of the source under another name, '
        f'e.g. {one!r} is {again[one]!r} now',
    ]


def _kept_options(importer: Importer) -> dict[str, Any]:
    """Options that a store remembers, by name."""
    return {
        name: _plain(value)
        for name, value in sorted(importer.kept().items())
        if name not in _NOT_KEPT
    }


def _publish(
    found: Discovery,
    results: Sequence[CaseResult],
    writer: Any,
    pruned: Collection[str],
    strict: bool,
) -> Any:
    """Put the imported cases in place, if anything changed; opens the store.

    Published cases that were rejected or pruned leave the store.

    Raises:
        ImportFailed: No case was usable, or a bad one in strict mode.
    """
    rejected = [r for r in results if r.status == REJECTED]
    if rejected and (strict or len(rejected) == len(results)):
        writer.discard()
        reason = '--strict: ' if strict else f'no {found.unit} is usable: '
        raise ImportFailed(
            f'{reason}{len(rejected)} of {len(results)} '
            f'{found.unit}s are bad, '
            f'first {rejected[0].case_id!r} ({rejected[0].source}): '
            f'{_first_error(rejected[0])} '
            f'{"Nothing was imported." if strict else ""}'.rstrip(),
            results,
            found.unit,
        )
    stale = {*pruned, *set(writer.published) & {r.case_id for r in rejected}}
    new = writer.overwrite or not (writer.root / 'dataset.json').is_file()
    if writer.staged or stale or new:
        return writer.finish(remove=stale)
    writer.discard()
    return writer.open()


def workers(jobs: int, backend: str = 'loky', scheduler: str | None = None) -> Any:
    """Choose where the workers run; a dask cluster may be plugged in.

    Args:
        jobs (int): Worker processes; -1: one per core.
        backend (str): 'loky' or 'dask', of joblib. Defaults to 'loky'.
        scheduler (str, optional): Address of a running dask scheduler.
            Defaults to None: a local one is started.

    Returns:
        A context for :func:`import_dataset` with ``jobs=None``.

    Raises:
        UserError: dask is not installed.
    """
    if backend == 'loky':
        return joblib.parallel_config('loky', n_jobs=jobs)
    try:
        from dask.distributed import Client  # type: ignore[import-not-found]
    except ImportError:
        raise UserError('--backend dask needs dask; pip install distributed') from None
    return joblib.parallel_config(
        'dask', n_jobs=jobs, client=Client(scheduler), wait_for_workers_timeout=60
    )


def exit_if_rejected(result: ImportResult) -> None:
    """End the program with status 3 when cases were left out, 2 without a split.

    Scripts must notice, though the other cases and splits can be used.
    """
    for refused in result.refused:
        print(f'error: {refused}', file=sys.stderr)
    rejected = result.count(REJECTED)
    if rejected:
        print(
            f'error: {rejected} of {len(result.results)} {result.found.unit}s were '
            'left out, see the table above and import_report.csv; the others are '
            'ready. Repair or remove the sources and run this again',
            file=sys.stderr,
        )
        sys.exit(3)
    if result.refused:
        sys.exit(2)


def _discover(importer: Importer, src: str | Path | None) -> Discovery:
    if importer.source_needed:
        if src is None:
            raise UserError(f'{importer.name!r} needs --src')
        if not Path(src).is_dir():
            raise UserError(
                f'source folder {src} does not exist. Expected layout:\n'
                f'{importer.layout.rstrip()}'
            )
    return importer.discover(Path(src or '.'))


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(name): _plain(v) for name, v in value.items()}
    if isinstance(value, (str, int, float, bool)):
        return value
    return str(value)


def _first_error(result: CaseResult) -> str:
    return next(p.message for p in result.problems if p.severity == ERROR)


@contextmanager
def _only_one(writer: Any) -> Iterator[None]:
    """Hold a lock, so that two imports never write one store."""
    with locked(writer.staging) as lock:
        if lock is None:
            raise UserError(f'another import is writing {writer.root}; wait for it')
        yield


def _import_all(
    importer: Importer,
    found: Discovery,
    cases: Sequence[SourceCase],
    writer: Any,
    jobs: int | None,
) -> Iterator[CaseResult]:
    """Import in parallel; yields results as they come."""
    facts = found.without_cases()
    tasks = (
        joblib.delayed(import_case)(importer, facts, case, writer) for case in cases
    )
    if jobs == 1:
        for function, args, kwargs in tasks:
            yield function(*args, **kwargs)
        return
    parallel = joblib.Parallel(
        n_jobs=jobs,
        return_as='generator_unordered',
        batch_size=found.batch_size,
        pre_dispatch='2*n_jobs',
    )
    yield from parallel(tasks)


def import_case(
    importer: Importer, found: Discovery, case: SourceCase, writer: Any
) -> CaseResult:
    """Load, check and stage one case, unless it is there unchanged.

    Args:
        importer (Importer): Knows the source format.
        found (Discovery): What is true of all cases.
        case (SourceCase): The volume or image.
        writer (StoreWriter | ImageStoreWriter): Of the store.

    Raises:
        InstallError: The format needs a library that is not installed.
    """
    result = CaseResult(case.case_id, case.patient_id, case.image, case.label, REJECTED)
    previous = writer.read_case(case.case_id)
    try:
        if 'problem' in case.extra:
            raise CaseError(*case.extra['problem'])
        files, digests, unchanged = _compare(importer, case, writer, previous)
        if unchanged is not None:
            return _unchanged(result, unchanged)
        loaded = importer.load(case)
    except CaseError as problem:
        result.problems.append(error(problem.code, problem.message))
        return result
    except InstallError:
        raise
    except Exception as problem:  # whatever a broken file provokes
        result.problems.append(
            error('unreadable', f'{case.image}: {type(problem).__name__}: {problem}')
        )
        return result
    info, result.problems = found.stage(case, loaded, writer, files, digests)
    if info is None:
        return result
    result.status = IMPORTED
    result.content_sha256 = info.content_sha256
    result.labelled = info.labelled
    return result


def _compare(
    importer: Importer, case: SourceCase, writer: Any, previous: Any
) -> tuple[tuple, dict, Any]:
    """Compare a case with what the store knows of it.

    Returns:
        tuple: size and time per source file; their digests (empty where size
        and time were enough); its description where it is unchanged, else None.
    """
    image_files, label_files = importer.source_files(case)
    files = tuple(_stat(f) for f in (*image_files, *label_files))
    same_case = (
        previous is not None
        and previous.patient_id == case.patient_id
        and importer.same_label(previous, case, label_files)
    )
    if same_case and previous.source_stat == files:
        return files, {}, previous
    digests = dict(
        source_sha256=file_digest(image_files),
        label_sha256=file_digest(label_files) if label_files else None,
    )
    if same_case and digests == dict(
        source_sha256=previous.source_sha256, label_sha256=previous.label_sha256
    ):
        previous = previous.moved(case.image, case.label, files)
        writer.refresh_case(previous)
        return files, digests, previous
    return files, digests, None


def _unchanged(result: CaseResult, info: Any) -> CaseResult:
    result.status = UNCHANGED
    result.problems = [warning(code, message) for code, message in info.warnings]
    result.content_sha256 = info.content_sha256
    result.labelled = info.labelled
    return result


def _stat(path: str) -> tuple[str, int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise CaseError('missing', f'{path}: {error.strerror}.') from None
    if not stat.S_ISREG(status.st_mode):
        raise CaseError(
            'no-file', f'{path} is a pipe, socket or device, expected a regular file.'
        )
    return (str(path), status.st_size, status.st_mtime_ns)


def file_digest(paths: Sequence[str]) -> str:
    """SHA-256 of a file; of several, the SHA-256 over their digests."""
    digests = [_digest_of_file(*_stat(path)) for path in paths]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256('\n'.join(digests).encode()).hexdigest()


# The last one is kept: a file may hold all images of a set.
@functools.lru_cache(maxsize=1)
def _digest_of_file(path: str, size: int, time: int) -> str:
    return file_hash(path)


def _reject_duplicates(
    found: Discovery,
    results: Sequence[CaseResult],
    gone: Collection[str],
    writer: Any,
) -> tuple[dict[str, str], dict[str, str]]:
    """Judge the cases of the same pixels: copies, and those that contradict.

    Args:
        found (Discovery): What the source holds.
        results (Sequence[CaseResult]): Of its cases; copies become rejected.
        gone (Collection[str]): Cases of the store that the source has no longer.
        writer: Of the store.

    Returns:
        tuple: Those of ``gone`` whose pixels a case of the source has, with its id;
        and likewise the cases that are kept though they follow from another one.
    """
    usable = {r.case_id: r for r in results if r.status != REJECTED}
    kept = [writer.read_case(name) for name in sorted(gone)]
    copies = find_duplicates([*usable.values(), *kept], gone)
    single = [name for name in (*usable, *gone) if name not in copies]
    near = found.near_copies(single, gone, writer)
    copies.update((name, original) for name, (original, _) in near.items())
    again = {name: copies[name] for name in gone if copies.get(name) in usable}
    same: dict[str, list[str]] = defaultdict(list)
    for case_id, original in copies.items():
        if case_id in usable:
            same[original].append(case_id)
    cases = {case.case_id: case for case in found.cases} if same else {}
    for original, others in same.items():
        problems = found.contradictions([cases[name] for name in (original, *others)])
        if not problems:
            patient = usable[original].patient_id
            problems = {
                name: found.duplicate(
                    original,
                    usable[name].patient_id == patient,
                    near[name][1] if name in near else '',
                )
                for name in others
            }
        for name, problem in problems.items():
            usable[name].problems.append(problem)
            if problem.severity == ERROR:
                usable[name].status = REJECTED
                writer.drop_staged(name)
    kept_copies = {
        name: original
        for name, (original, _) in near.items()
        if name in usable and usable[name].status != REJECTED
    }
    return again, kept_copies
