"""Files for other runtimes: ONNX, OpenVINO, TorchScript, torch.export."""
