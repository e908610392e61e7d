"""Literal implementation of Eq. 10-16 and 19-20 with loops over maps and positions, in float64 NumPy."""

import numpy as np


def softmax(logits: np.ndarray, axis: int) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return exponents / exponents.sum(axis=axis, keepdims=True)


def elu_normalised(logits: np.ndarray, axis: int) -> np.ndarray:
    positive = np.where(logits > 0, logits, np.expm1(logits)) + 1
    return positive / positive.sum(axis=axis, keepdims=True)


def elu_unnormalised(logits: np.ndarray, axis: int) -> np.ndarray:
    """The elu of the paper, divided by a constant instead of a sum."""
    return (np.where(logits > 0, logits, np.expm1(logits)) + 1) / logits.shape[axis]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def conv3x3_to_one(grid: np.ndarray, weight: np.ndarray, bias: float) -> np.ndarray:
    """Compute one output map of a zero-padded 3x3 convolution of [h, w, c]; weight [c, 3, 3]."""
    height, width, channels = grid.shape
    out = np.full((height, width), bias)
    for y in range(height):
        for x in range(width):
            for dy in range(3):
                for dx in range(3):
                    if 0 <= y + dy - 1 < height and 0 <= x + dx - 1 < width:
                        for c in range(channels):
                            out[y, x] += weight[c, dy, dx] * grid[y + dy - 1, x + dx - 1, c]
    return out


def cluster_attention(
    points: np.ndarray,  # [l, C]: X_nu
    grid: np.ndarray,  # [h, w, C]: X_u of the receiver
    source: np.ndarray,  # [h, w, C]: X_u of the source
    f_q: tuple[np.ndarray, np.ndarray],
    f_p: tuple[np.ndarray, np.ndarray],
    mask_space: tuple[np.ndarray, float] | None = None,
    mask_channels: tuple[np.ndarray, np.ndarray] | None = None,
    normalise=softmax,
) -> np.ndarray:
    """Compute Eq. 16 for one image with Eq. 10, 11, 13 and 14."""
    height, width, channels = source.shape
    q = normalise(np.einsum("hwc,mc->mhw", grid, f_q[0]).reshape(len(f_q[0]), -1) + f_q[1][:, None], 1)
    q = q.reshape(-1, height, width)
    values = source
    if mask_space is not None:
        values = sigmoid(conv3x3_to_one(grid, *mask_space))[:, :, None] * source
    pooled = []
    for q_i in q:
        x_i = q_i[:, :, None] * values  # Eq. 10
        pooled.append(x_i.sum(axis=(0, 1)))  # Eq. 11: global sum pooling over HW
    out = np.zeros((len(points), channels))
    for j, x_nu in enumerate(points):
        p_j = normalise(f_p[0] @ x_nu + f_p[1], 0)
        y_j = np.stack([p_ij * x_bar for p_ij, x_bar in zip(p_j, pooled, strict=True)], axis=1)  # Eq. 13: [C, C_2]
        out[j] = y_j.sum(axis=1)  # Eq. 14: global sum pooling over C_2
    if mask_channels is not None:
        out = sigmoid(mask_channels[0] @ grid.mean(axis=(0, 1)) + mask_channels[1]) * out
    return out


def windowed_cluster_attention(
    points: np.ndarray,  # [l, C]
    places: list[tuple[float, float]],  # centres of the points on the grid: (row, column)
    grid: np.ndarray,  # [h, w, C]
    source: np.ndarray,  # [h, w, C]
    window: tuple[int, int],
    starts: tuple[tuple[int, ...], tuple[int, ...]],  # first rows and columns of the windows on the grid
    f_q: tuple[np.ndarray, np.ndarray],
    f_p: tuple[np.ndarray, np.ndarray],
    mask_space: tuple[np.ndarray, float] | None = None,
    mask_channels: tuple[np.ndarray, np.ndarray] | None = None,
    normalise=softmax,
) -> np.ndarray:
    """Compute Eq. 16 for each point in the window with the nearest centre (the later of two); M_S on the whole grid."""
    if mask_space is not None:
        source = sigmoid(conv3x3_to_one(grid, *mask_space))[:, :, None] * source
    out = np.zeros((len(points), source.shape[2]))
    for j, (point, place) in enumerate(zip(points, places, strict=True)):
        first = []
        for at, size, begins in zip(place, window, starts, strict=True):
            _, begin = min((abs(begin + size / 2 - at), -begin) for begin in begins)
            first.append(-begin)
        inside = np.s_[first[0] : first[0] + window[0], first[1] : first[1] + window[1]]
        out[j] = cluster_attention(point[None], grid[inside], source[inside], f_q, f_p, None, mask_channels, normalise)
    return out
