"""Encoder-decoder that also learns from images without labels."""

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.segmentors.encoder_decoder import EncoderDecoder
from mmseg.utils import add_prefix
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.functional.consistency import probability_distance, ramp_up
from medssl_mm.models.utils import ForeachEMA
from medssl_mm.registry import MODELS

EVALUATED = ('teacher', 'student')


@MODELS.register_module()
class MeanTeacher(EncoderDecoder):
    r"""mmseg's ``EncoderDecoder`` beside a slow copy that it must agree with.

    `Mean teachers are better role models
    <https://arxiv.org/abs/1703.01780>`_, for segmentation. The network (the
    student) learns from labelled slices as ever. On all slices of the batch, those
    without a label too, its probabilities shall be those of the teacher, the
    exponential moving average of its weights, which sees the same slices with other
    noise:

    .. math:: L = L_{labelled} + w(k) \, \overline{(\mathrm{softmax}(f(x))
        - \mathrm{softmax}(f'(x + \epsilon)))^2}

    where w rises to ``consistency_weight`` within ``ramp_up`` iterations. Slices
    without a label are those whose sample has no ``gt_sem_seg``; see ``unlabelled``
    of :class:`medssl_mm.datasets.slices.SliceDataset`. The teacher follows after the
    step of the optimizer, by :class:`medssl_mm.engine.TargetUpdateHook`; it runs in
    training mode during training, with statistics of its own.

    Args:
        *args: Arguments of mmseg's ``EncoderDecoder``.
        consistency_weight (float): Factor of the second term, at least 0. Defaults
            to 10.0.
        ramp_up (int): Iterations in which it rises. Defaults to 200.
        ema_decay (float): Share of its weights that the teacher keeps at a step.
            Defaults to 0.99.
        noise (float): Standard deviation of Gaussian noise on the teacher's images,
            as a share of that of the batch; cut off at twice it. Defaults to 0.1.
        evaluated (str): Whose segmentation is tested and predicted: ``'teacher'`` or
            ``'student'``. Defaults to 'teacher'.
        **kwargs: Arguments of mmseg's ``EncoderDecoder``.

    Raises:
        UserError: A setting is out of range.
    """

    def __init__(
        self,
        *args: Any,
        consistency_weight: float = 10.0,
        ramp_up: int = 200,
        ema_decay: float = 0.99,
        noise: float = 0.1,
        evaluated: str = 'teacher',
        **kwargs: Any,
    ) -> None:
        for name, value in (
            ('consistency_weight', consistency_weight),
            ('ramp_up', ramp_up),
            ('noise', noise),
        ):
            if value < 0:
                raise UserError(f'{name} must be at least 0, got {value}')
        if evaluated not in EVALUATED:
            raise UserError(
                f'evaluated must be "teacher" or "student", got {evaluated!r}'
            )
        super().__init__(*args, **kwargs)
        self.consistency_weight = consistency_weight
        self.ramp_up = ramp_up
        self.noise = noise
        self.evaluated = evaluated
        self.teacher_net = ForeachEMA(self._student, ema_decay, 'own')

    @property
    def _student(self) -> nn.ModuleDict:
        """What the teacher is a copy of; holds no state of its own."""
        parts = ('backbone', 'neck', 'decode_head')
        return nn.ModuleDict(
            {name: getattr(self, name) for name in parts if hasattr(self, name)}
        )

    @property
    def teacher(self) -> nn.ModuleDict:
        """The slow copy; the student's weights before the first step."""
        self.teacher_net.start(self._student)
        return self.teacher_net.module

    def init_weights(self) -> None:
        """Initialise; the teacher starts from the weights that come of it."""
        super().init_weights()
        self.teacher_net.look_again()

    def update_target(self, progress: float) -> float:
        """Let the teacher follow; to be called after the optimizer's step.

        Args:
            progress (float): Share of the run that is done; has no influence.

        Returns:
            float: What the teacher kept of its weights.
        """
        return self.teacher_net.update_parameters(self._student)

    def loss(self, inputs: Tensor, data_samples: Sequence) -> dict[str, Tensor]:
        """Compute the losses of labelled slices, and the distance to the teacher.

        Shape: inputs ``(N, C, H, W)``. Returns scalars.

        Raises:
            UserError: No slice of the batch has a label, or the teacher never
                follows.
        """
        if self.training:
            self.teacher_net.expect_update(type(self).__name__)
        chosen = [n for n, sample in enumerate(data_samples) if 'gt_sem_seg' in sample]
        if not chosen:
            raise UserError(
                f'{type(self).__name__}: none of the {len(data_samples)} slices of a '
                'batch has a label; use labelled=True, unlabelled=dict() of the '
                'training data set with collate_fn=dict(type="medssl_mm.collate_pairs")'
            )
        samples = [data_samples[n] for n in chosen]
        maps = self.extract_feat(inputs)
        logits = self.decode_head(maps)
        losses = add_prefix(
            self.decode_head.loss_by_feat(logits[chosen], samples), 'decode'
        )
        if self.with_auxiliary_head:
            own = [part[chosen] for part in maps]
            losses.update(self._auxiliary_head_forward_train(own, samples))
        with torch.no_grad():
            slow = self.teacher['decode_head'](self._slow_maps(self._noisy(inputs)))
        distance = probability_distance(logits, slow)
        weight = self.consistency_weight * ramp_up(self.teacher_net.steps, self.ramp_up)
        losses['loss_consistency'] = weight * distance
        losses['consistency'] = distance.detach()
        losses['unlabelled_share'] = distance.new_tensor(
            1 - len(chosen) / len(data_samples)
        )
        return losses

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Segment images by what is evaluated.

        Shape: inputs ``(N, C, H, W)``. Returns logits of the same size.
        """
        if self.evaluated == 'student':
            return super().encode_decode(inputs, batch_img_metas)
        head: Any = self.teacher['decode_head']
        return head.predict(self._slow_maps(inputs), batch_img_metas, self.test_cfg)

    def _slow_maps(self, inputs: Tensor) -> Any:
        teacher = self.teacher
        maps = teacher['backbone'](inputs)
        return teacher['neck'](maps) if 'neck' in teacher else maps

    def _noisy(self, inputs: Tensor) -> Tensor:
        if not self.noise:
            return inputs
        drawn = torch.randn_like(inputs).clamp_(-2, 2)
        return inputs + drawn * (self.noise * inputs.std())
