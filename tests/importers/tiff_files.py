"""TIFF files by hand: writers have no tags of their own choice."""

import struct

import numpy as np

SIDES = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.T,
    6: lambda pixels: pixels.T[:, ::-1],
    7: lambda pixels: pixels.T[::-1, ::-1],
    8: lambda pixels: pixels.T[::-1],
}  # by orientation: how pixels as stored are to be shown


def write_tiff(path, pages, photometric=1, orientation=1, order='<', big=False):
    """Write grey pages ``(Z, H, W)``, not compressed, with the tags of one page each.

    Args:
        photometric: 0 (white is zero) or 1, or one per page.
        orientation: 1 to 8, or one per page.
        order: '<' (II) or '>' (MM).
        big: Whether it is a BigTIFF file.
    """
    pages = np.asarray(pages)
    photometric = np.broadcast_to(photometric, len(pages))
    orientation = np.broadcast_to(orientation, len(pages))
    number, count = ('Q', 'Q') if big else ('I', 'H')
    content = b'II' if order == '<' else b'MM'
    content += struct.pack(f'{order}HHH', 43, 8, 0) if big else b''
    content += b'' if big else struct.pack(f'{order}H', 42)
    content += struct.pack(order + number, 0)  # of the first page, known later
    link = len(content) - struct.calcsize(order + number)
    for pixels, white, turn in zip(pages, photometric, orientation):
        place = len(content)
        content += pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
        content += b'\0' * (len(content) % 2)
        height, width = pixels.shape
        tags = [
            (256, 'H', width),
            (257, 'H', height),
            (258, 'H', 8 * pixels.itemsize),
            (259, 'H', 1),
            (262, 'H', int(white)),
            (273, 'I', place),
            (274, 'H', int(turn)),
            (277, 'H', 1),
            (278, 'H', height),
            (279, 'I', pixels.nbytes),
            (339, 'H', dict(u=1, i=2, f=3)[pixels.dtype.kind]),
        ]
        start = struct.pack(order + number, len(content))
        content = content[:link] + start + content[link + len(start) :]
        content += struct.pack(order + count, len(tags))
        for tag, kind, value in tags:
            content += struct.pack(
                f'{order}HH{number}', tag, dict(H=3, I=4)[kind], 1
            ) + struct.pack(order + kind, value).ljust(struct.calcsize(number), b'\0')
        link = len(content)
        content += struct.pack(order + number, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
