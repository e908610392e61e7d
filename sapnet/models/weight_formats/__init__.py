"""Readers of the formats of other libraries in which authors distribute weights, without those libraries.

They read numbers alone and cannot execute code. A file that does not follow the format in every respect, or uses a part
of it that the known files do not use, raises `FormatError`.
"""

from sapnet.models.weight_formats.caffe import read_caffe_model
from sapnet.models.weight_formats.protobuf import FormatError
from sapnet.models.weight_formats.tensorflow import BUNDLE, files_of_bundle, read_bundle

__all__ = ["BUNDLE", "FormatError", "files_of_bundle", "read_bundle", "read_caffe_model"]
