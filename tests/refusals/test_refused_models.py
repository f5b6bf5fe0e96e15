"""Models that are refused, for an op, as an object or as a file: the message says what to give in their place."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from sklearn.linear_model import LogisticRegression

from analyzer import differentiate, gradient
from analyzer.target.target import Target
from converters import ConversionError, convert, load
from tests.refusals.setting import (
    DENSE,
    QUANTIZED,
    Case,
    W,
    X,
    assert_refused,
    floats,
    gradient_of,
    model_of,
    of_class,
)

STEPPED = floats("r = Round(x) y = Mul(r, r)")
BRANCHES = floats(
    "s = ReduceSum<keepdims=0>(x) c = Greater(s, z) y = If(c) <"
    "then_branch = a () => (float[N,4] t) { t = Mul(x, x) }, else_branch = b () => (float[N,4] e) { e = Sin(x) }>",
    z=np.float32(0),
)
WHERE = floats(
    "s = ReduceSum<keepdims=0>(x) c = Greater(s, z) t = Mul(x, x) e = Sin(x) y = Where(c, t, e)",
    z=np.float32(0),
)
TREE = model_of(
    "g (float[N,4] x) => (float[N,1] y) { y = ai.onnx.ml.TreeEnsembleRegressor<"
    "nodes_falsenodeids=[2,0,0], nodes_featureids=[0,0,0], nodes_hitrates=[1.0,1.0,1.0], "
    'nodes_missing_value_tracks_true=[0,0,0], nodes_modes=["BRANCH_LEQ","LEAF","LEAF"], '
    "nodes_nodeids=[0,1,2], nodes_treeids=[0,0,0], nodes_truenodeids=[1,0,0], nodes_values=[0.5,0.0,0.0], "
    "n_targets=1, target_ids=[0,0], target_nodeids=[1,2], target_treeids=[0,0], target_weights=[1.0,2.0]>(x) }"
)
SUPPORT = model_of(
    "g (float[N,4] x) => (int64[N] l, float[N,2] y) { l, y = ai.onnx.ml.SVMClassifier<"
    "classlabels_ints=[0,1], coefficients=[1.0,-1.0], kernel_params=[0.5,0.0,3.0], vectors_per_class=[1,1], "
    'kernel_type="RBF", support_vectors=[1.0,0.0,0.0,0.0,0.0,1.0,0.0,0.0], rho=[0.1]>(x) }'
)
FREE_DETERMINANT = model_of("g (float[N,K,K] x) => (float[N] y) { y = Det(x) }")
SQUARES = np.float32([[[2, 0], [0, 3]], [[4, 1], [0, 1]]])


def without_output() -> onnx.ModelProto:
    model = floats("y = Relu(x)")
    del model.graph.output[:]
    return model


OPS = {
    "rounding": Case(
        lambda: gradient(QUANTIZED, X, 1),
        "straight_through=True",
        lambda f: gradient_of(QUANTIZED, X, 1, straight_through=True),
        np.tile([0, 1, 0, 0], (2, 1)),
    ),
    "steps": Case(
        lambda: gradient(STEPPED, X, 1),
        "wrt=['r']",
        lambda f: differentiate(STEPPED).gradients(X, 1, wrt="r").gradients["r"][:, 1],
        2 * X[:, 1],
    ),
    "a comparison": Case(
        lambda: gradient(floats("c = Greater(x, x) y = Cast<to=1>(c)"), X, 1),
        "a tensor that is computed before it",
    ),
    "a draw": Case(lambda: gradient(floats("y = Bernoulli(x)"), X / 5, 1), "downstream of it"),
    "a size that only a run shows": Case(
        lambda: gradient(FREE_DETERMINANT, SQUARES, 0),
        'backend="torch"',
        lambda f: gradient_of(FREE_DETERMINANT, SQUARES, None, backend="torch")[0],
        [[3, 0], [0, 2]],
    ),
    "a tree": Case(lambda: gradient(TREE, X), "TreeSHAP"),
    "a support vector classifier": Case(lambda: gradient(SUPPORT, X, 1), "SVMRegressor"),
    "a map": Case(
        lambda: gradient(
            model_of("g (map(int64, float) x) => (float[1,3] y) { y = ai.onnx.ml.CastMap(x) }"), X
        ),
        "turns the map into a tensor",
    ),
    "text": Case(
        lambda: gradient(model_of("g (string[N,4] x) => (float[N,4] y) { y = Cast<to=1>(x) }"), X),
        "give these numbers",
    ),
    "statistics by position": Case(
        lambda: load(
            model_of(
                "g (float[2,3,4,4] x, float[3,4,4] s) => (float[2,3,4,4] y) "
                "{ y = BatchNormalization<spatial=0>(x, s, s, s, s) }",
                opset=7,
            )
        ),
        "export the model again at opset",
    ),
    "training": Case(
        lambda: gradient(
            model_of(
                "g (float[N,3] x) => (float[N,3] y, float[3] a, float[3] b) "
                "{ y, a, b = BatchNormalization<training_mode=1>(x, s, s, s, s) }",
                s=np.ones(3, np.float32),
            ),
            X[:, :3],
            Target(index=(0, 1)),
        ),
        "module.eval()",
    ),
    "an op of ONNX Runtime": Case(
        lambda: load(floats("y = com.microsoft.BeamSearch(x)")), "before it was optimized"
    ),
    "an op of mine": Case(lambda: gradient(floats("y = mine.Foo(x)"), X, 1), "by standard ops"),
    "a root of what is negative": Case(lambda: gradient(floats("y = Sqrt(x)"), -X, 1), "sqrt(x + 1e-12)"),
    "no output": Case(lambda: load(without_output()), "as an output of the file"),
    "a later opset": Case(
        lambda: load(model_of("g (float[N] x) => (float[N] y) { y = Relu(x) }", opset=99)), "an older opset"
    ),
}

SOURCES = {
    "a function": Case(lambda: convert(lambda x: x, X), "tf.function(function)"),
    "a number": Case(lambda: convert(3), "a PyTorch, Keras, TensorFlow or ONNX model"),
    "an estimator": Case(lambda: convert(LogisticRegression()), "skl2onnx.to_onnx(model, X)"),
    "weights": Case(lambda: convert({"w": W}), "load_state_dict"),
    "a class": Case(lambda: convert(dict), "an object of it"),
    "an example's names": Case(
        lambda: convert(DENSE, {"z": X}),
        "{name: array}",
        lambda f: gradient_of(convert(DENSE, {"x": X}), X),
        of_class(1),
    ),
    "an example too many": Case(lambda: convert(DENSE, (X, X)), "one array for each input"),
    "an example of text": Case(lambda: convert(DENSE, "x"), "an array of numbers"),
    "free axes of a file": Case(lambda: convert(DENSE, X, free_axes={"x": {1: "t"}}), "omit free_axes"),
    "a path of class names": Case(lambda: convert(DENSE, class_names="names.txt"), "one for each class"),
    "a size as preprocessing": Case(lambda: convert(DENSE, preprocessing=224), "Preprocessing((224, 224))"),
    "fewer than no test inputs": Case(lambda: convert(DENSE, batches=-1), "batches=3"),
    "a missing file": Case(lambda: convert("nowhere.onnx"), "an existing file"),
    "a missing module": Case(lambda: convert("no_module:make"), "package.module:factory"),
    "a missing factory": Case(lambda: convert("json:make"), "package.module:factory"),
}


CASES = {f"op: {name}": case for name, case in OPS.items()}
CASES |= {f"source: {name}": case for name, case in SOURCES.items()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_model_is_refused_with_a_fix_that_works(case):
    assert_refused(case)


# A suffix with words of its fix.
FILES = {
    ".onnx": "onnx.load takes it",
    ".pt": "give the nn.Module with an example",
    ".pth": "give the nn.Module with an example",
    ".ckpt": "give the nn.Module with an example",
    ".safetensors": "give the nn.Module with an example",
    ".gguf": "give the nn.Module with an example",
    ".torchscript": "give the nn.Module that was traced",
    ".npz": "build the network in your own code",
    ".pkl": "export the model to ONNX",
    ".mlmodel": "give the model that it was converted from",
    ".tflite": "tf2onnx.convert --tflite",
    ".pt2": "trust=True",
    ".engine": "give the ONNX file that it was built from",
    ".json": "load the model in your own code",
    "": "load the model in your own code",
}


@pytest.mark.parametrize("content", [b"", b"not a model"], ids=["empty", "junk"])
@pytest.mark.parametrize(("suffix", "words"), FILES.items())
def test_a_file_that_cannot_be_read_is_refused_with_a_fix(tmp_path, suffix, words, content):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(ConversionError) as caught:
        convert(path)
    what, _, fix = str(caught.value).partition("Fix: ")
    assert path.name in what and words in fix and "\n" not in str(caught.value)
