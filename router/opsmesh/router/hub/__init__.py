"""Many hosts: a hub, and the hosts that have joined it."""
