"""From the PyTorch model to what runs on a robot: ONNX, the bundle, and the proof that they agree."""
