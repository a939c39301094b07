"""Utilities that depend on neither PyTorch nor the domain."""
