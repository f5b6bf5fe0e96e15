"""State why node tests are excluded: the only table of reasons.

Patterns are searched in "runner/name": a backend or "vjp", then the case, and for a derivative "[output, input]".
An exclusion explains a failure and hides nothing: every case runs, and an exclusion without a failure is reported.
"""

from __future__ import annotations

import re

VJP = "vjp"

_NARROW = "float8, float4, int4 and int2 carry no gradient, and the frameworks lack these dtypes"
_TRAINING = "training mode is refused: models are analyzed in inference mode"
_NOT_FINITE = "inputs with NaN or infinity are refused: they have no attribution"
_TEXT = "the frameworks have no text tensors"
_SEQUENCE = "sequences and optionals are not tensors"
_LEARNED = "ops of ai.onnx.ml have no defined derivative"
_MOD = "ONNX Runtime's Mod of opset 23 takes floats only with fmod=1"

EXCLUSIONS: dict[str, str] = {
    r"/(cast|castlike)_.*(FLOAT8|FLOAT4|INT4|INT2|E8M0|E5M2|E4M3|e8m0)": _NARROW,
    r"/(de)?quantizelinear_.*(e4m3|e5m2|float4|int4|int2)": _NARROW,
    r"/(castlike|cast|equal|identity)_.*(STRING|string)": _TEXT,
    r"/(string_|strnormalizer|regex_full_match|tfidfvectorizer|ai_onnx_ml_label_encoder)": _TEXT,
    r"/bernoulli": "the op draws random numbers, and the test expects one particular draw",
    r"/batchnorm_.*training_mode": _TRAINING,
    r"/training_dropout": _TRAINING,
    r"/(cast|castlike)_(FLOAT|FLOAT16|DOUBLE|BFLOAT16)_to_(FLOAT|FLOAT16|DOUBLE|BFLOAT16)": _NOT_FINITE,
    r"/(isinf|isnan|mod_float_edge_cases|ai_onnx_ml_tree_ensemble_set_membership)": _NOT_FINITE,
    r"/attention_.*neginf": _NOT_FINITE,
    r"/(adagrad|adam|momentum|nesterov_momentum)(_multiple)?\b": (
        "optimizer steps are not part of a model in inference"
    ),
    r"/(identity_sequence|identity_opt|if_opt|if_seq|loop13_seq|loop16_seq_none)": _SEQUENCE,
    r"/(sequence_|split_to_sequence|optional_)": _SEQUENCE,
    r"/bitcast_": "opset 23 has no op that reinterprets the bits of a number",
    r"/bitshift_.*_int(8|16|32|64)": "up to opset 23, shifts take only unsigned integers",
    r"/nonmaxsuppression": "the op selects boxes by comparison, and only the ONNX Runtime backend runs it",
    r"/ai_onnx_ml_tree_ensemble": _LEARNED,
    r"/celu_float16": "up to opset 23, Celu takes only float32",
    r"torch/(.*_uint(16|32|64)|bitwise_not_3d)$": "PyTorch has no arithmetic for these integers",
    r"(torch|vjp)/pow_types_float32_uint(32|64)": "PyTorch has no arithmetic for these integers",
    r"onnxruntime/mod_float(16|32|64)_mixed_sign_fmod_0": _MOD,
    r"/resize_downsample_scales_(linear|cubic)_align_corners": (
        "ONNX Runtime and PyTorch align the corners of the rounded size, and the test those of the unrounded size"
    ),
    r"/maxunpool_export_with_output_shape": (
        "ONNX Runtime and PyTorch count indices in output_shape, and the test in the shape without it"
    ),
    r"(onnxruntime|torch|tensorflow)/(dft|stft)": (
        "the test requires zeros to 1e-7, which no float32 transform reaches, not even stock ONNX Runtime's"
    ),
    r"onnxruntime/pow_types_float32_uint(32|64)": "ONNX Runtime has no kernel for these integers",
    r"/attention_4d_gqa_with_past_and_present_fp16": (
        "the test rounds intermediate values to half precision, and the backends compute in float32"
    ),
    r"vjp/(rnn_seq_length|simple_rnn_bidirectional)\[Y_h, X\]": (
        "tanh saturates: 1 − y² keeps two digits in float32 on every backend; in float64 the gradients agree"
    ),
    r"/attention_4d_with_past_and_present_qk_matmul_bias_[34]d_mask_causal": (
        "ONNX Runtime puts −∞ at other positions than the standard: such a file is refused"
    ),
    r"/scan_sum": "Scan of opset 8 runs over batches, unlike later ones, and raises an error",
    r"vjp/.*(rnn|gru|lstm)_.*, [WRBP]\]": "the weights of a recurrent op must be constants, and others raise an error",
}


def reason(runner: str, case: str) -> str | None:
    """Return the reason why a case is excluded for a runner, or None."""
    pattern = matching(runner, case)
    return None if pattern is None else EXCLUSIONS[pattern]


def matching(runner: str, case: str) -> str | None:
    """Return the first pattern that matches a case of a runner, or None."""
    return next((pattern for pattern in EXCLUSIONS if re.search(pattern, f"{runner}/{case}")), None)
