"""Decide whether a TensorFlow op only computes: it touches no file, process, network, queue or Python object.

An op can only reach a file or a function of the process by a name. An op is therefore pure if TensorFlow's registry
says that it keeps no state, and if it takes no text: neither a string tensor nor a free string attribute. This rule
refuses ops that later versions of TensorFlow add until they are reviewed. The lists below hold the exceptions, each
reviewed in TensorFlow 2.21: ops whose state lies in memory, attributes that select a format, ops that transform text.
"""

from __future__ import annotations

from typing import Any

_VARIABLES = (
    "AssignAddVariableOp", "AssignSubVariableOp", "AssignVariableOp", "DestroyResourceOp", "DisableCopyOnRead",
    "ReadVariableOp", "ResourceStridedSliceAssign", "VarHandleOp", "VarIsInitializedOp", "Variable", "VariableShape",
    "VariableV2",
)  # fmt: skip
_CONTROL = (
    "Assert", "Case", "CheckNumerics", "CheckNumericsV2", "Empty", "GuaranteeConst", "If", "StatefulPartitionedCall",
    "While",
)  # fmt: skip
_RANDOM = (
    "Multinomial", "ParameterizedTruncatedNormal", "RandomCrop", "RandomGamma", "RandomPoisson", "RandomPoissonV2",
    "RandomShuffle", "RandomStandardNormal", "RandomUniform", "RandomUniformInt", "RngReadAndSkip", "RngSkip",
    "StatefulRandomBinomial", "StatefulStandardNormal", "StatefulStandardNormalV2", "StatefulTruncatedNormal",
    "StatefulUniform", "StatefulUniformFullInt", "StatefulUniformInt", "StatelessRandomGetAlg", "TruncatedNormal",
)  # fmt: skip
_TABLES = (
    "AnonymousHashTable", "AnonymousMutableDenseHashTable", "AnonymousMutableHashTable",
    "AnonymousMutableHashTableOfTensors", "HashTable", "HashTableV2", "InitializeTableV2", "LookupTableExportV2",
    "LookupTableFindV2", "LookupTableImportV2", "LookupTableInsertV2", "LookupTableRemoveV2", "LookupTableSizeV2",
    "MutableDenseHashTableV2", "MutableHashTableOfTensorsV2", "MutableHashTableV2",
)  # fmt: skip
_LISTS = (
    "StackCloseV2", "StackPopV2", "StackPushV2", "StackV2", "TensorArrayCloseV3", "TensorArrayConcatV3",
    "TensorArrayGatherV3", "TensorArrayGradV3", "TensorArrayGradWithShape", "TensorArrayReadV3", "TensorArrayScatterV3",
    "TensorArraySizeV3", "TensorArraySplitV3", "TensorArrayV3", "TensorArrayWriteV3",
)  # fmt: skip
_TEXT = (
    "AsString", "DecodeBase64", "DecodeBmp", "DecodeGif", "DecodeImage", "DecodeJpeg", "DecodePng", "DecodeRaw",
    "EncodeBase64", "ParseExample", "ParseExampleV2", "ParseSingleExample", "ReduceJoin", "RegexFullMatch",
    "RegexReplace", "StaticRegexFullMatch", "StaticRegexReplace", "StringFormat", "StringJoin", "StringLength",
    "StringLower", "StringNGrams", "StringSplit", "StringSplitV2", "StringStrip", "StringToHashBucket",
    "StringToHashBucketFast", "StringToHashBucketStrong", "StringToNumber", "StringUpper", "Substr", "UnicodeDecode",
    "UnicodeDecodeWithOffsets", "UnicodeTranscode", "UnsortedSegmentJoin",
)  # fmt: skip
_REVIEWED = frozenset((*_VARIABLES, *_CONTROL, *_RANDOM, *_TABLES, *_LISTS, *_TEXT))
# Families of which every member is reviewed: the optimizers of a training signature, reads and writes of variables.
_REVIEWED_FAMILIES = ("CudnnRNN", "ResourceApply", "ResourceGather", "ResourceScatter", "ResourceSparseApply")
# Attributes that select a format or a layout, or hold the text of an error.
_FORMATS = frozenset(
    {
        "activation_mode", "bad_indices_policy", "config", "config_proto", "data_format", "dimension_numbers",
        "dst_format", "equation", "executor_type", "fill_mode", "frame_name", "interpolation", "kernel_type", "message",
        "method", "noise", "padding", "precision_config", "row_partition_types", "set_operation", "src_format",
    }
)  # fmt: skip
# Without state and text, but made for pipelines of data, accelerators and debuggers.
_FOREIGN_PARTS = ("Dataset", "Debug", "Iterator", "Prelinearize", "TPU", "Tpu")

SAVER_OPS = frozenset({"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"})
"""The ops of the functions that save and restore a SavedModel. Loading does not run these functions."""


def is_pure(op_def: Any) -> bool:
    """Return whether an op, given by its OpDef, only computes."""
    name = op_def.name
    if name in _REVIEWED or name.startswith(_REVIEWED_FAMILIES):
        return True
    if op_def.is_stateful or name.startswith("_") or any(part in name for part in _FOREIGN_PARTS):
        return False
    return not _takes_text(op_def)


def _takes_text(op_def: Any) -> bool:
    from tensorflow.core.framework import types_pb2

    if any(argument.type in (types_pb2.DT_STRING, types_pb2.DT_STRING_REF) for argument in op_def.input_arg):
        return True
    return any(
        attribute.type in ("string", "list(string)")
        and not attribute.allowed_values.list.s
        and attribute.name not in _FORMATS
        for attribute in op_def.attr
    )
