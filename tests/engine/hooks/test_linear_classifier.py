import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medssl_mm.engine.hooks.linear_classifier import LinearClassifier

CPU = torch.device('cpu')


def make(multi_label=False, weights=None, dropout=0.0, lr=0.01, limit=None):
    return LinearClassifier(
        5, 3, multi_label, weights, dropout, lr, 1e-3, limit, 0, CPU
    )


def batch(multi_label=False):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(8, 5, generator=generator)
    if multi_label:
        return features, torch.rand(8, 3, generator=generator) > 0.5
    return features, F.one_hot(torch.arange(8) % 3, 3).bool()


@pytest.mark.parametrize('multi_label', [False, True])
def test_steps_are_those_of_a_plain_training(multi_label):
    ours = make(multi_label)
    layer = nn.Linear(5, 3)
    layer.load_state_dict(
        {k.removeprefix('1.'): v for k, v in ours.state_dict()['head'].items()}
    )
    adam = torch.optim.Adam(layer.parameters(), 0.01, weight_decay=1e-3)
    features, targets = batch(multi_label)
    for _ in range(5):
        adam.zero_grad()
        logits, known = layer(features), targets.float()
        if multi_label:
            loss = F.binary_cross_entropy_with_logits(logits, known)
        else:
            loss = F.cross_entropy(logits, known.argmax(1))
        loss.backward()
        adam.step()
        assert ours.learn(features, targets) == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(ours.head[1].weight, layer.weight)


def test_large_features_at_the_start_do_no_lasting_harm():
    """Adam would remember their gradients for thousands of steps."""
    features, targets = batch()
    losses = {}
    for limit in (None, 1.0):
        classifier = make(lr=0.01, limit=limit)
        start = classifier.evaluate(classifier.logits(features), targets)[1]
        for _ in range(10):
            classifier.learn(1e4 * features, targets)
        for _ in range(200):
            classifier.learn(features, targets)
        losses[limit] = classifier.evaluate(classifier.logits(features), targets)[1]
    assert losses[1.0] < 0.5 * start
    assert losses[1.0] < 0.7 * losses[None]


def test_features_get_no_gradient():
    features, targets = batch()
    features.requires_grad_()
    before = make()
    after = make()
    after.learn(features, targets)
    assert features.grad is None
    assert not torch.equal(before.head[1].weight, after.head[1].weight)


def test_probabilities_are_without_dropout():
    features, targets = batch()
    classifier = make(dropout=0.9)
    first = classifier.logits(features)
    assert torch.equal(first, classifier.logits(features))
    probabilities, loss = classifier.evaluate(first, targets)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(8))
    assert loss == pytest.approx(-probabilities[targets].log().mean().item(), rel=1e-5)


def test_loss_that_is_not_finite_changes_nothing():
    features, targets = batch()
    classifier = make()
    weight = classifier.head[1].weight.clone()
    assert classifier.learn(features / 0, targets) != 0
    assert torch.equal(classifier.head[1].weight, weight)
    assert not classifier.state_dict()['optimizer']['state']
