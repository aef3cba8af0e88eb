"""The running steps of a batch: state, noise, CUDA graphs, figures."""
