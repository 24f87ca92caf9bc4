"""What people say of runs, and what follows from it."""
