"""Engines that compute a policy's passes: ONNX Runtime, our own CPU kernels, PyTorch, TensorRT."""
