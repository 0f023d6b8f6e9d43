"""The one type of a number with its interval."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval.

    Args:
        estimate (float): The number; NaN: not measured. Defaults to NaN.
        low (float): Lower end; NaN: no interval. Defaults to NaN.
        high (float): Upper end. Defaults to NaN.
        units (int): Cases or images that count. Defaults to 0.
    """

    estimate: float = math.nan
    low: float = math.nan
    high: float = math.nan
    units: int = 0

    @property
    def measured(self) -> bool:
        """Whether there is an estimate."""
        return not math.isnan(self.estimate)

    @property
    def numbers(self) -> tuple[float, float, float]:
        """Estimate, lower and upper end."""
        return self.estimate, self.low, self.high

    def text(
        self, digits: int = 3, scale: float = 1.0, sign: str = '', missing: str = '–'
    ) -> str:
        """Write '0.512 [0.431, 0.598]'; without ends the estimate alone.

        Args:
            digits: After the point.
            scale: Factor of all numbers, such as 100 for points.
            sign: '+' shows the sign of positive numbers, too.
            missing: What stands for no estimate. Defaults to a dash.
        """
        if not self.measured:
            return missing
        estimate, low, high = (
            f'{scale * number:{sign}.{digits}f}' for number in self.numbers
        )
        return estimate if math.isnan(self.low) else f'{estimate} [{low}, {high}]'
