"""Features of a frozen network, kept for images that come again."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FeatureCache:
    """Calls a fixed network once for each different image.

    Images are recognised by their content, so the result is what the network
    returns for each image alone, bit for bit, whatever the order of the images,
    and random augmentation is merely never found again. Each precision of
    autocast has features of its own. All are dropped when a tensor of the network
    has changed or moved.

    Args:
        network (nn.Module): In evaluation mode, so that the features of an
            image do not depend on the rest of the batch. Returns a sequence
            of ``(N, C_i, H_i, W_i)`` maps.
        kept (Sequence[int]): Which maps are needed; the others are None in
            the result.
        limit_bytes (int): Features beyond this are computed every time.
    """

    def __init__(
        self, network: nn.Module, kept: Sequence[int], limit_bytes: int
    ) -> None:
        self.network = network
        self.kept = sorted(set(kept))
        self.limit_bytes = limit_bytes
        self._state: tuple = ()
        self._clear()

    def _clear(self) -> None:
        self._features: dict[bytes, tuple[Tensor, ...]] = {}
        self._outputs = 0
        self.used_bytes = 0

    def __len__(self) -> int:
        return len(self._features)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[Tensor | None]:
        """Return the maps of a batch.

        Shape: images ``(N, C, H, W)``. Returns as many entries as the network
            does.
        """
        # Every write into a tensor raises its version.
        state = tuple(
            (tensor.data_ptr(), tensor._version)
            for tensor in self.network.state_dict(keep_vars=True).values()
        )
        if state != self._state:
            self._clear()
            self._state = state
        precision = _precision(images)
        keys = [_content(image) + precision for image in images.cpu()]
        found = {key: self._features[key] for key in keys if key in self._features}
        for row, key in enumerate(keys):
            if key in found:
                continue
            # Alone: in a batch the last bits would depend on the other images, and so
            # on what was found, which a resumed run begins without.
            outputs = self.network(images[row : row + 1])
            self._outputs = len(outputs)
            found[key] = maps = tuple(outputs[index][0] for index in self.kept)
            self._keep(key, maps)
        result: list[Tensor | None] = [None] * self._outputs
        for position, index in enumerate(self.kept):
            result[index] = torch.stack([found[key][position] for key in keys])
        return result

    def _keep(self, key: bytes, maps: tuple[Tensor, ...]) -> None:
        size = sum(m.numel() * m.element_size() for m in maps)
        if self.used_bytes + size <= self.limit_bytes:
            self._features[key] = maps
            self.used_bytes += size


def _precision(images: Tensor) -> bytes:
    device = images.device.type
    if not torch.is_autocast_enabled(device):
        return str(images.dtype).encode()
    return str(torch.get_autocast_dtype(device)).encode()


def _content(image: Tensor) -> bytes:
    digest = hashlib.blake2b(
        image.contiguous().view(torch.uint8).numpy().data, digest_size=16
    )
    digest.update(str(tuple(image.shape)).encode())
    return digest.digest()
