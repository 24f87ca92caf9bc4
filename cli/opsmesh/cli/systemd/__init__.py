"""The mesh as units of systemd: what is installed, and what decides what runs."""
