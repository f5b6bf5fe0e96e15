"""JUnit XML and the text table of a report: what CI servers and logs read, of rows that are written by hand."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from analyzer.checks import Report

# The elements of Jenkins' schema that a report uses: the attributes that must be, and the children that may be.
SCHEMA = {
    "testsuites": ({"name", "tests", "failures", "errors", "time"}, {"testsuite"}),
    "testsuite": ({"name", "tests", "failures", "errors", "skipped", "time", "timestamp"}, {"testcase"}),
    "testcase": ({"name", "classname", "time"}, {"skipped", "failure", "system-out"}),
    "failure": ({"message", "type"}, set()),
    "skipped": ({"message"}, set()),
    "system-out": (set(), set()),
}


def row(quantity, tensor, size, *, depth=0, explanation="", b="two.0"):
    return {
        "quantity": quantity, "tensor": tensor, "a": "one", "b": b, "max_abs": size, "max_relative": size,
        "relative_l2": size, "cosine": 1.0, "tolerance": 1e-4, "passed": size <= 1e-4 or bool(explanation),
        "explanation": explanation, "node": f"node_{tensor}", "op_type": "Conv", "layer": "stem", "depth": depth,
    }  # fmt: skip


@pytest.fixture
def report():
    rows = [
        row("output", "y", 2e-3, depth=9),
        row("layer", "h<&>", 1e-3, depth=2),
        row("layer", "bell\x07", 5e-2, depth=3),
        row("layer", "fine", 1e-7, depth=1),
        row("full grad", "map", 3e-2, explanation="1 decision of Relu"),
        row("output", "y", 1e-8, b="three"),
    ]
    complete = [
        {"backend": name, "method": "full grad", "error": error, "tolerance": 1e-4, "passed": error <= 1e-4}
        for name, error in (("one", 1e-7), ("two.0", 0.5), ("three", 1e-6))
    ]
    return Report(
        rows=rows,
        completeness=complete,
        backends=("one", "two.0", "three"),
        skipped={"source": "an ONNX file has no source"},
        seconds={"one": 1.5, "two.0": 0.25, "three": 2.0},
        origins={("one", "two.0"): "Conv 'node_h': 'h<&>' of two.0 is 1.0e-03 from what its own inputs give"},
    )


@pytest.fixture
def root(report, tmp_path):
    report.to_junit(tmp_path / "gate.xml")
    assert [path.name for path in tmp_path.iterdir()] == ["gate.xml"]
    return ElementTree.parse(tmp_path / "gate.xml").getroot()


def test_the_file_is_of_the_form_that_ci_servers_read(root):
    assert root.tag == "testsuites"
    for element in root.iter():
        required, children = SCHEMA[element.tag]
        assert required <= set(element.attrib), element.tag
        assert {child.tag for child in element} <= children, element.tag
        assert all(value for value in element.attrib.values())
        if "time" in element.attrib:
            assert float(element.get("time")) >= 0
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(names) == len(set(names)) == 8


def test_the_counts_are_those_of_the_cases(root):
    for element in (root, *root):
        assert int(element.get("tests")) == len(list(element.iter("testcase")))
        assert int(element.get("failures")) == len(list(element.iter("failure")))
        assert int(element.get("skipped")) == len(list(element.iter("skipped")))
    assert (root.get("failures"), root.get("skipped")) == ("3", "1")
    assert float(root.get("time")) == sum(float(suite.get("time")) for suite in root) == 3.75


def test_a_failure_tells_the_worst_row_and_the_node_at_fault(root):
    cases = {(case.get("classname"), case.get("name")): case for case in root.iter("testcase")}
    layer = cases["onnxplain.one against two_0", "layer"].find("failure")
    assert layer.get("message") == r"layer 'bell\x07', one against two.0: relative L2 5.0e-02 > 1e-04"
    worst, second = (line for line in layer.text.splitlines() if "Conv  stem" in line)
    # XML has no bell.
    assert "5.0e-02" in worst and "bell\ufffd" in worst and "h<&>" in second
    assert "first parts at layer 'h<&>', Conv 'node_h<&>' of layer 'stem'" in layer.text
    assert "node at fault: Conv 'node_h'" in layer.text
    explained = cases["onnxplain.one against two_0", "full grad"]
    assert explained.find("failure") is None
    assert "1 decision of Relu" in explained.find("system-out").text
    assert cases["onnxplain.one against three", "output"].find("failure") is None


def test_completeness_and_backends_left_out_are_cases(root):
    suite = root[-1]
    assert suite.get("name") == "completeness"
    failing = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failing == ["full grad on two.0"]
    (left_out,) = (case for case in suite if case.find("skipped") is not None)
    assert left_out.get("name") == "full grad on source"
    assert left_out.find("skipped").get("message") == "an ONNX file has no source"


def test_the_text_is_an_aligned_table_with_the_failing_pair_first(report):
    lines = report.to_text().splitlines()
    assert lines[0] == report.headline and "4 disagree" in lines[0]
    assert lines[2] == "one against two.0: disagree"
    head = lines[3]
    for line in lines[4:7]:
        assert line[head.index("worst at") - 1] == " " and line[head.index("worst at")] != " "
    assert "layer" in lines[5] and lines[5].split()[1:4] == ["3", "2", "5.0e-02"]
    assert "one against three: agree" in lines
    assert any("two.0" in line and line.endswith("fails") for line in lines)
