"""What a decomposition asks of the machine: memory, precision, and other processes."""
