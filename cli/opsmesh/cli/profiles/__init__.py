"""`opsmesh profile`: one module for each group of its commands."""
