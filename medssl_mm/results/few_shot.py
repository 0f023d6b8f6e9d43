"""Accuracies of :mod:`medssl_mm.analysis.few_shot` as table, figure and files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medssl_mm.analysis.few_shot import METHOD, POLICY, FewShot, accuracy, difference
from medssl_mm.statistics import Interval

from .figures import plot_places, styled_subplots
from .files import csv_text, interval_entry, write_results
from .screen import show_table, to_markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from rich.console import Console


def _groups(results: Sequence[FewShot]) -> dict[tuple, list[FewShot]]:
    """Networks of one name together, by shots (fewest first), name and place."""
    groups: dict[tuple, list[FewShot]] = {}
    for result in sorted(results, key=lambda result: result.shots):
        key = (result.shots, result.checkpoint, result.place)
        groups.setdefault(key, []).append(result)
    return groups


def _rows(
    results: Sequence[FewShot], baseline: str | None
) -> Iterator[tuple[tuple, list[FewShot], Interval, Interval | None]]:
    """Yield the key, networks, accuracy and difference of every group."""
    groups = _groups(results)
    for key, group in groups.items():
        shots, name, place = key
        other = groups.get((shots, baseline, place))
        against = (
            None if other is None or name == baseline else difference(group, other)
        )
        yield key, group, accuracy(group), against


def few_shot_table(
    results: Sequence[FewShot], baseline: str | None = None
) -> 'DataFrame':
    """Text of the results, in percent: a row per number of shots and network.

    Returns:
        pandas.DataFrame: A column per place.
    """
    import pandas as pd

    cells = pd.DataFrame(
        [
            (
                f'{shots}',
                name if len(group) == 1 else f'{name} ({len(group)} seeds)',
                place,
                ', '.join(
                    found.text(1, 100, sign)
                    for found, sign in ((mean, ''), (against, '+'))
                    if found is not None
                ),
            )
            for (shots, name, place), group, mean, against in _rows(results, baseline)
        ],
        columns=['shots', 'checkpoint', 'place', 'cell'],
    )
    order = cells[['shots', 'checkpoint']].drop_duplicates()
    table = cells.pivot(index=['shots', 'checkpoint'], columns='place', values='cell')
    table = table.reindex(columns=cells['place'].unique())
    table = table.reindex(pd.MultiIndex.from_frame(order)).fillna('–')
    return table.rename_axis(columns=None).reset_index()


def print_few_shot(
    results: Sequence[FewShot],
    title: str,
    baseline: str | None = None,
    notes: Sequence[str] = (),
    console: 'Console | None' = None,
) -> None:
    """Print a row per number of shots and network.

    Args:
        results (Sequence[FewShot]): The results.
        title (str): What was measured.
        baseline (str, optional): Name that the others are compared with.
            Defaults to None.
        notes (Sequence[str]): Lines below the table. Defaults to ().
        console (rich.console.Console, optional): Defaults to a new one.
    """
    table = few_shot_table(results, baseline)
    show_table(
        table,
        f'{title}: accuracy in % [95 % interval over episodes]',
        notes,
        left=2,
        sections=table['shots'],
        folded='checkpoint',
        console=console,
    )


def draw_few_shot(results: Sequence[FewShot], chance: float) -> 'Figure':
    """Draw the accuracy against the place, a panel per number of shots.

    Args:
        results (Sequence[FewShot]): The results.
        chance (float): Accuracy of a guess, 0-1; a dotted line.

    Returns:
        matplotlib.figure.Figure: To be written.
    """
    groups = _groups(results)
    shots, names, places = (list(dict.fromkeys(k[n] for k in groups)) for n in range(3))
    figure, panels = styled_subplots(
        1,
        len(shots),
        figsize=(1.5 + 3.2 * len(shots), 3.8),
        layout='constrained',
        sharey='row',
    )
    for number, axes in zip(shots, panels[0]):
        found = {
            name: [groups.get((number, name, place)) for place in places]
            for name in names
        }
        plot_places(
            axes,
            {
                name: [accuracy(group) if group else Interval() for group in own]
                for name, own in found.items()
            },
            places,
            {
                name: [
                    [float(one.accuracies.mean()) for one in group or ()]
                    for group in own
                ]
                for name, own in found.items()
            },
        )
        axes.axhline(chance, color='0.6', linewidth=0.8, linestyle=':')
        axes.set_title(f'{number} labelled images per class', fontsize=9)
    panels[0, 0].set_ylabel('accuracy')
    figure.supxlabel('bars: 95 % interval over episodes; dotted: chance', fontsize=8)
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(),
        loc='outside upper center',
        ncols=min(4, len(names)),
    )
    return figure


def few_shot_frame(results: Sequence[FewShot]) -> 'DataFrame':
    """Accuracies as a long frame.

    Returns:
        pandas.DataFrame: A row per network, place and number of shots.
    """
    import pandas as pd

    return pd.DataFrame(
        [
            {
                'checkpoint': one.checkpoint,
                'number': one.number,
                'place': one.place,
                'shots': one.shots,
                'episodes': len(one.accuracies),
                **dict(zip(('accuracy', 'low', 'high'), accuracy([one]).numbers)),
                'digest': one.digest,
            }
            for one in results
        ]
    )


def write_few_shot(
    results: Sequence[FewShot],
    folder: str | Path,
    settings: Mapping,
    ways: int,
    baseline: str | None = None,
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write ``few_shot.json``, ``few_shot.csv``, ``.png`` and ``.md``.

    Args:
        results (Sequence[FewShot]): The results.
        folder (str | Path): Made if need be.
        settings (Mapping): What they were made with; plain data.
        ways (int): Classes of an episode.
        baseline (str, optional): Name that the others are compared with.
            Defaults to None.
        notes (Sequence[str]): What a reader has to know. Defaults to ().

    Returns:
        list[Path]: The four files.
    """
    means = []
    for (shots, name, place), group, mean, against in _rows(results, baseline):
        entry = dict(checkpoint=name, place=place, shots=shots, networks=len(group))
        entry['accuracy'] = interval_entry(mean, 'value', units=False)
        if against is not None:
            entry['difference'] = interval_entry(against, 'value', units=False)
        means.append(entry)
    text = [to_markdown(few_shot_table(results, baseline)), POLICY, *notes]
    return write_results(
        folder,
        {
            'few_shot.json': dict(
                **settings,
                policy=POLICY,
                interval=METHOD,
                notes=list(notes),
                means=means,
                results=few_shot_frame(results).to_dict('records'),
            ),
            'few_shot.csv': csv_text(few_shot_frame(results), '%.6f'),
            'few_shot.png': draw_few_shot(results, 1 / ways),
            'few_shot.md': '\n\n'.join(text) + '\n',
        },
    )
