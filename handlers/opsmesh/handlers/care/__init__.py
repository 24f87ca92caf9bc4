"""Care of what a mesh keeps: backups, putting them back, upgrades, and what nobody needs."""
