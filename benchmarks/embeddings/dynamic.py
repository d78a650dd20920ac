"""Quantize a file as most people do:  python -m benchmarks.embeddings.dynamic FP32_DIR OUT

``onnxruntime.quantization.quantize_dynamic`` with its defaults and with the options that are usually tried. Each file
is in a folder of its own with the tokenizer, so that ``score`` and ``speed`` read it like a deployment folder.

On a CPU with AVX2 and no VNNI the integer kernels add two products in 16 bits, which saturates for weights of 8 bits.
``reduce_range`` (7 bits) and ``quint8`` (other kernels) avoid that.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from onnxruntime.quantization import QuantType, quantize_dynamic

#: name of the folder -> options of ``quantize_dynamic``
VARIANTS: dict[str, dict[str, Any]] = {
    "dynamic_int8": {},
    "dynamic_int8_per_channel": {"per_channel": True},
    "dynamic_int8_reduce_range": {"reduce_range": True},
    "dynamic_int8_per_channel_reduce_range": {"per_channel": True, "reduce_range": True},
    "dynamic_quint8": {"weight_type": QuantType.QUInt8},
}


def main() -> None:
    """Write a folder for each variant, and say how large its file is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fp32", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    for name, settings in VARIANTS.items():
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        quantize_dynamic(options.fp32 / "model.onnx", folder / "model.onnx", **settings)
        shutil.copy(options.fp32 / "tokenizer.json", folder)
        print(f"{folder}: {(folder / 'model.onnx').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
