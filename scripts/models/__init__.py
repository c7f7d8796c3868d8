"""Reference models in plain PyTorch that TorchScript can script."""
