"""From a user's ONNX file to a Network and weights. The files go by what they know: bytes, views, operators, parity."""
