"""Checkpoints measured without labels: figures, tables and screen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medssl_mm.analysis.choosing import (
    EPOCH,
    Agreement,
    MeasuredCheckpoint,
    choices,
    mean_correlation,
    measured,
    measures_of,
)
from medssl_mm.errors import UserError
from medssl_mm.statistics import Interval
from medssl_mm.statistics.correlation import Correlation
from medssl_mm.texts import AT

from .figures import colours_of, legend_below, panel_grid
from .files import interval_entry, read_csv, write_results
from .screen import show_table, to_markdown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def read_checkpoint_scores(
    path: str | Path, evaluation: str | None = None, fraction: float = 1.0
) -> dict[tuple[str, str], float]:
    """Read the scores of checkpoints from the CSV of a result table.

    Args:
        path: ``table.csv`` of ``tools/run_table.py`` whose rows name checkpoints
            by ``epochs:``.
        evaluation: Title of the evaluation. Defaults to the only one.
        fraction: Share of the labels.

    Returns:
        dict: Score by title of the row and name of the checkpoint.

    Raises:
        UserError: The file is no such table, or leaves the choice open.
    """
    frame = read_csv(path)
    wanted = ['evaluation', 'initial_weights', 'fraction', 'seeds']
    missing = [name for name in wanted if name not in frame]
    if missing:
        raise UserError(
            f'{path}: expected the table.csv of tools/run_table.py, but the column '
            f'{", ".join(missing)} is missing'
        )
    titles = list(dict.fromkeys(frame['evaluation']))
    if evaluation is None and len(titles) > 1:
        raise UserError(f'{path}: name one of its evaluations: {", ".join(titles)}')
    if evaluation is not None and evaluation not in titles:
        raise UserError(
            f'{path} has no evaluation {evaluation!r}, but {", ".join(titles)}'
        )
    # The score stands between the facts and what is derived from it.
    known = [name for name in frame if f'{name}_low' in frame and name != 'difference']
    if not known:
        raise UserError(f'{path} holds no score with an interval')
    rows = frame[frame['evaluation'] == (evaluation or titles[0])]
    rows = rows[rows['fraction'].astype(float) == fraction]
    several = sorted(set(rows['seeds']) - {'1'})
    if several:
        raise UserError(
            f'{path}: scores of {", ".join(several)} seeds are means over as many '
            'pretrainings; make the table with one of them: --seeds SEED --out DIR'
        )
    found = {}
    for title, score in zip(rows['initial_weights'], rows[known[0]]):
        run, at, checkpoint = title.rpartition(AT)
        if at and score:
            found[run, checkpoint] = float(score)
    if not found:
        raise UserError(
            f'{path}: no row with {100 * fraction:g} % labels is of a checkpoint, such '
            f'as "MoCo v2{AT}epoch_10"; give rows of the table "epochs: [10, ...]"'
        )
    return found


def require_seed(path: str | Path, seeds: Mapping[str, int | None]) -> None:
    """Refuse scores that are of another pretraining than the checkpoints.

    Args:
        path: ``table.csv``; tables of before do not name their seeds.
        seeds: Of every run by name; None: not known.

    Raises:
        UserError: The seed of a run is not that of the table.
    """
    frame = read_csv(path)
    known = set(frame['seed_numbers']) - {''} if 'seed_numbers' in frame else set()
    for name, seed in seeds.items():
        if known and seed is not None and known != {str(seed)}:
            raise UserError(
                f'{path} has scores of seed {", ".join(sorted(known))}, but {name} was '
                f'pretrained with seed {seed}; make the table of that seed: --seeds '
                f'{seed} --out DIR'
            )


def draw_choosing(
    checkpoints: Sequence[MeasuredCheckpoint],
    scores: Mapping[tuple[str, str], float] | None = None,
) -> Figure:
    """Draw a panel per measure with a line per pretraining.

    Args:
        checkpoints: In the order of the legend.
        scores: By run and checkpoint: the measures are drawn against them. Defaults
            to None: measures against the epoch.
    """
    runs = list(dict.fromkeys(one.run for one in checkpoints))
    colours = colours_of(runs)
    names = measures_of(checkpoints)
    if scores is None:
        names.remove(EPOCH)
    figure, panels = panel_grid(len(names), 3.4, 2.8)
    for name, axes in zip(names, panels):
        for run in runs:
            own = [one for one in checkpoints if one.run == run]
            if scores is not None:
                own = [one for one in own if (run, one.checkpoint) in scores]
            across = [
                one.epoch if scores is None else measured(one, name) for one in own
            ]
            up = [
                measured(one, name) if scores is None else scores[run, one.checkpoint]
                for one in own
            ]
            axes.plot(across, up, marker='.', lw=0.8, color=colours[run])
            if scores is not None and own:  # where the training ended
                axes.plot(across[-1], up[-1], marker='o', color=colours[run])
        axes.set_title(name, fontsize='medium')
        axes.set_xlabel('epoch' if scores is None else name)
        if scores is not None:
            axes.set_ylabel('score')
    legend_below(figure, colours)
    return figure


def measure_frame(checkpoints: Sequence[MeasuredCheckpoint]) -> pd.DataFrame:
    """One row per checkpoint, one column per measure."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                'run': one.run,
                'checkpoint': one.checkpoint,
                **{name: measured(one, name) for name in measures_of(checkpoints)},
            }
            for one in checkpoints
        ]
    )


