import pytest


@pytest.fixture(autouse=True)
def fresh_mmengine_globals():
    """Forget the scope, message hub and loggers of the run before."""
    yield
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    for manager in (DefaultScope, MessageHub, MMLogger, Visualizer):
        manager._instance_dict.clear()
