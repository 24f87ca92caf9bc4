"""What a profile's steps do. Each action kind comes in through the entry points `opsmesh.actions`."""
