"""What knows neither PyTorch nor the domain."""
