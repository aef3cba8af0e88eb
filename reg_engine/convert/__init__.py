"""Published checkpoints as files of this package: read without running anything, told apart."""
