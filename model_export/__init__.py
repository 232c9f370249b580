"""Trains recurrent forecasters and exports recurrent PyTorch modules for streaming.

Three functions are for people who bring a network of their own: `describe` finds out what a module's states and outputs
are, `export_streaming` writes the verified ``model.onnx``, and `quantize_file` an int8 version of one.
``python -m model_export`` does the rest.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model_export.quantized_export import quantize_file
    from model_export.specification import describe
    from model_export.streaming import export_streaming

__all__ = ["describe", "export_streaming", "quantize_file"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and ``--help`` needs none of it.
    if name == "describe":
        from model_export.specification import describe

        return describe
    if name == "export_streaming":
        from model_export.streaming import export_streaming

        return export_streaming
    if name == "quantize_file":
        from model_export.quantized_export import quantize_file

        return quantize_file
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
