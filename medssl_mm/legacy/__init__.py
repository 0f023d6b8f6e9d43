"""What repeats released code with its quirks."""
