"""Results of transfer tables as tables, figures, summaries and a page."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl_mm.analysis import few_shot
from medssl_mm.analysis.transfer import (
    ACCURACY,
    AUROC,
    POLICY,
    SCORES,
    scaled_performance,
)
from medssl_mm.errors import UserError, similar
from medssl_mm.files import delimiter_of, read_text
from medssl_mm.provenance import STAGES
from medssl_mm.statistics import (
    Interval,
    Resampled,
    mean_over_seeds,
    paired_difference,
)
from medssl_mm.statistics.correlation import Correlation, correlation

from .figures import colours_of, legend_below, panel_grid
from .files import csv_text, interval_entry, plain, write_results
from .page import Picture, Section, render_page
from .screen import show_table, to_markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from rich.console import Console

TOP1 = 'ImageNet top-1'
# Points below which a correlation says next to nothing.
FEW_POINTS = 8
SEEN = '†'
COMPAT = 'compat'
SHARE = (0.0, 1.0)


@dataclass(frozen=True)
class Place:
    """A cell of the tables: of all seeds.

    Args:
        encoder (str): Name.
        dataset (str): Name.
        protocol (str): Name.
    """

    encoder: str
    dataset: str
    protocol: str


@dataclass(frozen=True)
class EncoderMeasure:
    """A number of an encoder, such as its invariance, that scores may go along with.

    Args:
        encoder (str): Name in the table.
        measure (str): What it is.
        value (float): The number.
        dataset (str): Where it was measured on one: its name in the table, or that
            of its folder or header; '': of the encoder.
        mode (str): 'strict' or 'compat'; '': either.
    """

    encoder: str
    measure: str
    value: float
    dataset: str = ''
    mode: str = ''


class TransferResults:
    """Results of a table, of one mode.

    Args:
        contents (Iterable[Mapping]): As files hold them, see
            :func:`medssl_mm.experiments.finished_cells`.
        baseline (str, optional): Encoder that the others are compared with.
        measures (Sequence[EncoderMeasure]): Further numbers. Defaults to ().

    Raises:
        UserError: There are none, or they are of two modes.
    """

    def __init__(
        self,
        contents: Iterable[Mapping],
        baseline: str | None = None,
        measures: Sequence[EncoderMeasure] = (),
    ) -> None:
        self.contents = list(contents)
        if not self.contents:
            raise UserError('no result is finished yet, so there is no table')
        modes = sorted({content['mode'] for content in self.contents})
        if len(modes) > 1:
            raise UserError(
                f'results of the modes {" and ".join(modes)} are not put into one '
                'table; choose one'
            )
        self.mode = modes[0]
        self.baseline = baseline
        for one in measures:
            if one.mode not in ('', self.mode):
                raise UserError(
                    f'{one.measure} of {one.encoder} was measured in mode {one.mode}, '
                    f'the table is of mode {self.mode}; a table mixes none'
                )
        self.measures = measures
        self.groups: dict[Place, list[Mapping]] = {}
        for content in self.contents:
            place = Place(
                content['encoder']['name'],
                content['dataset']['name'],
                content['protocol'],
            )
            self.groups.setdefault(place, []).append(content)

    def _facts(self, kind: str) -> dict[str, Mapping]:
        return {content[kind]['name']: content[kind] for content in self.contents}

    @cached_property
    def encoders(self) -> dict[str, Mapping]:
        """What is known of each, by name."""
        return self._facts('encoder')

    @cached_property
    def datasets(self) -> dict[str, Mapping]:
        """What is known of each, by name."""
        return self._facts('dataset')

    @cached_property
    def protocols(self) -> list[str]:
        """Names."""
        return list(dict.fromkeys(place.protocol for place in self.groups))

    def _is_few_shot(self, protocol: str) -> bool:
        return any(
            'digest' in group[0]
            for place, group in self.groups.items()
            if place.protocol == protocol
        )

    def headline(self, protocol: str, dataset: str) -> str:
        """The score that figures and summaries are of.

        In mode 'compat' that which the published comparison reported.
        """
        if self._is_few_shot(protocol):
            return ACCURACY
        return str(self.datasets[dataset]['metric']) if self.mode == COMPAT else AUROC

    def headlines(self, protocol: str) -> list[str]:
        """Those of all data sets."""
        datasets = [d for d, name in self.columns() if name == protocol]
        return list(dict.fromkeys(self.headline(protocol, d) for d in datasets))

    def scores(self, protocol: str) -> list[str]:
        """Those that any data set has."""
        found = {
            name
            for place, group in self.groups.items()
            if place.protocol == protocol
            for name in group[0]['drawn']
        }
        return [name for name in SCORES if name in found]

    # ------------------------------------------------------------- numbers

    def _few_shot(self, place: Place) -> list[few_shot.FewShot]:
        return [
            few_shot.FewShot(
                place.encoder,
                '',
                content['settings']['shots'],
                np.array(content['drawn'][ACCURACY]),
                content['digest'],
                number,
            )
            for number, content in enumerate(self.groups[place])
        ]

    def _resampled(self, place: Place, score: str) -> list[Resampled]:
        return [
            Resampled(
                f'{place.encoder} on {place.dataset}',
                np.array(content['drawn'][score], float),
                dict(images=content.get('predictions', {}).get('image_ids')),
                content['patients'],
            )
            for content in self.groups[place]
        ]

    def _has(self, place: Place, score: str) -> bool:
        return place in self.groups and score in self.groups[place][0]['drawn']

    def value(self, place: Place, score: str) -> Interval:
        """Mean over seeds; not measured: NaN."""
        if not self._has(place, score):
            return Interval()
        if 'digest' in self.groups[place][0]:
            return few_shot.accuracy(self._few_shot(place), _ddof(self.mode))
        return mean_over_seeds(self._resampled(place, score), SHARE)

    def difference(self, place: Place, score: str) -> Interval | None:
        """Against the baseline, paired; None where there is none."""
        other = Place(self.baseline or '', place.dataset, place.protocol)
        if place == other or not (self._has(place, score) and self._has(other, score)):
            return None
        if 'digest' in self.groups[place][0]:
            return few_shot.difference(
                self._few_shot(place), self._few_shot(other), _ddof(self.mode)
            )
        return paired_difference(
            self._resampled(other, score),
            self._resampled(place, score),
            (self._seeds(other), self._seeds(place)),
        )

    def _seeds(self, place: Place) -> list[int]:
        """Seeds of what varies by them alike in all encoders: of fine-tuning.

        Random starts of two encoders have nothing in common, whatever their seeds.
        """
        group = self.groups[place]
        if group[0]['settings'].get('kind') != 'finetune':
            return []
        return [content['encoder']['seed'] for content in group]

    def seen(self, place: Place) -> bool:
        """Whether the weights have been trained on the data set.

        The table, the encoder or the record in its file says so, of the set or of
        that which its pictures are from; or images that are scored were seen.
        """
        return any(
            content['trained_on_it']
            or not STAGES.keys().isdisjoint(content.get('seen') or ())
            for content in self.groups.get(place, ())
        )

    # -------------------------------------------------------------- tables

    def frame(self) -> DataFrame:
        """A row per encoder, data set, protocol and score."""
        import pandas as pd

        rows = []
        for place, group in self.groups.items():
            encoder, dataset = self.encoders[place.encoder], group[0]['dataset']
            for score in self.scores(place.protocol):
                if not self._has(place, score):
                    continue
                found = self.value(place, score)
                difference = self.difference(place, score) or Interval()
                rows.append(
                    dict(
                        mode=self.mode,
                        encoder=place.encoder,
                        title=encoder['title'],
                        group=encoder['group'],
                        imagenet_top1=encoder['imagenet_top1'],
                        dataset=place.dataset,
                        domain=dataset['domain'],
                        protocol=place.protocol,
                        score=score,
                        seeds=len(group),
                        value=found.estimate,
                        low=found.low,
                        high=found.high,
                        difference=difference.estimate,
                        difference_low=difference.low,
                        difference_high=difference.high,
                        seen=self.seen(place),
                        split=group[0]['split'],
                        split_hash=group[0]['split_hash'],
                    )
                )
        return pd.DataFrame(rows)

    def table(self, protocol: str, score: str) -> DataFrame:
        """Text in points: a row per encoder, a column per data set."""
        import pandas as pd

        datasets = [
            name
            for name in self.datasets
            if any(
                self._has(Place(encoder, name, protocol), score)
                for encoder in self.encoders
            )
        ]
        rows = []
        for name, facts in self.encoders.items():
            cells = [self._cell(Place(name, d, protocol), score) for d in datasets]
            if any(cells):
                rows.append([facts['title'], *(cell or '–' for cell in cells)])
        titles = [self.datasets[name]['title'] for name in datasets]
        return pd.DataFrame(rows, columns=['encoder', *titles])

    def _cell(self, place: Place, score: str) -> str:
        if not self._has(place, score):
            return ''
        difference = self.difference(place, score)
        parts = [self.value(place, score).text(1, 100)]
        if difference is not None:
            parts.append(difference.text(1, 100, '+'))
        return ', '.join(parts) + (f' {SEEN}' if self.seen(place) else '')

    # ----------------------------------------------------------- summaries

    def columns(self) -> Iterator[tuple[str, str]]:
        """Data sets and protocols that there is a number of."""
        for protocol in self.protocols:
            for dataset in self.datasets:
                if any(
                    p.dataset == dataset and p.protocol == protocol for p in self.groups
                ):
                    yield dataset, protocol

    def _column(self, dataset: str, protocol: str) -> dict[str, float]:
        score = self.headline(protocol, dataset)
        return {
            name: self.value(Place(name, dataset, protocol), score).estimate
            for name in self.encoders
        }

    def scaled(self) -> DataFrame:
        """Scaled performance by domain, see :func:`.scaled_performance`."""
        import pandas as pd

        by_domain: dict[str, list[dict[str, float]]] = {}
        for dataset, protocol in self.columns():
            domain = self.datasets[dataset]['domain'] or 'other'
            by_domain.setdefault(domain, []).append(self._column(dataset, protocol))
        found = {'encoder': [facts['title'] for facts in self.encoders.values()]}
        for domain, columns in by_domain.items():
            scores = np.array(
                [[column[name] for column in columns] for name in self.encoders]
            )
            found[domain] = [
                '–' if np.isnan(value) else f'{value:.3f}'
                for value in scaled_performance(scores)
            ]
        return pd.DataFrame(found)

    def correlations(self) -> list[tuple[str, str, str, Correlation]]:
        """Of each column with ImageNet top-1 and further measures.

        Returns:
            list: Data set, protocol, measure and correlation; those of fewer
            than three encoders are left out.
        """
        known = [
            EncoderMeasure(name, TOP1, facts['imagenet_top1'])
            for name, facts in self.encoders.items()
            if facts['imagenet_top1'] is not None
        ]
        numbers: dict[tuple[str, str], dict[str, float]] = {}
        for one in [*known, *self.measures]:
            numbers.setdefault((one.measure, one.dataset), {})[one.encoder] = one.value
        return [
            (dataset, protocol, measure, found)
            for dataset, protocol in self.columns()
            for (measure, where), values in numbers.items()
            if not where or dataset in self._called(where)
            for kind in ('pearson', 'spearman')
            if (
                found := correlation(self._column(dataset, protocol), values, kind)
            ).points
            > 2
        ]

    def _called(self, name: str) -> list[str]:
        """Data sets of the table that a measure means; tools name that of the file."""
        if name in self.datasets:
            return [name]
        plain = name.replace('_', '-')
        return [
            dataset
            for dataset, facts in self.datasets.items()
            if plain in {one.replace('_', '-') for one in (dataset, *facts['sets'])}
        ]

    def _unused_measures(self) -> list[str]:
        """What the files of measures have that is of nothing in the table."""
        found: dict[str, int] = {}
        for one in self.measures:
            if one.encoder not in self.encoders:
                why = f'no encoder {one.encoder!r}{similar(one.encoder, self.encoders)}'
            elif one.dataset and not self._called(one.dataset):
                known = [n for d, f in self.datasets.items() for n in (d, *f['sets'])]
                known = list(dict.fromkeys(known))
                why = f'no data set {one.dataset!r}{similar(one.dataset, known)}'
            else:
                continue
            found[why] = found.get(why, 0) + 1
        return [
            f'{n} row{"s" * (n > 1)} of --measures not used: the table has {why}'
            for why, n in found.items()
        ]

    def correlation_table(self) -> DataFrame:
        """Text of :meth:`correlations`."""
        import pandas as pd

        rows: dict[tuple, dict] = {}
        for dataset, protocol, measure, found in self.correlations():
            row = rows.setdefault((dataset, protocol, measure), {})
            row[found.kind] = Interval(found.r, found.low, found.high).text(2) + (
                '' if np.isnan(found.p) else f', p {found.p:.2g}'
            )
            row['encoders'] = str(found.points)
        return pd.DataFrame(
            [
                (
                    self.datasets[key[0]]['title'],
                    *key[1:],
                    *(row[k] for k in ('pearson', 'spearman', 'encoders')),
                )
                for key, row in rows.items()
            ],
            columns=[
                'data set',
                'protocol',
                'with',
                'Pearson r',
                'Spearman r',
                'encoders',
            ],
        )

    def _rules(self) -> list[str]:
        """What mode 'compat' made of encoders, data sets and protocols."""
        found = [
            f'{name}: {facts["rule"]}'
            for name, facts in self.encoders.items()
            if facts.get('rule')
        ]
        for place, group in self.groups.items():
            rules = group[0].get('rules')
            if rules:
                found.append(f'{place.protocol} of {place.dataset}: {"; ".join(rules)}')
        return list(dict.fromkeys(found))

    def notes(self) -> list[str]:
        """What a reader of the numbers has to know."""
        notes = [f'mode {self.mode}', *self._rules(), *self._unused_measures()]
        if any(self.seen(place) for place in self.groups):
            notes.append(
                f'{SEEN}: the weights have been trained on this data set or on that '
                'which its pictures are from, or have seen images of it'
            )
        without = [
            name
            for name in self.datasets
            if any(
                place.dataset == name and not group[0]['has_patients']
                for place, group in self.groups.items()
            )
        ]
        if without:
            notes.append(
                f'{", ".join(without)}: no two images are known to be of one patient; '
                'intervals are over images, and too narrow if some are'
            )
        for place, group in self.groups.items():
            for content in group:
                notes += [
                    f'{place.encoder}, {place.dataset}: {note}'
                    for note in content['notes']
                ]
        unknown = dict.fromkeys(
            name
            for group in self.groups.values()
            for content in group
            for name in (content.get('seen') or {}).get('not_known', ())
        )
        if unknown:
            notes.append(
                'no record of what was seen comes with these weights; images that are '
                f'tested may be among it: {", ".join(unknown)}'
            )
        points = [found.points for *_, found in self.correlations()]
        if points and min(points) < FEW_POINTS:
            notes.append(
                f'correlations of {min(points)} encoders say little: see their '
                'intervals'
            )
        return list(dict.fromkeys(notes))

    # ------------------------------------------------------------- figures

    def draw(self) -> Figure:
        """A panel per protocol and data set, a bar per encoder."""
        columns = list(self.columns())
        names = [facts['title'] for facts in self.encoders.values()]
        height = max(1.6, 0.9 + 0.22 * len(names))
        figure, panels = panel_grid(len(columns), 3.6, height, most=3)
        colours = colours_of([facts['group'] for facts in self.encoders.values()])
        for axes, (dataset, protocol) in zip(panels, columns):
            score = self.headline(protocol, dataset)
            for number, (name, facts) in enumerate(self.encoders.items()):
                place = Place(name, dataset, protocol)
                found = self.value(place, score)
                if not found.measured:
                    continue
                ends = np.nan_to_num(
                    [
                        [found.estimate - found.low],
                        [found.high - found.estimate],
                    ]
                )
                axes.errorbar(
                    [found.estimate],
                    [number],
                    xerr=ends,
                    fmt='D' if self.seen(place) else 'o',
                    markersize=4,
                    color=colours[facts['group']],
                )
            axes.set_yticks(range(len(names)), names, fontsize=7)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_xlabel(score, fontsize=8)
            title = self.datasets[dataset]['title']
            axes.set_title(f'{title}: {protocol}', fontsize=9)
        if any(colours):
            legend_below(figure, {name or 'other': c for name, c in colours.items()})
        return figure

    def draw_top1(self) -> Figure | None:
        """Scores against ImageNet top-1; None for fewer than three encoders."""
        known = {
            name: facts['imagenet_top1']
            for name, facts in self.encoders.items()
            if facts['imagenet_top1'] is not None
        }
        if len(known) < 3:
            return None
        columns = list(self.columns())
        figure, panels = panel_grid(len(columns), 2.8, 2.4)
        colours = colours_of([facts['group'] for facts in self.encoders.values()])
        for axes, (dataset, protocol) in zip(panels, columns):
            values = self._column(dataset, protocol)
            for name, top1 in known.items():
                axes.plot(
                    top1,
                    values[name],
                    'o',
                    color=colours[self.encoders[name]['group']],
                )
                axes.annotate(name, (top1, values[name]), fontsize=6)
            axes.set_xlabel(f'{TOP1} (%)', fontsize=8)
            axes.set_ylabel(self.headline(protocol, dataset), fontsize=8)
            title = self.datasets[dataset]['title']
            axes.set_title(f'{title}: {protocol}', fontsize=8)
        return figure

    # --------------------------------------------------------------- files

    def print(self, title: str, console: Console | None = None) -> None:
        """Show the headline scores."""
        for protocol in self.protocols:
            for score in self.headlines(protocol):
                show_table(
                    self.table(protocol, score),
                    f'{title}: {protocol}, {score} in % [95 % interval]',
                    folded='encoder',
                    console=console,
                )
        show_table(
            self.scaled(),
            'Scaled performance by domain, 0 worst to 1 best',
            self.notes(),
            console=console,
        )

    def sections(self) -> list[Section]:
        """All tables with what they are of."""
        known = self.encoders.get(self.baseline or '')
        against = f'; then the difference from {known["title"]}' if known else ''
        found = [
            Section(
                f'{protocol}: {score}',
                f'In %, with 95 % interval{against}.',
                self.table(protocol, score),
            )
            for protocol in self.protocols
            for score in self.scores(protocol)
        ]
        found.append(
            Section(
                'Scaled performance',
                'Each column scaled to 0 (worst encoder) to 1 (best), averaged over '
                'the columns of a domain in which all encoders have a score.',
                self.scaled(),
            )
        )
        if self.correlations():
            found.append(
                Section(
                    'Correlations',
                    'Of the scores of encoders with other numbers of them.',
                    self.correlation_table(),
                )
            )
        return found

    def write(self, folder: str | Path, title: str, note: str = '') -> list[Path]:
        """Write transfer.jsonl, .csv, .json, .md, .png and report.html.

        Args:
            folder (str | Path): Made if need be.
            title (str): Heading.
            note (str): Sentence below it. Defaults to ''.
        """
        sections = self.sections()
        notes = [*self.notes(), *([note] if note else [])]
        text = [f'# {title}', *notes]
        for section in sections:
            assert section.table is not None, 'made above'
            text += [f'## {section.title}', section.text, to_markdown(section.table)]
        text.append(POLICY)
        figure, scatter = self.draw(), self.draw_top1()
        pictures = [Picture(figure, 'Scores with 95 % intervals; diamonds: seen.')]
        if scatter is not None:
            pictures.append(Picture(scatter, f'Scores against {TOP1}.'))
        page = [
            Section('Overview', ' '.join(notes), pictures=pictures),
            *sections,
            Section('How this was made', POLICY, commands=[]),
        ]
        contents: dict[str, Any] = {
            'transfer.jsonl': ''.join(
                json.dumps(plain(_short(content)), sort_keys=True) + '\n'
                for content in self.contents
            ),
            'transfer.csv': csv_text(self.frame(), '%.6g'),
            'transfer.json': dict(
                title=title,
                mode=self.mode,
                notes=notes,
                policy=POLICY,
                baseline=self.baseline,
                encoders=list(self.encoders.values()),
                datasets=list(self.datasets.values()),
                scaled=self.scaled().to_dict('records'),
                correlations=[
                    dict(dataset=d, protocol=p, measure=m, **vars(found))
                    for d, p, m, found in self.correlations()
                ],
            ),
            'transfer.md': '\n\n'.join(text) + '\n',
            'transfer.png': figure,
        }
        if scatter is not None:
            contents['imagenet_top1.png'] = scatter
        contents['report.html'] = render_page(title, note, page)
        return write_results(folder, contents)


def _ddof(mode: str) -> int:
    """What the published comparison took off the number of episodes: nothing."""
    return 0 if mode == COMPAT else 1


def _short(content: Mapping) -> dict:
    """A result on one line: without what there are thousands of."""
    kept = {k: v for k, v in content.items() if k not in ('drawn', 'predictions')}
    for name, values in content['drawn'].items():
        array = np.array(values, float)
        if 'digest' in content:
            found = few_shot.accuracy(
                [few_shot.FewShot('', '', 0, array, content['digest'])],
                _ddof(content['mode']),
            )
        else:
            found = mean_over_seeds(
                [Resampled('', array, {}, content['patients'])], SHARE
            )
        kept.setdefault('scores', {})[name] = interval_entry(found, 'value')
    return kept


def read_measures(path: str | Path) -> list[EncoderMeasure]:
    """Read a CSV file: ``encoder,measure,value`` and perhaps ``dataset,mode``.

    Raises:
        UserError: It is not there, or lacks a column.
    """
    import pandas as pd

    needed = ('encoder', 'measure', 'value')
    try:
        text = read_text(path, 'table')
        delimiter, start = delimiter_of(text, needed)
        table = pd.read_csv(
            io.StringIO(text[start:]), sep=delimiter, keep_default_na=False
        )
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f'{path} cannot be read as CSV: {error}') from error
    missing = set(needed) - set(table)
    if missing:
        raise UserError(
            f'{path} lacks the column {", ".join(sorted(missing))}; it needs '
            'encoder,measure,value and may have dataset and mode'
        )
    return [
        EncoderMeasure(
            str(row['encoder']),
            str(row['measure']),
            float(row['value']),
            str(row.get('dataset', '')),
            str(row.get('mode', '')),
        )
        for row in table.to_dict('records')
    ]
