"""What runs a network: PyTorch, compiled kernels, or the runtime of an exported file."""
