"""Writes the folder gpt2-tf beside it with TensorFlow itself: a tiny GPT-2 as OpenAI's program saves one.

Run by hand, in an environment of its own, when the fixture shall be made anew:

    python3.11 -m venv /tmp/tf && /tmp/tf/bin/pip install tensorflow-cpu
    /tmp/tf/bin/python tests/checkpoint/data/write_gpt2_tf.py                    # the fixture
    /tmp/tf/bin/python tests/checkpoint/data/write_gpt2_tf.py OUT 124M           # all of 124M, random, to measure with

Scopes, names and shapes of the variables are those of github.com/openai/gpt-2, src/model.py, at its release. The tests
import this file for `arrays`, `PIECES` and `HPARAMS`: what was given to TensorFlow is what must be read back. Nothing
here needs TensorFlow but the writing, and nothing comes from Groundup.
"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np

# Eleven layers: in the order of the file h10 stands before h2. Heads of 4.
HPARAMS = {"n_vocab": 263, "n_ctx": 8, "n_embd": 8, "n_head": 2, "n_layer": 11}
LARGE = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12}
MERGES = ["Ġ t", "h e", "Ġt he", "i n", "Ġ a", "r e"]

# A second checkpoint, in two data files: every type that is read, no dimension, no number, three dimensions.
PIECES = {
    "bytes": np.array([0, 7, 255], dtype=np.uint8),
    "counter": np.array(-5, dtype=np.int64),
    "doubles": np.array([[0.1, -2.5e300]]),
    "halves": np.array([1.5, -65504.0], dtype=np.float16),
    "nothing": np.zeros((0, 3), dtype=np.float32),
    "shorts": np.array([[-300], [12345]], dtype=np.int16),
    "signed": np.array([-128, 127], dtype=np.int8),
    "solid": np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7,
    "whole": np.array([2**31 - 1, -(2**31)], dtype=np.int32),
}
BFLOATS = [1.0, -3.140625, 2.0**100]  # "bfloats": all three are exact with eight bits of fraction
TEXTS = ["not", "read"]  # "texts": a type that is refused


def arrays(hparams: dict[str, int], seed: int = 7) -> dict[str, np.ndarray]:
    """Every variable under its TensorFlow name, in its TensorFlow shape, with random numbers in fp32: (1, in, out) for
    matrices, which stood for a convolution of width 1."""
    draw = np.random.RandomState(seed)  # this generator's numbers are promised never to change
    wide = hparams["n_embd"]
    shapes: dict[str, tuple[int, ...]] = {"wpe": (hparams["n_ctx"], wide), "wte": (hparams["n_vocab"], wide)}
    for layer in range(hparams["n_layer"]):
        for scope, columns in (("attn/c_attn", 3 * wide), ("attn/c_proj", wide), ("mlp/c_fc", 4 * wide)):
            shapes |= {f"h{layer}/{scope}/w": (1, wide, columns), f"h{layer}/{scope}/b": (columns,)}
        shapes |= {f"h{layer}/mlp/c_proj/w": (1, 4 * wide, wide), f"h{layer}/mlp/c_proj/b": (wide,)}
        shapes |= {f"h{layer}/{norm}/{kind}": (wide,) for norm in ("ln_1", "ln_2") for kind in "gb"}
    shapes |= {"ln_f/g": (wide,), "ln_f/b": (wide,)}
    values = {f"model/{name}": draw.random_sample(shape).astype(np.float32) - 0.5 for name, shape in shapes.items()}
    return {name: 1 + value if name.endswith("/g") else value * np.float32(0.4) for name, value in values.items()}


def write_model(folder: Path, hparams: dict[str, int]) -> None:
    """The checkpoint, its pointer and its settings, as OpenAI's training program leaves them (without the graph)."""
    import tensorflow.compat.v1 as tf

    folder.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default(), tf.Session() as session:
        for name, value in arrays(hparams).items():
            scope, _, last = name.rpartition("/")
            with tf.variable_scope(scope, reuse=tf.AUTO_REUSE):
                tf.get_variable(last, shape=value.shape, initializer=tf.zeros_initializer()).load(value, session)
        with contextlib.chdir(folder.parent):  # for an absolute path TensorFlow writes an absolute pointer
            tf.train.Saver().save(session, f"{folder.name}/model.ckpt", write_meta_graph=False)
    (folder / "hparams.json").write_text(json.dumps(hparams, indent=2) + "\n", encoding="utf-8")


def write_vocabulary(folder: Path) -> None:
    """encoder.json and vocab.bpe in OpenAI's form: 256 bytes in their order, six merges, the end of a text."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]  # shown by characters from U+0100 upward
    names = [chr(byte) for byte in shown] + [chr(256 + place) for place in range(len(hidden))]
    names += [merge.replace(" ", "") for merge in MERGES] + ["<|endoftext|>"]
    content = json.dumps({name: place for place, name in enumerate(names)})
    (folder / "encoder.json").write_text(content, encoding="utf-8")
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")


def write_pieces(folder: Path) -> None:
    """PIECES, BFLOATS and TEXTS in pieces.*: variables of two devices, hence two data files."""
    import tensorflow.compat.v1 as tf

    config = tf.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        values = [(name, tf.constant(value)) for name, value in PIECES.items()]
        values += [("bfloats", tf.constant(BFLOATS, dtype=tf.bfloat16)), ("texts", tf.constant(TEXTS))]
        for place, (name, value) in enumerate(values):
            with tf.device(f"/cpu:{place % 2}"):
                tf.Variable(value, name=name)
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(sharded=True)
        saver.save(session, str(folder / "pieces"), write_meta_graph=False, write_state=False)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_model(Path(sys.argv[1]), LARGE)
    else:
        place = Path(__file__).parent / "gpt2-tf"
        write_model(place, HPARAMS)
        write_vocabulary(place)
        write_pieces(place)
