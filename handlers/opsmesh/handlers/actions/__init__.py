"""What a step of a profile does: the action kinds of the entry points `opsmesh.actions`."""
