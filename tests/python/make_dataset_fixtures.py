"""Writes tests/fixtures/dataset/expected.json: splits, shuffles and a digest computed without any of our Rust.

Needs only Python's standard library:  python tests/python/make_dataset_fixtures.py
"""

import hashlib
import json
import struct
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "dataset"
MASK = 0xFFFFFFFF


def part(seed, content, val, test):
    content_hash = hashlib.sha256(content).digest()
    key = hashlib.sha256(struct.pack("<Q", seed) + content_hash).digest()
    fraction = int.from_bytes(key[:8], "big") / 2**64
    return "val" if fraction < val else "test" if fraction < val + test else "train"


def chacha8_words(key):
    """The ChaCha stream of 8 rounds with a 64-bit counter from 0 and stream 0, as 32-bit words (RFC 8439's quarter round)."""

    def rotate(word, by):
        return ((word << by) | (word >> (32 - by))) & MASK

    def quarter(state, a, b, c, d):
        for first, second, third, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[first] = (state[first] + state[second]) & MASK
            state[third] = rotate(state[third] ^ state[first], by)

    counter = 0
    while True:
        start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
        start += struct.unpack("<8I", key) + (counter & MASK, counter >> 32, 0, 0)
        state = list(start)
        for _ in range(4):
            for column in range(4):
                quarter(state, column, column + 4, column + 8, column + 12)
            quarter(state, 0, 5, 10, 15)
            quarter(state, 1, 6, 11, 12)
            quarter(state, 2, 7, 8, 13)
            quarter(state, 3, 4, 9, 14)
        yield from ((one + other) & MASK for one, other in zip(state, start))
        counter += 1


def epoch_order(n, seed, epoch):
    words = chacha8_words(struct.pack("<QQ16x", seed, epoch))
    order = list(range(n))
    for last in range(n - 1, 0, -1):
        low = next(words)
        number = low | next(words) << 32
        chosen = number * (last + 1) >> 64
        order[last], order[chosen] = order[chosen], order[last]
    return order


def digest(samples):
    hashed = hashlib.sha256(b"visage-dataset-1\n")
    for name, content, age, part_byte in sorted(samples):
        hashed.update(struct.pack("<Q", len(name.encode())) + name.encode())
        hashed.update(hashlib.sha256(content).digest() + struct.pack("<fB", age, part_byte))
    return hashed.hexdigest()


def main():
    splits = []
    for seed in (0, 7, 2**63):
        for val, test in ((0.1, 0.1), (0.4, 0.0), (0.25, 0.5)):
            parts = [part(seed, f"image {index}".encode(), val, test) for index in range(24)]
            splits.append({"seed": seed, "val": val, "test": test, "parts": parts})
    orders = [
        {"n": n, "seed": seed, "epoch": epoch, "order": epoch_order(n, seed, epoch)}
        for n, seed, epoch in ((0, 1, 1), (1, 1, 1), (10, 0, 0), (10, 0, 1), (40, 42, 3), (10, 2**64 - 1, 9))
    ]
    samples = [("train/b.jpg", b"bee", 34.5, 0), ("val/é.jpg", b"eh", 7.0, 1), ("test/a.jpg", b"ah", 100.0, 2)]
    OUT.mkdir(parents=True, exist_ok=True)
    expected = {"splits": splits, "orders": orders, "digest": digest(samples), "val_digest": digest(samples[1:2])}
    (OUT / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
