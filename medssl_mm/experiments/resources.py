"""What the steps of a table ask of Slurm."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PositiveInt, StrictInt, StrictStr

from medssl_mm.schema import Entry

__all__ = ['Resources', 'SlurmSettings']


class Resources(Entry):
    """What a job asks for; what is left out is the cluster's own.

    Args:
        partition (str, optional): Where it runs.
        minutes (int, optional): Time limit of one stretch; a training goes on in the
            next one. Defaults to 240.
        gpus (int, optional): GPUs.
        cpus (int, optional): Cores.
        memory_gb (float, optional): Main memory.
        warning (int, optional): Seconds between the signal and the end: for an
            iteration or a validation, and a checkpoint. Defaults to 120.
        options (dict): Further options of sbatch: ``{account: lab}``.
    """

    partition: StrictStr | None = None
    minutes: PositiveInt | None = None
    gpus: Annotated[StrictInt, Field(ge=0)] | None = None
    cpus: PositiveInt | None = None
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    warning: PositiveInt | None = None
    options: dict[StrictStr, Any] | None = None


class SlurmSettings(Resources):
    """What all steps ask for, and what those of a kind ask for instead.

    Args:
        pretrain, train, test, frozen (Resources): By the kind of the step.
    """

    pretrain: Resources = Resources()
    train: Resources = Resources()
    test: Resources = Resources()
    frozen: Resources = Resources()

    def of(self, kind: str) -> dict[str, Any]:
        """Settings of one kind of step, as submitit wants them."""
        own: Resources = getattr(self, kind)

        def wanted(name: str) -> Any:
            value = getattr(own, name)
            return getattr(self, name) if value is None else value

        gpus, memory = wanted('gpus'), wanted('memory_gb')
        settings = dict(
            partition=wanted('partition'),
            time=wanted('minutes'),
            cpus_per_task=wanted('cpus'),
            gres=f'gpu:{gpus}' if gpus else None,
            mem=f'{memory * 1024:.0f}M' if memory else None,
            signal_delay_s=wanted('warning'),
        )
        settings = {
            name: value for name, value in settings.items() if value is not None
        }
        # submitit's own default is five minutes.
        settings.setdefault('time', 240)
        settings.setdefault('signal_delay_s', 120)
        settings['additional_parameters'] = dict(wanted('options') or {})
        return settings