def agreement_frame(found: Sequence[Agreement]) -> pd.DataFrame:
    """One row per measure: what it is worth in each run and on average."""
    import pandas as pd

    runs = list(dict.fromkeys(one.run for one in found))
    rows = []
    for name in dict.fromkeys(one.measure for one in found):
        own = {one.run: one for one in found if one.measure == name}
        mean = mean_correlation([one.spearman.r for one in own.values()])
        regrets = [one.regret for one in own.values()]
        rows.append(
            {
                'measure': name,
                **{
                    run: _interval(own[run].spearman).text(2, sign='+')
                    if run in own
                    else '–'
                    for run in runs
                },
                'mean': mean.text(2, sign='+'),
                'mean regret': f'{100 * sum(regrets) / len(regrets):.1f}',
                'most': f'{100 * max(regrets):.1f}',
                '_order': -math.inf if math.isnan(mean.estimate) else mean.estimate,
            }
        )
    frame = pd.DataFrame(rows).sort_values('_order', ascending=False, kind='stable')
    return frame.drop(columns='_order').reset_index(drop=True)


def _interval(found: Correlation) -> Interval:
    return Interval(found.r, found.low, found.high, found.points)


def write_choosing(
    folder: str | Path,
    checkpoints: Sequence[MeasuredCheckpoint],
    stated: Mapping,
    scores: Mapping[tuple[str, str], float] | None = None,
    found: Sequence[Agreement] = (),
) -> list[Path]:
    """Write ``measures.csv`` and ``.png``; with scores ``agreement.*``, too.

    Args:
        folder: Made if need be.
        checkpoints: What was measured.
        stated: Settings, for the JSON file.
        scores: By run and checkpoint.
        found: Of these scores.
    """
    contents: dict = {
        'measures.csv': measure_frame(checkpoints),
        'measures.png': draw_choosing(checkpoints),
    }
    if scores is not None:
        contents |= {
            'agreement.md': to_markdown(agreement_frame(found)) + '\n',
            'agreement.png': draw_choosing(checkpoints, scores),
            'agreement.json': dict(
                settings=dict(stated),
                agreements=[
                    dict(
                        run=one.run,
                        measure=one.measure,
                        spearman=interval_entry(_interval(one.spearman), 'correlation'),
                        chosen=one.chosen,
                        score=one.score,
                        regret=one.regret,
                        regret_by_chance=one.chance,
                    )
                    for one in found
                ],
            ),
        }
    return write_results(folder, contents)


def print_choices(checkpoints: Sequence[MeasuredCheckpoint]) -> None:
    """Print which checkpoint each measure prefers."""
    import pandas as pd

    preferred = choices(checkpoints)
    runs = list(dict.fromkeys(one.run for one in checkpoints))
    cells = pd.DataFrame(
        [
            {
                'measure': name,
                **{run: preferred.get((run, name), '–') for run in runs},
            }
            for name in measures_of(checkpoints)
            if name != EPOCH
        ]
    )
    show_table(
        cells,
        'The checkpoint that each measure prefers',
        ['which of the measures to trust is told by --scores alone'],
        folded='measure',
    )


def print_agreements(found: Sequence[Agreement]) -> None:
    """Print rank correlations with the scores, and the regret of the choice."""
    chance = {one.run: one.chance for one in found}
    by_chance = sum(chance.values()) / len(chance)
    show_table(
        agreement_frame(found),
        'Rank correlation with the score, and regret in points',
        [
            'regret is what the best checkpoint of a run scores more than the '
            f'preferred one; by chance {100 * by_chance:.1f} points. "epoch" prefers '
            'the last one. Checkpoints of a run follow each other: the intervals of '
            'single runs are too narrow'
        ],
        folded='measure',
    )
