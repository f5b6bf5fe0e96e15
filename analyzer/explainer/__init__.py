"""The explanation as one ONNX file that any ONNX Runtime runs, and a web page around it."""
