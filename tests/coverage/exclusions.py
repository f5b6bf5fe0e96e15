"""Why a node test is left out: the one table of reasons.

Patterns are searched in "runner/name": a backend, or "vjp", then the case, and for a derivative "[output, input]".
An exclusion explains a failure and hides nothing: every case is run, and one that excludes no failure is reported.
"""

from __future__ import annotations

import re

VJP = "vjp"

_NARROW = "float8, float4 and integers of 4 or 2 bits carry no gradient and are no dtype of the frameworks"
_TRAINING = "training mode is refused: a model is analyzed in inference mode"
_NOT_FINITE = "inputs that hold NaN or infinity are refused: nothing can be attributed to them"
_STEP = "a step of an optimizer is no part of a model in inference"

_SEQUENCE = "sequences and optionals are no tensors"

EXCLUSIONS: dict[str, str] = {
    r"/(cast|castlike)_.*(FLOAT8|FLOAT4|INT4|INT2|E8M0|E5M2|E4M3|e8m0)": _NARROW,
    r"/(de)?quantizelinear_.*(e4m3|e5m2|float4|int4|int2)": _NARROW,
    r"/batchnorm_.*training_mode": _TRAINING,
    r"/training_dropout": _TRAINING,
    r"/castlike_(FLOAT16|DOUBLE|BFLOAT16)_to_FLOAT": _NOT_FINITE,
    r"/mod_float_edge_cases": _NOT_FINITE,
    r"/attention_.*neginf": _NOT_FINITE,
    r"/ai_onnx_ml_tree_ensemble_set_membership": _NOT_FINITE,
    r"/(adagrad|adam|momentum|nesterov_momentum)(_multiple)?\b": _STEP,
    r"/optional_get_element_tensor": _SEQUENCE,
    r"/ai_onnx_ml_(array_feature_extractor|binarizer)": "an op of ai.onnx.ml, of which no derivative is defined",
    r"onnxruntime/mod_float32_mixed_sign_fmod_0": "ONNX Runtime's Mod of opset 23 takes floats with fmod=1 alone",
    r"/scan_sum": "Scan of opset 8 runs over batches, as no later one does, and is refused by name",
    r"vjp/.*(rnn|gru|lstm)_.*, [WRBP]\]": "the weights of a recurrent op are constants, refused by name otherwise",
    r"vjp/attention_.*nan_robustness": (
        "a query with every key masked: its softmax is 0/0, which the standard's body hides in the output alone"
    ),
    r"vjp/attention_.*qk_matmul_bias_.*_causal\[qk_matmul_output": "the output itself holds −∞",
    r"(torch|vjp)/pow_types_float32_uint(32|64)": "PyTorch has no arithmetic for these integers",
    r"/resize_downsample_scales_(linear|cubic)_align_corners": (
        "ONNX Runtime, as PyTorch, aligns the corners of the rounded size, the test those of the unrounded one"
    ),
}


def reason(runner: str, case: str) -> str | None:
    """Why a case is left out for a runner, or None."""
    pattern = matching(runner, case)
    return None if pattern is None else EXCLUSIONS[pattern]


def matching(runner: str, case: str) -> str | None:
    """The first pattern that a case of a runner fits, or None."""
    return next((pattern for pattern in EXCLUSIONS if re.search(pattern, f"{runner}/{case}")), None)
