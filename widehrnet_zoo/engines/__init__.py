"""What runs a network: PyTorch, compiled kernels, or the runtime of an exported file."""

ENGINES = ('auto', 'kernels', 'deployed', 'graphs', 'eager')
"""How a network is run: the best of the others for its device; this package's own CPU kernels; PyTorch on the deployed
network, whose convolutions are folded; PyTorch in half precision as CUDA graphs; PyTorch on the network as it is."""
