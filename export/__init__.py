"""From the PyTorch model to the robot: ONNX, TensorRT, the bundle, the proof that they agree."""
