"""Write a quantised GGUF again with its tensors as F32, F16 or BF16, metadata and tokenizer unchanged.

    python smollm2_gguf.py SmolLM2-135M-Instruct.Q4_1.gguf OUT.gguf --dtype f16

It is how llama.cpp gets the same weights at the precisions that Ferule computes in. Norms stay F32, as llama.cpp's
own converter leaves them.
"""

import argparse
from pathlib import Path

import gguf
from gguf.quants import dequantize, quantize

TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
}
WRITTEN_BY_THE_WRITER = {"general.architecture", "general.file_type", "general.quantization_version"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", choices=TYPES, required=True)
    arguments = parser.parse_args()
    kind, file_type = TYPES[arguments.dtype]
    reader = gguf.GGUFReader(arguments.source)
    writer = gguf.GGUFWriter(arguments.out, reader.fields["general.architecture"].contents())
    writer.add_file_type(file_type)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in WRITTEN_BY_THE_WRITER:
            continue
        inner = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if values.ndim > 1:
            writer.add_tensor(tensor.name, quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
