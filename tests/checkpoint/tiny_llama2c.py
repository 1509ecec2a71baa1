"""Small files in llama2.c's format, written from its description (run.c) without the library."""

import struct
from pathlib import Path

import numpy as np

SHAPE = {"dim": 24, "hidden": 40, "layers": 2, "heads": 4, "kv_heads": 2, "context": 16}
PIECES = {" ": -10, "a": -11, "b": -12, "c": -13, "ab": -1, " ab": -2, " a": -3}  # and their scores: joined best first
VOCABULARY = 259 + len(PIECES)
Arrays = dict[str, np.ndarray]


def arrays(seed: int = 0, *, tied: bool = True, **shape: int) -> Arrays:
    """Random numbers for every array of a file, norms too, in the order of the file."""
    sizes = SHAPE | shape
    D, H, L = sizes["dim"], sizes["hidden"], sizes["layers"]
    K = D // sizes["heads"] * sizes["kv_heads"]
    V = sizes.get("vocabulary", VOCABULARY)
    half = sizes["context"], D // sizes["heads"] // 2
    shapes = {
        "table": (V, D), "rms_att": (L, D), "wq": (L, D, D), "wk": (L, K, D), "wv": (L, K, D), "wo": (L, D, D),
        "rms_ffn": (L, D), "w1": (L, H, D), "w2": (L, D, H), "w3": (L, H, D), "rms_final": (D,), "real": half,
        "imag": half,
    }  # fmt: skip
    shapes |= {} if tied else {"wcls": (V, D)}
    random = np.random.default_rng(seed)
    return {name: random.normal(0.3, 0.7, shape).astype("<f4") for name, shape in shapes.items()}


def header(*, tied: bool = True, **shape: int) -> bytes:
    """The seven numbers a file begins with."""
    sizes = SHAPE | {"vocabulary": VOCABULARY} | shape
    names = ("dim", "hidden", "layers", "heads", "kv_heads", "vocabulary", "context")
    values = [sizes[name] for name in names]
    return struct.pack("<7i", *values[:5], values[5] if tied else -values[5], values[6])


def write(path: Path, weights: Arrays, *, tied: bool = True, **shape: int) -> Path:
    """A whole model file."""
    path.write_bytes(header(tied=tied, **shape) + b"".join(array.tobytes() for array in weights.values()))
    return path


def write_tokenizer(path: Path) -> Path:
    """A tokenizer file: the three special tokens, 256 bytes, then PIECES."""
    every = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    raw = [piece.encode() for piece in every]
    scores = [0.0] * 259 + [float(score) for score in PIECES.values()]
    content = struct.pack("<i", max(map(len, raw)))
    for piece, score in zip(raw, scores, strict=True):
        content += struct.pack("<fi", score, len(piece)) + piece
    path.write_bytes(content)
    return path


def logits(w: Arrays, ids: list[int], heads: int, kv_heads: int) -> np.ndarray:
    """What run.c computes, in float64, for every position at once: (T, V). Pairs (0, 1), (2, 3) ... turn together."""
    x = w["table"][ids].astype(np.float64)
    T, D = x.shape
    K = D // heads
    angle = np.arange(T)[:, None] / 10000.0 ** (np.arange(0, K, 2) / K)  # (T, K/2)

    def norm(v, weight):
        return v / np.sqrt((v * v).mean(-1, keepdims=True) + 1e-5) * weight

    def turned(v):  # (T, heads, K)
        even, odd = v[..., 0::2], v[..., 1::2]
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(v.shape)

    for layer in range(len(w["wq"])):
        h = norm(x, w["rms_att"][layer])
        q = turned((h @ w["wq"][layer].T).reshape(T, heads, K))
        k = turned((h @ w["wk"][layer].T).reshape(T, kv_heads, K))
        v = (h @ w["wv"][layer].T).reshape(T, kv_heads, K)
        out = np.zeros((T, heads, K))
        for head in range(heads):
            group = head // (heads // kv_heads)
            scores = q[:, head] @ k[:, group].T / np.sqrt(K)
            scores[np.triu_indices(T, 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, group]
        x = x + out.reshape(T, D) @ w["wo"][layer].T
        h = norm(x, w["rms_ffn"][layer])
        gate = h @ w["w1"][layer].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w["w3"][layer].T)) @ w["w2"][layer].T
    return norm(x, w["rms_final"]) @ w.get("wcls", w["table"]).T
