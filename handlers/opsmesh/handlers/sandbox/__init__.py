"""What a step's program may reach: files, network, memory, processor, other processes."""
