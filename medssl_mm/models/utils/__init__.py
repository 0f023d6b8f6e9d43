"""Parts of the momentum methods."""
from .ema import ForeachEMA
from .key_queue import KeyQueue, hoist_state

__all__ = ['ForeachEMA', 'KeyQueue', 'hoist_state']
