"""What is estimated from datasets and models: significance and residual maps."""
