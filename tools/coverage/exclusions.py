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
_TEXT = "text is no tensor of the frameworks"
_SEQUENCE = "sequences and optionals are no tensors"
_LEARNED = "an op of ai.onnx.ml, of which no derivative is defined"
_MOD = "ONNX Runtime's Mod of opset 23 takes floats with fmod=1 alone"

EXCLUSIONS: dict[str, str] = {
    r"/(cast|castlike)_.*(FLOAT8|FLOAT4|INT4|INT2|E8M0|E5M2|E4M3|e8m0)": _NARROW,
    r"/(de)?quantizelinear_.*(e4m3|e5m2|float4|int4|int2)": _NARROW,
    r"/(castlike|cast|equal|identity)_.*(STRING|string)": _TEXT,
    r"/(string_|strnormalizer|regex_full_match|tfidfvectorizer|ai_onnx_ml_label_encoder)": _TEXT,
    r"/bernoulli": "draws at random: the test's own draw is one of many",
    r"/batchnorm_.*training_mode": _TRAINING,
    r"/training_dropout": _TRAINING,
    r"/(cast|castlike)_(FLOAT|FLOAT16|DOUBLE|BFLOAT16)_to_(FLOAT|FLOAT16|DOUBLE|BFLOAT16)": _NOT_FINITE,
    r"/(isinf|isnan|mod_float_edge_cases|ai_onnx_ml_tree_ensemble_set_membership)": _NOT_FINITE,
    r"/attention_.*neginf": _NOT_FINITE,
    r"/(adagrad|adam|momentum|nesterov_momentum)(_multiple)?\b": (
        "a step of an optimizer is no part of a model in inference"
    ),
    r"/(identity_sequence|identity_opt|if_opt|if_seq|loop13_seq|loop16_seq_none)": _SEQUENCE,
    r"/(sequence_|split_to_sequence|optional_)": _SEQUENCE,
    r"/bitcast_": "reads the bits of a number as another number, for which opset 23 has no op",
    r"/bitshift_.*_int(8|16|32|64)": "shifts take unsigned integers alone up to opset 23",
    r"/nonmaxsuppression": "chooses boxes by comparing them; of the backends ONNX Runtime alone runs it",
    r"/ai_onnx_ml_tree_ensemble": _LEARNED,
    r"/celu_float16": "Celu takes float32 alone up to opset 23",
    r"torch/(.*_uint(16|32|64)|bitwise_not_3d)$": "PyTorch has no arithmetic for these integers",
    r"(torch|vjp)/pow_types_float32_uint(32|64)": "PyTorch has no arithmetic for these integers",
    r"onnxruntime/mod_float(16|32|64)_mixed_sign_fmod_0": _MOD,
    r"/resize_downsample_scales_(linear|cubic)_align_corners": (
        "ONNX Runtime, as PyTorch, aligns the corners of the rounded size, the test those of the unrounded one"
    ),
    r"/maxunpool_export_with_output_shape": (
        "ONNX Runtime, as PyTorch, counts indices in output_shape, the test in the shape without it"
    ),
    r"(onnxruntime|torch|tensorflow)/(dft|stft)": (
        "the test wants zeros to 1e-7, which no transform in float32 gives, stock ONNX Runtime's neither"
    ),
    r"onnxruntime/pow_types_float32_uint(32|64)": "ONNX Runtime has no kernel for these integers",
    r"/attention_4d_gqa_with_past_and_present_fp16": (
        "the test rounds to half precision on the way, where the backends compute in float32"
    ),
    r"vjp/(rnn_seq_length|simple_rnn_bidirectional)\[Y_h, X\]": (
        "tanh saturates: 1 − y² keeps two digits in float32, on every backend; in float64 the gradients agree"
    ),
    r"/attention_4d_with_past_and_present_qk_matmul_bias_[34]d_mask_causal": (
        "ONNX Runtime puts −∞ elsewhere than the standard: a file that the runtime computes otherwise is refused"
    ),
    r"/scan_sum": "Scan of opset 8 runs over batches, as no later one does, and is refused by name",
    r"vjp/.*(rnn|gru|lstm)_.*, [WRBP]\]": "the weights of a recurrent op are constants, refused by name otherwise",
}


def reason(runner: str, case: str) -> str | None:
    """Why a case is left out for a runner, or None."""
    pattern = matching(runner, case)
    return None if pattern is None else EXCLUSIONS[pattern]


def matching(runner: str, case: str) -> str | None:
    """The first pattern that a case of a runner fits, or None."""
    return next((pattern for pattern in EXCLUSIONS if re.search(pattern, f"{runner}/{case}")), None)
