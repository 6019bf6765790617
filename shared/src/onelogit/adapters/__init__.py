"""What framework adapters share."""
