"""What `diagnose` looks for, and the statistics behind it."""
